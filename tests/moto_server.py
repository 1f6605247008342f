"""moto's server as the EC2 API of tests: a process of its own, from `.venv/moto`.

It forgets everything when it is told to, judges no signature, and attaches at once: what only AWS
does (states that take time, quotas, eventual consistency) is tested with a scripted API elsewhere.
"""

import contextlib
import ctypes
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SERVER = ROOT / ".venv" / "moto" / "bin" / "moto_server"
REGION, ZONE = "us-east-1", "us-east-1a"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "AKIDTEST", "AWS_SECRET_ACCESS_KEY": "not-a-secret",
    "AWS_EC2_METADATA_DISABLED": "true",
}  # fmt: skip
_PR_SET_PDEATHSIG = 1
_prctl = ctypes.CDLL(None, use_errno=True)["prctl"]
_START_S = 60.0


class MotoServer:
    """One server; asked without waiting for any event loop."""

    def __init__(self, port: int) -> None:
        self.endpoint = f"http://127.0.0.1:{port}"

    def reset(self) -> None:
        """Forget everything."""
        request = urllib.request.Request(f"{self.endpoint}/moto-api/reset", method="POST")
        with urllib.request.urlopen(request, timeout=10) as answer:
            answer.read()

    def call(self, action: str, **parameters: str) -> ElementTree.Element:
        """One call, with names as the query API has them but `_` for `.`; raises on an error."""
        given = {name.replace("_", "."): value for name, value in parameters.items()}
        body = urllib.parse.urlencode({"Action": action, "Version": "2016-11-15", **given})
        scope = f"Credential=AKIDTEST/20260101/{REGION}/ec2/aws4_request"
        request = urllib.request.Request(
            f"{self.endpoint}/", body.encode(), {"Authorization": f"AWS4-HMAC-SHA256 {scope}"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            root = ElementTree.fromstring(answer.read())
        for element in root.iter():
            element.tag = element.tag.rpartition("}")[2]
        return root

    def start_instance(self) -> str:
        """A machine in `ZONE`; its id."""
        answer = self.call(
            "RunInstances", ImageId="ami-12c6146b", MinCount="1", MaxCount="1",
            Placement_AvailabilityZone=ZONE,
        )  # fmt: skip
        found = answer.findtext(".//instanceId")
        assert found is not None
        return found

    def tags_of(self, volume_id: str) -> dict[str, str] | None:
        """The tags of a volume; None when it is gone."""
        try:
            answer = self.call("DescribeVolumes", VolumeId_1=volume_id)
        except urllib.error.HTTPError:
            return None
        return {
            item.findtext("key", ""): item.findtext("value", "")
            for item in answer.iterfind(".//tagSet/item")
        }

    def attachments(self, instance_id: str) -> dict[str, int]:
        """The volumes that were attached to a machine, with their sizes in GiB."""
        answer = self.call("DescribeVolumes")
        return {
            item.findtext("volumeId", ""): int(item.findtext("size", "0"))
            for item in answer.iterfind("volumeSet/item")
            if item.findtext("attachmentSet/item/instanceId") == instance_id
            and item.findtext("attachmentSet/item/device") != "/dev/sda1"
        }


@contextlib.contextmanager
def running_server(log: Path) -> Iterator[MotoServer]:
    """A server until the end; skips the test where it is not installed."""
    if not SERVER.exists():
        pytest.skip("moto's server is not in .venv/moto: run tests/setup/moto.sh with a network")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(SERVER), "-H", "127.0.0.1", "-p", str(port)],
            stdout=output, stderr=output, stdin=subprocess.DEVNULL, preexec_fn=die_with_pytest,
        )  # fmt: skip
    try:
        _wait_for(port, process, log)
        yield MotoServer(port)
    finally:
        process.kill()
        process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end_s = time.monotonic() + _START_S
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end_s, log.read_text()
        time.sleep(0.02)


def die_with_pytest() -> None:
    """For a process that is started by a test: to end with it, also when that is killed."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
