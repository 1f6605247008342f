"""What sysfs says of NBD devices, and the negotiation with a server, without a kernel's NBD."""

import contextlib
import errno
import socket
import struct
import threading
from pathlib import Path

import pytest

from volagent.host.errors import Absent, HostError, Unsupported
from volagent.host.nbd_devices import NbdDevice, find_device, list_devices, read_device
from volagent.host.nbd_link import Target, dial, inquire

EXPORT = b"disk1"
SIZE = 96 << 20
TIMEOUT_S = 5.0


def make_device(sysfs: Path, name: str, **files: str) -> None:
    (sysfs / name).mkdir()
    for file, text in files.items():
        (sysfs / name / file).write_text(f"{text}\n")


def test_connected_devices_are_listed_by_number_with_what_they_show(tmp_path):
    make_device(tmp_path, "nbd10", pid="7", backend="a:10809/x", size="2048", ro="0")
    make_device(tmp_path, "nbd2", pid="8", backend="b:10809/y z", size="8", ro="1")
    make_device(tmp_path, "nbd0", size="0", ro="0")
    make_device(tmp_path, "nbd3p1", pid="9")
    make_device(tmp_path, "sda", size="2048", ro="0")
    assert list_devices(sysfs=str(tmp_path)) == [
        NbdDevice(2, "b:10809/y z", 4096, True),
        NbdDevice(10, "a:10809/x", 1 << 20, False),
    ]


def test_device_is_found_by_the_whole_identity_only(tmp_path):
    make_device(tmp_path, "nbd0", pid="7", backend="a:10809/disk1", size="8", ro="0")
    make_device(tmp_path, "nbd1", pid="7", size="8", ro="0")
    found = find_device("a:10809/disk1", sysfs=str(tmp_path))
    assert found is not None
    assert found.path == "/dev/nbd0"
    for other in ("a:10809/disk", "a:10809/disk11", ":10809/disk1"):
        assert find_device(other, sysfs=str(tmp_path)) is None


def test_device_of_somebody_else_is_in_use_and_nobodys(tmp_path):
    make_device(tmp_path, "nbd1", pid="7", size="8", ro="0")
    assert read_device(1, sysfs=str(tmp_path)) == NbdDevice(1, "", 4096, False)


def test_nothing_is_connected_when_a_device_has_no_pid_or_is_missing(tmp_path):
    make_device(tmp_path, "nbd0", backend="a:10809/disk1", size="8", ro="0")
    assert read_device(0, sysfs=str(tmp_path)) is None
    assert read_device(1, sysfs=str(tmp_path)) is None
    assert list_devices(sysfs=str(tmp_path / "none")) == []


class Server:
    """One connection of a server of the newstyle kind, played from a script."""

    def __init__(self, answers: dict[int, list[tuple[int, bytes]]], greeting: bytes | None = None):
        self._answers = answers
        self._greeting = greeting or b"NBDMAGICIHAVEOPT" + struct.pack(">H", 3)
        self._end = socket.create_server(("127.0.0.1", 0))
        self.asked: list[tuple[int, bytes]] = []
        self.rest = b""
        """What came that is no option."""
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    @property
    def target(self) -> Target:
        return Target("127.0.0.1", self._end.getsockname()[1], EXPORT.decode())

    def close(self) -> None:
        self._thread.join(TIMEOUT_S)
        self._end.close()

    def _serve(self) -> None:
        end, _ = self._end.accept()
        with end, end.makefile("rwb") as stream, contextlib.suppress(ConnectionResetError):
            stream.write(self._greeting)
            stream.flush()
            stream.read(4)
            while len(header := stream.read(16)) == 16:
                magic, option, length = struct.unpack(">8sII", header)
                if magic != b"IHAVEOPT":
                    self.rest = header + stream.read()
                    return
                self.asked.append((option, stream.read(length)))
                for kind, data in self._answers.get(option, []):
                    reply = struct.pack(">QIII", 0x3E889045565A9, option, kind, len(data))
                    stream.write(reply + data)
                stream.flush()
                if option not in self._answers:
                    return


INFO = [
    (3, struct.pack(">HQH", 0, SIZE, 0b101)),
    (3, struct.pack(">HIII", 3, 1024, 4096, 1 << 25)),
    (1, b""),
]


@pytest.fixture
def serve():
    servers = []

    def make(*args):
        servers.append(Server(*args))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


def test_export_is_opened_by_its_name_and_its_facts_are_read(serve):
    server = serve({7: INFO})
    link = dial(server.target, timeout_s=TIMEOUT_S)
    assert (link.facts.size_bytes, link.facts.flags, link.facts.block_bytes) == (SIZE, 5, 1024)
    link.close()
    assert server.asked[0][1][4:9] == EXPORT


def test_inquiry_ends_its_connection_by_a_request(serve):
    server = serve({7: INFO})
    assert inquire(server.target, timeout_s=TIMEOUT_S).size_bytes == SIZE
    server.close()
    assert server.rest == struct.pack(">IHHQQI", 0x25609513, 0, 2, 0, 0, 0)


@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [
        (6, Absent, "does not know the export: 'nothing here'"),
        (2, HostError, "its policy forbids it"),
        (5, HostError, "it wants TLS"),
        (1, Unsupported, "does not know NBD_OPT_GO"),
    ],
)
def test_refusal_is_told_in_the_servers_words(serve, kind, error, words):
    server = serve({7: [((1 << 31) + kind, b"nothing\x1b here".replace(b"\x1b", b""))]})
    with pytest.raises(error, match=words):
        dial(server.target, timeout_s=TIMEOUT_S)


def test_other_services_are_recognised(serve):
    server = serve({}, b"SSH-2.0-OpenSSH_9.2 and more")
    with pytest.raises(Unsupported, match="no NBD server"):
        dial(server.target, timeout_s=TIMEOUT_S)


def test_closed_connection_asks_whether_this_machine_is_allowed(serve):
    server = serve({})
    with pytest.raises(HostError, match="does it allow this machine") as caught:
        dial(server.target, timeout_s=TIMEOUT_S)
    assert caught.value.errno == errno.ECONNRESET


def test_port_where_nobody_listens_refuses():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(HostError) as caught:
        dial(Target("127.0.0.1", port, "x"), timeout_s=TIMEOUT_S)
    assert caught.value.errno == errno.ECONNREFUSED


def test_target_shows_no_secret():
    target = Target("a", 1, "x", {"key": "precious"})
    assert "precious" not in repr(target)
    assert target.identity == "a:1/x"
