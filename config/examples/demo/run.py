"""`make demo`: a pod's volumes from declaration to removal, on a throw-away state directory.

The outer process makes a directory and starts itself again inside a private mount and pid
namespace, where the story is told; when that ends, however it ends, the kernel takes down every
mount and process of it, and the outer process removes the directory and looks for anything left.
Exits with 1 when anything is not as claimed.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType

import psutil
from containers import Podman
from stage import (
    HERE,
    NotAsClaimed,
    Stage,
    attached_loops,
    check,
    in_ms,
    other_processes,
    say,
    wait_until,
)

MIB = 1024 * 1024
EMPTY_DIR, CLAIM = "kubernetes.io~empty-dir", "kubernetes.io~csi"
SECRET, CONFIG_MAP = "kubernetes.io~secret", "kubernetes.io~configmap"
DATA = (CLAIM, "demo-data", "mount")


class Story:
    """The demo, step by step."""

    def __init__(self, stage: Stage, podman: Podman | None) -> None:
        self.stage = stage
        self.podman = podman
        self.number = 0

    def tell(self) -> None:
        """All of it. Raises `NotAsClaimed`."""
        self.start()
        self.declare()
        self.look()
        self.use()
        self.change_a_config_map()
        self.unmount_by_hand()
        self.kill_the_daemon()
        self.delete_and_declare_again()
        self.drain()

    def step(self, title: str) -> None:
        """A headline."""
        self.number += 1
        say(f"\n{self.number}. {title}")

    def start(self) -> None:
        """An empty state directory, and the daemon on it."""
        self.step("Start the daemon on an empty, throw-away state directory")
        took_s = self.stage.start_daemon()
        check(f"it serves its API after {took_s:.1f} s", True)

    def declare(self) -> None:
        """Apply the manifests and wait for the volumes."""
        self.step("Declare a pod with six volumes, and wait until they are ready")
        self.stage.call("apply", "--wait", "-f", str(HERE))
        check("the pod's volumes are ready", "Ready" in self.stage.call("get", "pods", show=False))

    def look(self) -> None:
        """Three ways to see what was done."""
        self.step("What is mounted for it on this machine")
        self.stage.show_mounts()
        points = self.stage.mounts()
        data = str(self.stage.volume(*DATA))
        check("the image file is an ext4 file system by now", points.get(data, "  ")[1] == "ext4")
        check("the secret is in memory", points[str(self.secret)][1] == "tmpfs")
        self.step("What each container is handed")
        self.stage.call("mounts", "pod/web")
        self.step("Why it is so, step by step")
        self.stage.call("explain", "pod/web")

    @property
    def secret(self) -> Path:
        """The pod's directory for its secret."""
        return self.stage.volume(SECRET, "password")

    def use(self) -> None:
        """Read and write, from the containers where there are any, and from outside."""
        self.step("Use the volumes")
        data, cache = self.stage.volume(*DATA), self.stage.volume(EMPTY_DIR, "cache")
        password = (self.secret / "password").read_text()
        check("the secret can be read", password == "correct horse battery staple")
        (data / "kept").write_text("this must survive the pod")
        (cache / "lost").write_text("this must not")
        (self.stage.volume(EMPTY_DIR, "scratch") / "lost").write_text("nor this")
        (self.stage.host_dir / "kept").write_text("this belongs to the machine")
        check("the data volume, both emptyDirs and the hostPath can be written", True)
        check("the memory volume refuses a byte more than its 16 MiB", not _fits(cache, 17 * MIB))
        mode = data.stat()
        check(
            "fsGroup 2000 owns the data volume",
            (mode.st_gid, mode.st_mode & 0o2070) == (2000, 0o2070),
        )
        if self.podman is None:
            return
        inside = self.podman.execute("app", "cat", "/data/kept", "/cache/password")
        check("the container reads the same files", "survive the pod" in inside)
        check(
            "the container wrote to the machine's directory",
            (self.stage.host_dir / "visitors").exists(),
        )
        refused = self._is_refused("backup", "touch", "/backup/x")
        check("its neighbour has the same volume, read-only", refused)

    def _is_refused(self, container: str, *command: str) -> bool:
        assert self.podman is not None
        try:
            self.podman.execute(container, *command)
        except NotAsClaimed as error:
            return "Read-only file system" in str(error)
        return False

    def change_a_config_map(self) -> None:
        """A change reaches the files atomically, within a second."""
        self.step("Change the ConfigMap while the pod runs")
        text = (HERE / "10-config.yaml").read_text()
        changed = self.stage.directory / "changed.yaml"
        changed.write_text(text.replace("hello from a ConfigMap", "hello again"))
        file = self.stage.volume(CONFIG_MAP, "config") / "greeting.txt"
        self.stage.call("apply", "-f", str(changed))
        took_s = wait_until(lambda: "again" in file.read_text(), 5.0)
        check(f"the file shows it {in_ms(took_s)} after the answer", took_s < 1.0)

    def unmount_by_hand(self) -> None:
        """The daemon hears of it from the kernel."""
        self.step("Unmount the secret behind the daemon's back")
        secret = self.secret
        point = str(secret)
        say(f"   $ umount {point.replace(str(self.stage.directory), '…')}")
        if self.podman is not None:
            say("   (only the machine's view of it; the containers hold their own mounts)")
        subprocess.run(["umount", point], check=True)
        took_s = wait_until((secret / "password").exists, 5.0)
        check(f"it is back, with its content, after {in_ms(took_s)}", took_s < 1.0)
        events = self.stage.call("get", "events")
        check("an event tells of it", "VolumeUnmounted" in events)

    def kill_the_daemon(self) -> None:
        """Nothing that stands depends on the process."""
        self.step("Kill the daemon with SIGKILL, and start it again")
        before, running = self.stage.mounts(), self._containers()
        self.stage.stop_daemon(signal.SIGKILL)
        check("without it, every mount stays", self.stage.mounts() == before)
        took_s = self.stage.start_daemon("--drain-on-exit")
        check(f"it knows everything again after {took_s:.1f} s", True)
        check("not one mount was made, changed or removed", self.stage.mounts() == before)
        if self.podman is not None:
            check("the containers never noticed", self._containers() == running)

    def _containers(self) -> dict[str, str]:
        return self.podman.list_containers() if self.podman is not None else {}

    def delete_and_declare_again(self) -> None:
        """What persists, and what does not."""
        self.step("Delete the pod")
        uid = self.stage.pod_uid()
        self.stage.call("delete", "pod", "web")
        # The claim's volume is no part of the pod: it follows a moment later.
        took_s = wait_until(self._is_let_go, 5.0)
        check(f"its loop device is given back {in_ms(took_s)} later", took_s < 2.0)
        check("nothing of it is mounted any more", not self.stage.mounts())
        check("its directory is gone", not (self.stage.root / "pods" / uid).exists())
        check("no container is left", not self._containers())
        self.step("Declare the same pod again")
        self.stage.call("apply", "--wait", "-f", str(HERE))
        kept = self.stage.volume(*DATA) / "kept"
        check(
            "the image volume still has its file", kept.read_text() == "this must survive the pod"
        )
        check("so has the machine's directory", (self.stage.host_dir / "kept").exists())
        check("the emptyDir on disk is empty again", not self._find("scratch"))
        check("the emptyDir in memory is empty again", not self._find("cache"))

    def _is_let_go(self) -> bool:
        return not attached_loops(self.stage.directory) and not self.stage.mounts()

    def _find(self, name: str) -> bool:
        return (self.stage.volume(EMPTY_DIR, name) / "lost").exists()

    def drain(self) -> None:
        """Leave nothing behind."""
        self.step("Stop the daemon, which was told to take everything down first (--drain-on-exit)")
        status = self.stage.stop_daemon()
        check("it ends with status 0", status == 0)
        check("no mount is left", not self.stage.mounts())
        check("no loop device is left", not attached_loops(self.stage.directory))
        check("no container is left", not self._containers())
        if self.podman is not None:
            self.podman.stop()
        wait_until(lambda: not other_processes(), 2.0)
        left = other_processes()
        check(f"no process is left{': ' + ', '.join(left) if left else ''}", not left)


