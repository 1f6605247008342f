"""A machine as a User-Mode-Linux process: a real kernel that boots in seconds, without any
privilege of the host's CPU.

Its root is an overlay (in its own memory) over the host's whole file tree, so the checkout and
every tool of the host are there and nothing it writes reaches the host. It shares one directory
with the host, the *window*, for scripts and their output. Its disks are sparse files.

The kernel runs in a process-id namespace of its own, below a shell (as pid 1 its abort on a panic
would be ignored); killing that namespace is the power cut.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.lab import host_processor, mconsole
from tests.cluster.lab.console import Console, ConsoleClosed
from tests.cluster.lab.installation import CheckoutInstallation
from tests.cluster.lab.machine import (
    CommandFailed,
    CommandTimedOut,
    Hardware,
    Installation,
    MachineLost,
    Outcome,
)
from tests.cluster.lab.network import Network, Port
from tests.cluster.lab.processes import Keeper

KERNEL = "linux.uml"
_GUEST = Path(__file__).parent / "guest"
_BOOT_TIMEOUT_S = {"agent": 60.0, "systemd": 150.0}
_HALT_TIMEOUT_S = 30.0
_KILL_TIMEOUT_S = 10.0
_UNLIMIT = 'ulimit -n "$(ulimit -Hn)"; "$@"; exit $?'  # hostfs holds a descriptor per cached inode


@dataclass(frozen=True, slots=True)
class _Power:
    """One run of the kernel, from start to the last of its processes."""

    process: "subprocess.Popen[bytes]"
    console: Console


class UmlMachine:
    """See `machine.Machine`. `directory` (made here) is its window and holds its disks."""

    def __init__(
        self, name: str, directory: Path, network: Network, keeper: Keeper, hardware: Hardware
    ) -> None:
        self._name = name
        self._directory = directory
        self._enter_network = network.enter
        self._port: Port = network.add_port()
        self._keeper = keeper
        self._hardware = hardware
        self._power: _Power | None = None
        directory.mkdir()
        for letter, size_mib in self._disk_letters():
            with self._disk_file(letter).open("wb") as file:
                file.truncate(size_mib << 20)

    @property
    def name(self) -> str:
        """Its host name."""
        return self._name

    @property
    def address(self) -> str:
        """Its address on the lab's network."""
        return self._port.address

    @property
    def disks(self) -> tuple[str, ...]:
        """`/dev/ubda`, ..."""
        return tuple(f"/dev/ubd{letter}" for letter, _ in self._disk_letters())

    @property
    def installation(self) -> Installation:
        """The checkout, which every machine sees."""
        return CheckoutInstallation()

    @property
    def patience(self) -> float:
        """It is the measure."""
        return 1.0

    @property
    def log(self) -> Path:
        """What the kernel and the boot scripts said."""
        return self._directory / "console.log"

    @property
    def is_on(self) -> bool:
        """Whether it has power."""
        return self._power is not None

    def start(self) -> None:
        """Boot and wait for the agent. Raises `MachineLost`, `CommandTimedOut`."""
        if self._power is not None:
            raise RuntimeError(f"{self._name} is on already")
        self._power = self._switch_on()
        try:
            self._power.console.wait_ready(_BOOT_TIMEOUT_S[self._hardware.init])
        except (TimeoutError, ConsoleClosed) as error:
            self.power_cut()
            raise MachineLost(self._name, f"did not boot:\n{self._log_end()}") from error

    def _switch_on(self) -> _Power:
        console = Console()
        # What a power cut leaves: the kernel would look for its own number there, find it alive (in
        # its namespace numbers are the same every time) and call itself something else.
        shutil.rmtree(self._directory / self._name, ignore_errors=True)
        with self.log.open("ab") as log:
            process = self._keeper.start(
                self._command(console),
                stdout=log,
                stderr=log,
                pass_fds=(console.guest_reads, console.guest_writes),
            )
        console.start()
        return _Power(process, console)

    def _command(self, console: Console) -> list[str]:
        return [
            *self._enter_network,
            *("unshare", "--pid", "--fork", "--kill-child", "sh", "-c", _UNLIMIT, "sh"),
            *host_processor.prepare(self._directory),
            *(KERNEL, f"mem={self._hardware.memory_mib}M"),
            *(f"umid={self._name}", f"uml_dir={self._directory}/"),
            *("rootfstype=hostfs", "rootflags=/", "rw", f"init={_GUEST}/boot.sh"),
            *("quiet", "loglevel=4", "panic=-1", "noreboot"),
            *("con0=null,fd:1", "con=null", "ssl=null"),
            f"ssl0=fd:{console.guest_reads},fd:{console.guest_writes}",
            # Without gro TCP between machines falls to 2 Mbit/s and NFS hangs; without a lasting
            # hardware address a machine that comes back is not heard for as long as ARP remembers.
            f"vec0:transport=tap,ifname={self._port.tap},depth=128,gro=1"
            f",mac={self._port.hardware_address}",
            *(f"ubd{letter}={self._disk_file(letter)}" for letter, _ in self._disk_letters()),
            # Words that the kernel does not know become the environment of the boot script.
            f"LAB_NAME={self._name}",
            f"LAB_ADDRESS={self._port.address}/{Port.prefix_length}",
            f"LAB_WINDOW={self._directory}",
            f"LAB_GUEST={_GUEST}",
            f"LAB_INIT={self._hardware.init}",
        ]

    def halt(self) -> None:
        """Shut down in order, by force when that takes too long."""
        if self._power is None:
            return
        with contextlib.suppress(OSError, mconsole.ConsoleRefused):
            self.run("sync", timeout_s=_HALT_TIMEOUT_S, check=False)
            mconsole.send(self._directory, self._name, "halt")
        if not self._power.console.wait_closed(_HALT_TIMEOUT_S):
            self.power_cut()
            return
        self._power.process.wait()
        self._power = None

    def power_cut(self) -> None:
        """Kill every process of the machine and wait until the last is gone."""
        power, self._power = self._power, None
        if power is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(power.process.pid, signal.SIGKILL)
        power.process.wait()
        if not power.console.wait_closed(_KILL_TIMEOUT_S):
            raise RuntimeError(f"{self._name}: processes left after a power cut")

    def partition(self) -> None:
        """Take its tap off the bridge."""
        self._port.disconnect()

    def heal(self) -> None:
        """Put its tap back."""
        self._port.connect()

    def freeze(self) -> None:
        """Have its kernel wait for `thaw`."""
        mconsole.send(self._directory, self._name, "stop")

    def thaw(self) -> None:
        """Have it go on."""
        mconsole.send(self._directory, self._name, "go")

    def run(self, script: str, *, timeout_s: float = 60.0, check: bool = True) -> Outcome:
        """Run a bash script (`set -euo pipefail` included) and wait for it."""
        if self._power is None:
            raise MachineLost(self._name, "is off")
        started = time.monotonic()
        job = self._power.console.next_id()
        self._file(job, "sh").write_text(f"set -euo pipefail\n{script}\n")
        try:
            answer: Future[int] = self._power.console.submit(job)
            code = answer.result(timeout_s)
        except ConsoleClosed:
            raise MachineLost(self._name, f"went down during:\n{script}") from None
        except TimeoutError:
            said = self._file(job, "out").read_text(errors="replace")
            raise CommandTimedOut(
                self._name, f"no end after {timeout_s:.0f} s:\n{script}\n--- stdout\n{said}"
            ) from None
        outcome = Outcome(
            code,
            self._file(job, "out").read_text(errors="replace"),
            self._file(job, "err").read_text(errors="replace"),
            time.monotonic() - started,
        )
        if check and code != 0:
            raise CommandFailed(self._name, script, outcome)
        return outcome

    def put_file(self, path: str, content: str, *, mode: int = 0o644) -> None:
        """Through the window."""
        if self._power is None:
            raise MachineLost(self._name, "is off")
        parcel = self._file(self._power.console.next_id(), "parcel")
        parcel.write_text(content)
        self.run(f"install -D -m {mode:o} {parcel} {path}")
        parcel.unlink()

    def _file(self, job: str, suffix: str) -> Path:
        return self._directory / f"{job}.{suffix}"

    def _disk_letters(self) -> list[tuple[str, int]]:
        return list(zip("abcdefgh", self._hardware.disks_mib, strict=False))

    def _disk_file(self, letter: str) -> Path:
        return self._directory / f"disk-{letter}.img"

    def _log_end(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])
