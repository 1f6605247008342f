"""Machines of Vagrant and libvirt: whole virtual machines with systemd and volagent's own package.

There are four, booted once (`vagrant/Vagrantfile`); see `pool`. A lab is given those that it asks
for, each as it was just after the installation: memory and disks come from a snapshot.

A power cut is `virsh destroy`, a partition pulls the cable of the private network. Commands go by
ssh over the network of the management, which nobody cuts.
"""

import contextlib
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.lab.hypervisor import Hypervisor
from tests.cluster.lab.installation import PackageInstallation
from tests.cluster.lab.machine import (
    CommandFailed,
    CommandTimedOut,
    Hardware,
    Installation,
    MachineLost,
    Outcome,
)
from tests.cluster.lab.processes import Keeper
from tests.cluster.lab.secure_shell import LOST, SecureShell

SNAPSHOT = "installed"
PREFIX = "volagent-"
_BOOT_TIMEOUT_S = 100.0
_HALT_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Guest:
    """One of the Vagrantfile's machines, booted and installed."""

    name: str
    address: str
    disks: int
    shell: SecureShell
    patience: float

    @property
    def domain(self) -> str:
        """Its name in libvirt."""
        return f"{PREFIX}{self.name}"


class VagrantMachine:
    """See `machine.Machine`. The first `start` brings the guest back as it was installed."""

    def __init__(
        self,
        name: str,
        guest: Guest,
        hypervisor: Hypervisor,
        keeper: Keeper,
        disks: int,
        *,
        snapshot: str = SNAPSHOT,
    ) -> None:
        self._name = name
        self.guest = guest
        self._hypervisor = hypervisor
        self._keeper = keeper
        self._disks = disks
        self._snapshot = snapshot
        self._is_on = False
        self._is_fresh = True

    @property
    def name(self) -> str:
        """Its host name."""
        return self._name

    @property
    def address(self) -> str:
        """Its address on the private network."""
        return self.guest.address

    @property
    def disks(self) -> tuple[str, ...]:
        """By their serials: libvirt's names are not the guest's."""
        return tuple(f"/dev/disk/by-id/virtio-data{number}" for number in range(self._disks))

    @property
    def is_on(self) -> bool:
        """Whether it has power."""
        return self._is_on

    @property
    def installation(self) -> Installation:
        """The Debian package."""
        return PackageInstallation()

    @property
    def patience(self) -> float:
        """Much where the processor is emulated."""
        return self.guest.patience

    def start(self) -> None:
        """Boot, or the first time come back from the snapshot."""
        if self._is_on:
            raise RuntimeError(f"{self._name} is on already")
        if self._is_fresh:
            self._hypervisor.virsh(
                "snapshot-revert", self.guest.domain, self._snapshot, "--running"
            )
            self._is_fresh = False
        else:
            self._hypervisor.virsh("start", self.guest.domain)
        try:
            self.guest.shell.connect(self._keeper, within_s=_BOOT_TIMEOUT_S * self.patience)
        except TimeoutError as error:
            self.power_cut()
            raise MachineLost(self._name, "did not boot") from error
        self._is_on = True
        self.run(
            f"date -s @{time.time():.3f} >/dev/null\n"
            f"echo {self._name} >/etc/hostname; hostname {self._name}\n"
            "mkdir -p /run/rpcbind /run/lock"
        )

    def halt(self) -> None:
        """Shut down in order, by force when that takes too long."""
        if not self._is_on:
            return
        with contextlib.suppress(CommandTimedOut, MachineLost):
            self.run("systemctl poweroff --no-block", check=False)
        deadline = time.monotonic() + _HALT_TIMEOUT_S * self.patience
        while self._has_power() and time.monotonic() < deadline:
            time.sleep(0.2)
        self.power_cut()

    def power_cut(self) -> None:
        """`virsh destroy`."""
        self._is_on = False
        self.guest.shell.disconnect()
        if self._has_power():
            self._hypervisor.virsh("destroy", self.guest.domain)

    def _has_power(self) -> bool:
        state = self._hypervisor.virsh("domstate", self.guest.domain).strip()
        return state not in {"shut off", "crashed"}

    def partition(self) -> None:
        """Pull the cable of the private network."""
        self._set_link("down")

    def heal(self) -> None:
        """Put it back."""
        self._set_link("up")

    def freeze(self) -> None:
        """Suspend the guest in memory."""
        self._hypervisor.virsh("suspend", self.guest.domain)

    def thaw(self) -> None:
        """Resume it."""
        self._hypervisor.virsh("resume", self.guest.domain)

    def _set_link(self, state: str) -> None:
        table = self._hypervisor.virsh("domiflist", self.guest.domain)
        (mac,) = (line.split()[4] for line in table.splitlines() if f"{PREFIX}private" in line)
        self._hypervisor.virsh("domif-setlink", self.guest.domain, mac, state)

    def run(self, script: str, *, timeout_s: float = 60.0, check: bool = True) -> Outcome:
        """Run a bash script (`set -euo pipefail` included) and wait for it."""
        if not self._is_on:
            raise MachineLost(self._name, "is off")
        started = time.monotonic()
        limit_s = timeout_s * self.patience
        try:
            done = self.guest.shell.run(f"set -euo pipefail\n{script}\n", timeout_s=limit_s)
        except subprocess.TimeoutExpired:
            raise CommandTimedOut(self._name, f"no end after {limit_s:.0f} s:\n{script}") from None
        outcome = _outcome(done, time.monotonic() - started)
        if outcome.code == LOST:
            raise MachineLost(self._name, f"went down during:\n{script}\n{outcome.err}")
        if check and outcome.code != 0:
            raise CommandFailed(self._name, script, outcome)
        return outcome

    def put_file(self, path: str, content: str, *, mode: int = 0o644) -> None:
        """By ssh's standard input."""
        if not self._is_on:
            raise MachineLost(self._name, "is off")
        done = self.guest.shell.put(content.encode(), path, mode)
        if done.returncode != 0:
            raise CommandFailed(self._name, f"write {path}", _outcome(done, 0.0))


