"""A podman of the demo's own: storage, socket and image below the throw-away directory."""

import os
import shutil
import subprocess
import tarfile
from pathlib import Path

from stage import NotAsClaimed, wait_until

IMAGE = "localhost/demo-busybox:1"
APPLETS = ("sh", "sleep", "cat", "cp", "echo", "touch", "ls", "mkdir", "rm")
START_TIMEOUT_S = 15.0


class Podman:
    """`podman system service` for the daemon, and `podman` for looking on."""

    def __init__(self, directory: Path, socket: Path) -> None:
        self._directory = directory
        self._socket = socket
        self._service: subprocess.Popen[bytes] | None = None
        self._environment = {**os.environ, "CONTAINERS_CONF": str(directory / "containers.conf")}
        self._parents = set(_cgroup_parents())

    @staticmethod
    def why_not() -> str:
        """Why podman cannot be used here; "" when it seems that it can."""
        if shutil.which("podman") is None:
            return "podman is not installed"
        if shutil.which("runc") is None and shutil.which("crun") is None:
            return "neither runc nor crun is installed"
        if shutil.which("busybox") is None:
            return "busybox, of which the container's image is made, is not installed"
        return ""

    def start(self) -> None:
        """Make the image, open the socket, start a first container. Raises `NotAsClaimed`."""
        unified = Path("/sys/fs/cgroup/cgroup.controllers").exists()
        # crun refuses hybrid cgroups; the limits are those that a container in a container may set.
        runtime = "crun" if unified and shutil.which("crun") else "runc"
        (self._directory / "containers.conf").write_text(
            '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]\n'
            f'[engine]\nruntime = "{runtime}"\ncgroup_manager = "cgroupfs"\n'
            'events_logger = "file"\n'
        )
        archive = self._directory / "image.tar"
        _write_image(archive)
        self.run("import", str(archive), IMAGE)
        self._service = subprocess.Popen(
            self._command("system", "service", "-t", "0", f"unix://{self._socket}"),
            env=self._environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            cwd=self._directory,
        )  # fmt: skip
        if wait_until(self._socket.exists, START_TIMEOUT_S) == float("inf"):
            raise NotAsClaimed("podman opens its socket")
        self.run("run", "--rm", "--network", "none", IMAGE, "echo", "containers start here")

    def run(self, *arguments: str) -> str:
        """Call podman; its output. Raises `NotAsClaimed`."""
        done = subprocess.run(
            self._command(*arguments), env=self._environment, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise NotAsClaimed(f"`podman {arguments[0]}` succeeds: {done.stderr.strip()}")
        return done.stdout.strip()

    def list_containers(self) -> dict[str, str]:
        """The pod's containers: name → id with its start time."""
        form = '{{index .Labels "volagent.dev/container"}} {{.ID}} {{.Pid}}'
        lines = self.run("ps", "--no-trunc", "--format", form).splitlines()
        return {line.split()[0]: line.split(maxsplit=1)[1] for line in lines}

    def execute(self, container: str, *command: str) -> str:
        """Run a command inside one of the pod's containers."""
        return self.run("exec", self.list_containers()[container].split()[0], *command)

    def stop(self) -> None:
        """Remove what is left and close the socket."""
        if self._service is None:
            return
        subprocess.run(
            self._command("rm", "--all", "--force", "--time", "0"), env=self._environment,
            capture_output=True, timeout=60, check=False,
        )  # fmt: skip
        self._service.terminate()
        self._service.wait()
        self._service = None
        for parent in set(_cgroup_parents()) - self._parents:
            wait_until(lambda parent=parent: _remove_groups(parent), 5.0)

    def _command(self, *arguments: str) -> list[str]:
        return [
            "podman", "--root", f"{self._directory}/containers", "--runroot",
            f"{self._socket.parent}/containers", "--storage-driver", "vfs", *arguments,
        ]  # fmt: skip


def _cgroup_parents() -> list[Path]:
    """The control groups that podman makes with cgroupfs and leaves empty."""
    return [path for path in Path("/sys/fs/cgroup").glob("**/libpod_parent") if path.is_dir()]


def _remove_groups(parent: Path) -> bool:
    """Remove a control group with those below it; False while something in it still ends."""
    groups = [path for path in parent.rglob("*") if path.is_dir()]
    try:
        for group in [*sorted(groups, reverse=True), parent]:
            group.rmdir()
    except OSError:
        return False
    return True


def _write_image(archive: Path) -> None:
    """A root file system of busybox, with the libraries that it needs, if any."""
    busybox = Path(shutil.which("busybox") or "").resolve()
    listed = subprocess.run(["ldd", busybox], capture_output=True, text=True, check=False)
    libraries = [word for word in listed.stdout.split() if word.startswith("/")]
    with tarfile.open(archive, "w") as tar:
        for name in ("bin", "tmp", "proc", "sys", "dev", "etc", "run"):
            directory = tarfile.TarInfo(name)
            directory.type, directory.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(directory)
        tar.add(busybox, "bin/busybox", recursive=False)
        for library in libraries:
            tar.add(Path(library).resolve(), library.lstrip("/"), recursive=False)
        for applet in APPLETS:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
