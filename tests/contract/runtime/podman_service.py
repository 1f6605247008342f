"""A podman of the tests' own: its storage, locks, socket, processes and mounts are nobody else's.

It runs in a PID and a mount namespace that die with it, and it dies with the test run, so that not
even `kill -9` leaves a container, a monitor or a mount behind.
"""

import http.client
import os
import shutil
import socket
import subprocess
import tarfile
import time
from pathlib import Path

IMAGE = "localhost/volagent-test:1"
_TOOLS = ("podman", "runc", "conmon", "busybox", "unshare", "setpriv")
_APPLETS = ("sh", "true", "false", "cat", "echo", "id", "sleep", "ls", "touch", "pwd", "env", "dd")
_OWN_RUN = """
mount -t tmpfs tmpfs /run && mkdir /run/cdi && mount --bind "$0" /run/cdi && exec "$@"
"""
_STARTS_WITHIN_S = 20.0
_CONFIG = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]
log_driver = "k8s-file"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
"""


def find_lack() -> str:
    """Why podman cannot run here, or ""."""
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        packages = "podman runc conmon busybox-static util-linux"
        return f"needs {', '.join(missing)}: apt-get install {packages}"
    if os.geteuid() != 0:
        return "needs root: run `sudo make test`"
    return ""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("podman")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


class PodmanService:
    """`podman system service` on a private socket, with one image."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.socket = str(root / "podman.sock")
        self.cdi = root / "cdi"
        """What podman sees as /run/cdi."""
        self.cdi.mkdir()
        (root / "containers.conf").write_text(_CONFIG)
        self._environment = {**os.environ, "CONTAINERS_CONF": str(root / "containers.conf")}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Import the image and serve."""
        self.run("import", str(self._make_image()), IMAGE)
        command = self._command("system", "service", "-t", "0", f"unix://{self.socket}")
        with (self.root / "service.log").open("wb") as log:
            self._process = subprocess.Popen(
                command, env=self._environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                cwd=self.root,  # conmon leaves a note of an out-of-memory kill where it runs
            )  # fmt: skip
        deadline = time.monotonic() + _STARTS_WITHIN_S
        while not os.path.exists(self.socket):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self.root / "service.log").read_text())
            time.sleep(0.01)

    def run(self, *arguments: str) -> str:
        """A podman command beside the service, on the same storage; what it prints."""
        done = subprocess.run(
            self._command(*arguments), env=self._environment, capture_output=True, check=False,
            text=True, stdin=subprocess.DEVNULL, timeout=60, cwd=self.root,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"podman {' '.join(arguments)}: {done.stderr}")
        return done.stdout

    def remove_containers(self, ids: list[str]) -> None:
        """Kill and remove, through the service, whose namespaces the processes are in."""
        for container_id in ids:
            connection = _UnixConnection(self.socket)
            connection.request(
                "DELETE", f"/v4.0.0/libpod/containers/{container_id}?force=true&timeout=0"
            )
            connection.getresponse().read()
            connection.close()

    def stop(self) -> None:
        """End the service and everything in its namespaces."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def _command(self, *arguments: str) -> list[str]:
        options = ["--root", f"{self.root}/storage", "--runroot", f"{self.root}/run",
                   "--tmpdir", f"{self.root}/tmp", "--storage-driver", "vfs"]  # fmt: skip
        fence = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork",
                 "--kill-child", "--mount-proc"]  # fmt: skip
        return [*fence, "sh", "-c", _OWN_RUN, str(self.cdi), "podman", *options, *arguments]

    def _make_image(self) -> Path:
        archive = self.root / "image.tar"
        busybox = shutil.which("busybox")
        assert busybox is not None
        with tarfile.open(archive, "w") as tar:
            tar.add(os.path.realpath(busybox), "bin/busybox")
            for applet in _APPLETS:
                link = tarfile.TarInfo(f"bin/{applet}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(link)
        return archive
