"""The demo's stage: a throw-away directory, the daemon in it, and claims that are checked.

Everything lives below one directory and inside one private mount and pid namespace, so that
whatever happens to the demo, nothing of it stays on the machine.
"""

import itertools
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from volagent.cli.connection import Api, Target
from volagent.cli.errors import CommandError

HERE = Path(__file__).resolve().parent
VOLAGENT = Path(sys.executable).with_name("volagent")
START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 30.0
COMMAND_TIMEOUT_S = 60.0


class NotAsClaimed(Exception):
    """Something that the demo says is not so."""


def say(text: str = "") -> None:
    """Words for the audience."""
    print(text, flush=True)


def check(claim: str, holds: bool) -> None:
    """Say a claim that was just looked at. Raises `NotAsClaimed`."""
    if not holds:
        raise NotAsClaimed(claim)
    say(f"   ✔ {claim}")


def wait_until(holds: Callable[[], bool], timeout_s: float) -> float:
    """Look until something holds; the seconds it took, or infinity."""
    began_s = time.monotonic()
    while not holds():
        if time.monotonic() - began_s > timeout_s:
            return float("inf")
        time.sleep(0.002)
    return time.monotonic() - began_s


def in_ms(took_s: float) -> str:
    """A short time in words."""
    return f"{took_s * 1000:.0f} ms" if took_s >= 0.001 else "less than 1 ms"


class Stage:
    """Paths, the daemon's process, and the command line as a user would call it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.root = directory / "kubelet"
        self.run_dir = directory / "run"
        self.state = directory / "state"
        self.host_dir = Path("/mnt/volagent-demo")
        self.podman_socket = self.run_dir / "podman.sock"
        self.daemon: subprocess.Popen[bytes] | None = None
        self.log = directory / "daemon.log"

    def prepare(self) -> None:
        """The mounts of the stage itself, which die with its mount namespace."""
        self.run_dir.mkdir()
        (self.directory / "mnt").mkdir()
        self.root.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "demo-run", self.run_dir], check=True)
        # The manifests name /mnt/volagent-demo; the audience's own /mnt stays as it is.
        subprocess.run(["mount", "--bind", self.directory / "mnt", "/mnt"], check=True)

    def configure(self, *, with_podman: bool) -> None:
        """Write the daemon's settings."""
        kind = "podman" if with_podman else "none"
        (self.directory / "volagent.toml").write_text(
            f'[runtime]\nkind = "{kind}"\nnetwork = "none"\n'
            f'podman_socket = "{self.podman_socket}"\ncdi_dir = "{self.run_dir}/cdi"\n'
            '[log]\nformat = "text"\n'
        )

    def start_daemon(self, *flags: str) -> float:
        """Start `volagent run` and wait until it is ready; the seconds that took."""
        command = [
            VOLAGENT, "run", "--config", self.directory / "volagent.toml",
            "--root-dir", self.root, "--state-dir", self.state, "--run-dir", self.run_dir,
            "--node-name", "demo", *flags,
        ]  # fmt: skip
        shown = shlex.join(str(word) for word in command[1:]).replace(str(self.directory), "…")
        say(f"   $ volagent {shown} &")
        with self.log.open("ab") as log:
            self.daemon = subprocess.Popen(command, stdout=log, stderr=log, stdin=log)
        took_s = wait_until(self._is_ready, START_TIMEOUT_S)
        if took_s == float("inf"):
            raise NotAsClaimed(f"the daemon is ready within {START_TIMEOUT_S:.0f} s")
        return took_s

    def _is_ready(self) -> bool:
        if self.daemon is not None and self.daemon.poll() is not None:
            raise NotAsClaimed(f"the daemon runs (it ended with {self.daemon.returncode})")
        api = Api(Target(socket_path=f"{self.run_dir}/volagent.sock"))
        try:
            api.get("/readyz")
        except CommandError:
            return False
        finally:
            api.close()
        return True

    def stop_daemon(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait; the exit status."""
        daemon, self.daemon = self.daemon, None
        if daemon is None:
            return 0
        daemon.send_signal(number)
        try:
            return daemon.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
            raise NotAsClaimed(f"the daemon stops within {STOP_TIMEOUT_S:.0f} s") from None

    def call(self, *arguments: str, show: bool = True) -> str:
        """Call `volagent` as a user does; its output. Raises `NotAsClaimed` when it fails."""
        if show:
            say(f"   $ volagent {shlex.join(arguments)}")
        done = subprocess.run(
            [VOLAGENT, "--run-dir", self.run_dir, *arguments],
            capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False,
        )  # fmt: skip
        output = done.stdout + done.stderr
        if show:
            for line in self._shorten(output):
                say(f"     {line}")
        if done.returncode != 0:
            raise NotAsClaimed(f"`volagent {arguments[0]}` succeeds: {output.strip()}")
        return done.stdout

    def _shorten(self, output: str) -> list[str]:
        """Write the throw-away directory as … and set the tables again, for narrower lines."""
        lines = output.replace(str(self.directory), "…").splitlines()
        rows = [re.split(r" {3,}", line) for line in lines]
        shown: list[str] = []
        for is_table, block in itertools.groupby(rows, key=lambda cells: len(cells) > 1):
            table = list(block)
            if not is_table:
                shown += [cells[0] for cells in table]
                continue
            columns = itertools.zip_longest(*table, fillvalue="")
            widths = [max(map(len, column)) for column in columns]
            shown += [
                "   ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=False))
                for cells in table
            ]
        return [line.rstrip() for line in shown]

    def pod_uid(self) -> str:
        """The uid of the pod, as declared now."""
        return (
            self.call("get", "pod", "web", "-o", "yaml", show=False).split("  uid: ")[1].split()[0]
        )

    def volume(self, kind: str, name: str, *below: str) -> Path:
        """Where a volume of the pod is mounted on this machine."""
        return self.root.joinpath("pods", self.pod_uid(), "volumes", kind, name, *below)

    def mounts(self) -> dict[str, tuple[str, str, str]]:
        """Mount point → (mount id, type, source) of everything below the root directory."""
        found = {}
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            before, _, after = line.partition(" - ")
            fields = before.split()
            if fields[4].startswith(f"{self.root}/"):
                kind, source = after.split()[:2]
                found[fields[4]] = (fields[0], kind, source)
        return found

    def show_mounts(self) -> None:
        """The pod's mount tree."""
        uid = self.pod_uid()
        for point, (_, kind, source) in sorted(self.mounts().items()):
            short = point.removeprefix(f"{self.root}/").replace(uid, "<uid>")
            short = re.sub(r"([0-9a-f]{8})[0-9a-f]{56}", r"\1…", short)
            say(f"     {short:<68} {kind:<6} {source}")

    def print_log(self) -> None:
        """The end of the daemon's log, when something went wrong."""
        if self.log.exists():
            say("\nThe end of the daemon's log:")
            for line in self.log.read_text(errors="replace").splitlines()[-25:]:
                say(f"   {line}")


def other_processes() -> list[str]:
    """Everything that runs in the demo's pid namespace besides the demo itself."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) in (1, os.getpid()):
            continue
        try:
            command = Path("/proc", name, "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if command:  # a zombie has none, and is reaped by process 1
            found.append(f"{name} {command.strip()}")
    return found


def attached_loops(directory: Path) -> list[str]:
    """Loop devices that show a file below a directory."""
    found = []
    for device in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            backing = device.read_text()
        except OSError:
            continue
        if backing.startswith(f"{directory}/"):
            found.append(f"/dev/{device.parents[1].name}")
    return found