class VagrantLab:
    """A context: gives machines out, and on exit they are off."""

    def __init__(self, guests: tuple[Guest, ...], hypervisor: Hypervisor, keeper: Keeper) -> None:
        self._free = list(guests)
        self._hypervisor = hypervisor
        self._keeper = keeper
        self._machines: list[VagrantMachine] = []

    def __enter__(self) -> "VagrantLab":
        return self

    def __exit__(self, *_: object) -> None:
        for machine in self._machines:
            machine.power_cut()

    def add_machine(self, name: str, hardware: Hardware = Hardware()) -> VagrantMachine:  # noqa: B008
        """A guest: that of this name, or the smallest that has the disks."""
        disks = len(hardware.disks_mib)
        fitting = [guest for guest in self._free if guest.disks >= disks]
        if not fitting:
            raise RuntimeError(f"no machine is left for {name}: the Vagrantfile has four")
        guest = min(fitting, key=lambda each: (each.name != name, each.disks))
        self._free.remove(guest)
        machine = VagrantMachine(name, guest, self._hypervisor, self._keeper, disks)
        self._machines.append(machine)
        return machine

    def start_all(self) -> None:
        """Bring all back from their snapshots."""
        with ThreadPoolExecutor(len(self._machines)) as threads:
            list(threads.map(VagrantMachine.start, self._machines))


def _outcome(done: "subprocess.CompletedProcess[bytes]", took_s: float) -> Outcome:
    out, err = (stream.decode(errors="replace") for stream in (done.stdout, done.stderr))
    return Outcome(done.returncode, out, err, took_s)


def find_package(checkout: Path) -> Path | None:
    """The Debian package that `make deb` made last."""
    made = sorted(checkout.glob("dist/volagent_*.deb"), key=lambda path: path.stat().st_mtime)
    return made[-1] if made else None