def _fits(directory: Path, size: int) -> bool:
    big = directory / "big"
    try:
        big.write_bytes(bytes(size))
    except OSError:
        return False
    finally:
        big.unlink(missing_ok=True)
    return True


def tell_inside(directory: Path) -> int:
    """Inside the namespaces: tell the story, and clean up whatever happens."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)  # also when they were ignored, as by `make demo &`
    stage = Stage(directory)
    podman = Podman(directory, stage.podman_socket)
    try:
        stage.prepare()
        why_not = _start_podman(podman)
        stage.configure(with_podman=not why_not)
        if why_not:
            say(f"Containers are not started: {why_not}. The mounts are used directly instead.")
        else:
            say("Containers are started through a podman of the demo's own.")
        Story(stage, podman if not why_not else None).tell()
    except (NotAsClaimed, OSError, subprocess.SubprocessError) as error:
        say(f"   ✘ NOT AS CLAIMED: {error}")
        stage.print_log()
        return 1
    except KeyboardInterrupt:
        say("\ninterrupted: cleaning up")
        return 130
    finally:
        try:
            stage.stop_daemon()
        except NotAsClaimed as error:
            say(f"   {error}")
        podman.stop()
    return 0


def _start_podman(podman: Podman) -> str:
    """Start the demo's podman; why it cannot be used, or ""."""
    why_not = podman.why_not()
    if why_not:
        return why_not
    try:
        podman.start()
    except NotAsClaimed as error:
        podman.stop()
        return f"podman does not work here: {error}"
    return ""


