"""A container that somebody else started keeps its volumes until it ends, or grace is over."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.manifests import pod, scratch
from tests.kernel.daemon.harness import Daemon, Json, until

# Like a container: a mount namespace of its own, cut off from ours, that shows only the volume.
_CONTAINER = """
import ctypes, os, platform, sys
libc = ctypes.CDLL(None, use_errno=True)
def must(result):
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
root, volume = sys.argv[1].encode(), sys.argv[2].encode()
NEWNS, BIND, REC, PRIVATE, DETACH = 0x20000, 0x1000, 0x4000, 0x40000, 2
must(libc.unshare(NEWNS))
must(libc.mount(None, b"/", None, REC | PRIVATE, None))
must(libc.mount(b"none", root, b"tmpfs", 0, None))
os.mkdir(root + b"/v"); os.mkdir(root + b"/old")
must(libc.mount(volume, root + b"/v", None, BIND, None))
os.chdir(root)
must(libc.syscall({"x86_64": 155, "aarch64": 41}[platform.machine()], b".", b"old"))
must(libc.umount2(b"/old", DETACH))
open("/v/started", "w").close()
sys.stdin.read()
"""


@pytest.fixture
def start_container(tmp_path: Path):
    running: list[subprocess.Popen[bytes]] = []

    def start(volume: Path) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-c", _CONTAINER, str(tmp_path), str(volume)], stdin=subprocess.PIPE
        )
        running.append(process)
        until((volume / "started").exists)
        return process

    yield start
    for process in running:
        process.kill()
        process.wait()
        assert process.stdin is not None
        process.stdin.close()


@pytest.mark.parametrize("volume", [scratch("v"), {"name": "v", "emptyDir": {"medium": "Memory"}}],
                         ids=["directory", "mount"])  # fmt: skip
def test_volume_stays_until_the_container_ends_when_somebody_else_started_it(
    daemon: Daemon, start_container, volume: Json
) -> None:
    document = pod("web", [volume])
    (home,) = daemon.declare_ready(document)
    target = home / "volumes" / "kubernetes.io~empty-dir" / "v"
    container = start_container(target)

    daemon.delete(document)
    until(lambda: f"pid {container.pid}" in str(daemon.get(document).get("status")))
    assert target.is_dir()
    assert (target / "started").exists()

    os.kill(container.pid, signal.SIGKILL)
    container.wait()
    until(lambda: not daemon.exists(document))
    until(lambda: not home.exists())


def test_volume_goes_at_once_when_the_pod_is_deleted_without_grace(
    daemon: Daemon, start_container
) -> None:
    document = pod("web", [scratch("v")])
    (home,) = daemon.declare_ready(document)
    start_container(home / "volumes" / "kubernetes.io~empty-dir" / "v")

    daemon.call("DELETE", "/api/v1/namespaces/default/pods/web?gracePeriodSeconds=0")
    until(lambda: not home.exists())
