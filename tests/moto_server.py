"""moto's server: answers as EC2 does, on a port of the loopback, until the test run ends."""

import ctypes
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[1] / ".venv/moto/bin/moto_server"
REGION = "eu-west-1"
ZONE = "eu-west-1b"
KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
PATIENCE_S = 60.0
_prctl = ctypes.CDLL(None, use_errno=True)["prctl"]
_PR_SET_PDEATHSIG = 1


def skip_without_moto() -> None:
    """Skip what needs it, with the reason."""
    if not PROGRAM.exists():
        pytest.skip("needs moto: run `tests/setup/moto.sh` (make test does), with a package index")


def run_moto() -> Iterator[str]:
    """The server's URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [PROGRAM, "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
        env={"PATH": os.environ["PATH"], **KEYS},
        preexec_fn=lambda: _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL),  # no other thread here
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        end_s = time.monotonic() + PATIENCE_S
        while True:
            try:
                reset(url)
                break
            except urllib.error.URLError:
                assert process.poll() is None, "moto_server ended"
                assert time.monotonic() < end_s, "moto_server does not answer"
                time.sleep(0.05)
        yield url
    finally:
        process.kill()
        process.wait()


def reset(url: str) -> None:
    """Forget everything."""
    urllib.request.urlopen(f"{url}/moto-api/reset", data=b"", timeout=10).close()