def run_outside() -> int:
    """Keep the machine clean around the story; its exit status, or 1 when something is left."""
    if os.geteuid() != 0:
        say("The demo mounts file systems, which needs root: sudo make demo")
        return 1
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    began_s = time.monotonic()
    directory = Path(tempfile.mkdtemp(prefix="volagent-demo-", dir="/var/tmp")).resolve()
    command = [
        "unshare", "--mount", "--propagation", "private", "--pid", "--mount-proc", "--fork",
        "--kill-child", "sh", "-c", '"$@"; exit $?', "sh",
        sys.executable, __file__, "--inside", str(directory),
    ]  # fmt: skip
    status = 1
    try:
        story = subprocess.Popen(command)
        try:
            status = story.wait()
        except KeyboardInterrupt:
            status = _let_it_end(story)
    finally:
        left = _clean_up(directory)
    if left:
        say(f"   ✘ left behind, and removed now: {', '.join(left)}")
        return status or 1
    if status == 0:
        say(f"   ✔ nothing is left on the machine; {directory} is removed")
        say(f"\nEverything was as claimed, in {time.monotonic() - began_s:.0f} s.")
    return status


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _let_it_end(story: subprocess.Popen[bytes]) -> int:
    """Interrupt the story as well (a terminal did already) and give it time to clean up."""
    for process in psutil.Process(story.pid).children(recursive=True):
        try:
            if "--inside" in process.cmdline()[:4]:
                process.send_signal(signal.SIGTERM)
        except psutil.NoSuchProcess:
            continue  # one of the commands that the story calls
    try:
        return story.wait(40)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        story.kill()
        return story.wait() or 130


def _clean_up(directory: Path) -> list[str]:
    """Remove the directory; what had to be taken down first, which should be nothing."""
    left = attached_loops(directory)
    for device in left:
        subprocess.run(["losetup", "--detach", device], check=False)
    mounts = Path("/proc/self/mountinfo").read_text()
    if str(directory) in mounts:
        # Never remove a directory with something mounted below it.
        return [*left, f"a mount below {directory}"]
    shutil.rmtree(directory)
    return left


def main() -> int:
    """Outside, or inside the namespaces that the outside made."""
    if sys.argv[1:2] == ["--inside"]:
        return tell_inside(Path(sys.argv[2]))
    return run_outside()


if __name__ == "__main__":
    sys.exit(main())
