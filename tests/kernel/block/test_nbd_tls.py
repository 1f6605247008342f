"""NBD over TLS against a real nbd-server: who it is, who we are, and every byte on its way.

The kernel's end of the connection is played here, so that no device is needed.
"""

import errno
import os
import select
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest

from tests.moto_server import die_with_pytest
from tests.unit.http.certificates import Authority, Pair, make_authority
from volagent.host.errors import HostError
from volagent.host.nbd_link import Target, dial, inquire
from volagent.host.nbd_wire import Wire

SIZE_BYTES = 8 << 20
REQUEST, REPLY = struct.Struct(">IHHQQI"), struct.Struct(">IIQ")
READ, WRITE = 0, 1


@dataclass(frozen=True)
class Site:
    """A server that insists on TLS, and what its clients have."""

    authority: Authority
    stranger: Authority
    target: Target
    image: Path


def pem(path: str) -> str:
    return Path(path).read_text()


def material(ca: str, client: Pair | None, host_name: str = "localhost") -> dict[str, str]:
    return {
        "ca": pem(ca), "host_name": host_name,
        "certificate": pem(client.certificate) if client else "",
        "key": pem(client.key) if client else "",
    }  # fmt: skip


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """It stays in the foreground, and so serves one connection."""
    if shutil.which("nbd-server") is None:
        pytest.skip("nbd-server is the other side: install nbd-server")
    place = tmp_path
    authority = make_authority(place / "ours")
    stranger = make_authority(place / "theirs")
    image = place / "disk"
    image.write_bytes(bytes(SIZE_BYTES))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = place / "config"
    config.write_text(
        f"[generic]\nport = {port}\nlistenaddr = 127.0.0.1\nallowlist = true\nforce_tls = true\n"
        f"certfile = {authority.server.certificate}\nkeyfile = {authority.server.key}\n"
        f"cacertfile = {authority.ca}\n[disk]\nexportname = {image}\nflush = true\n"
    )
    process = subprocess.Popen(
        ["nbd-server", "-d", "-C", str(config), "-p", str(place / "pid")],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
        preexec_fn=die_with_pytest,
    )  # fmt: skip
    target = Target("127.0.0.1", port, "disk", material(authority.ca, authority.admin))
    try:
        _await_listening(process)
        yield Site(authority, stranger, target, image)
    finally:
        process.terminate()
        process.wait(20)


def _await_listening(process: "subprocess.Popen[bytes]") -> None:
    """Without a connection to it, which would be the one that it serves."""
    end_s = time.monotonic() + 60
    while not any(
        each.status == psutil.CONN_LISTEN
        for each in psutil.Process(process.pid).net_connections("tcp")
    ):
        assert process.poll() is None, "nbd-server ended"
        assert time.monotonic() < end_s
        time.sleep(0.05)


def test_export_is_negotiated_and_its_facts_are_read(site: Site) -> None:
    facts = inquire(site.target, timeout_s=30)
    assert facts.size_bytes == SIZE_BYTES


class Kernel:
    """The other end of the wire: sends requests, reads replies."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        wire.kernel_end.setblocking(False)
        self.got = bytearray()

    def exchange(self, sent: bytes, wanted: int) -> bytes:
        """Send and receive so many bytes, with the keeper's work done in between."""
        left = memoryview(sent)
        end_s = time.monotonic() + 60
        while left or len(self.got) < wanted:
            assert time.monotonic() < end_s
            try:
                left = left[self.wire.kernel_end.send(left[:65536]) :] if left else left
            except BlockingIOError:
                pass
            assert self.wire.carry()
            try:
                self.got += self.wire.kernel_end.recv(1 << 20)
            except BlockingIOError:
                poll = select.poll()
                for fd, events in self.wire.wants().items():
                    poll.register(fd, events)
                if not left:
                    poll.poll(20)
        answer, self.got = bytes(self.got[:wanted]), self.got[wanted:]
        return answer


def test_what_is_written_over_tls_is_in_the_export_and_is_read_back(site: Site) -> None:
    wire = Wire(dial(site.target, timeout_s=30))
    try:
        kernel = Kernel(wire)
        data = os.urandom(2 << 20)
        head = REQUEST.pack(0x25609513, 0, WRITE, 7, 4096, len(data))
        magic, error, handle = REPLY.unpack(kernel.exchange(head + data, REPLY.size))
        assert (magic, error, handle) == (0x67446698, 0, 7)
        assert site.image.read_bytes()[4096 : 4096 + len(data)] == data
        head = REQUEST.pack(0x25609513, 0, READ, 8, 4096, len(data))
        answer = kernel.exchange(head, REPLY.size + len(data))
        assert REPLY.unpack(answer[: REPLY.size]) == (0x67446698, 0, 8)
        assert answer[REPLY.size :] == data
    finally:
        wire.close()


def test_server_that_wants_tls_refuses_who_does_not(site: Site) -> None:
    with pytest.raises(HostError) as caught:
        dial(replace(site.target, tls=None), timeout_s=30)
    assert caught.value.errno == errno.EACCES


def test_server_of_another_authority_is_not_trusted(site: Site) -> None:
    tls = material(site.stranger.ca, site.authority.admin)
    with pytest.raises(HostError, match=r"TLS 127.*(issuer|verify|signature)"):
        dial(replace(site.target, tls=tls), timeout_s=30)


def test_server_with_another_name_is_not_trusted(site: Site) -> None:
    tls = material(site.authority.ca, site.authority.admin, "elsewhere.example.org")
    with pytest.raises(HostError, match=r"elsewhere\.example\.org"):
        dial(replace(site.target, tls=tls), timeout_s=30)


@pytest.mark.parametrize("known", [False, True])
def test_client_that_the_server_does_not_know_is_refused(site: Site, known: bool) -> None:
    client = site.stranger.admin if known else None
    with pytest.raises(HostError) as caught:
        inquire(replace(site.target, tls=material(site.authority.ca, client)), timeout_s=30)
    assert "BEGIN" not in str(caught.value)
