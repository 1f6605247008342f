"""The lab: a directory, a network and machines, made for one module of scenarios and removed after
it.

Everything dies with the test run, also when that is killed: processes by the kernel's parent-death
signal, the network with the process that holds it. Only the directory can be left behind; it is
locked by its owner, so the next lab recognises those of dead runs and removes them.
"""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.cluster.lab import host_processor
from tests.cluster.lab.directory import LabDirectory
from tests.cluster.lab.machine import Hardware
from tests.cluster.lab.network import Network
from tests.cluster.lab.processes import Keeper
from tests.cluster.lab.uml import KERNEL, UmlMachine

_TOOLS = {
    KERNEL: "user-mode-linux",
    "ip": "iproute2",
    "setpriv": "util-linux",
    "unshare": "util-linux",
    "nsenter": "util-linux",
}


def find_obstacle() -> str | None:
    """Why no lab can be made here and what would help, or None when one can."""
    if os.geteuid() != 0:
        return "needs root for network namespaces and taps: run `sudo make test`"
    missing = sorted({package for tool, package in _TOOLS.items() if shutil.which(tool) is None})
    if missing:
        return f"needs the Debian packages {' '.join(missing)}: run `sudo make system-packages`"
    if not Path("/dev/net/tun").exists():
        return "needs /dev/net/tun: load the kernel module tun"
    return host_processor.find_obstacle()


class UmlLab:
    """A context: on exit every machine is off and every trace removed."""

    def __init__(self) -> None:
        self._directory = LabDirectory()
        self._keeper = Keeper()
        self._machines: list[UmlMachine] = []
        try:
            self._network = Network(self._keeper)
        except BaseException:
            self._remove_traces()
            raise

    def __enter__(self) -> "UmlLab":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add_machine(self, name: str, hardware: Hardware = Hardware()) -> UmlMachine:  # noqa: B008
        """A new machine, switched off."""
        machine = UmlMachine(
            name, self._directory.path / name, self._network, self._keeper, hardware
        )
        self._machines.append(machine)
        return machine

    def start_all(self) -> None:
        """Boot all machines at once and wait for them."""
        with ThreadPoolExecutor(len(self._machines)) as threads:
            list(threads.map(UmlMachine.start, self._machines))

    def read_logs(self) -> str:
        """What the machines' kernels said, for the report of a failed test."""
        return "\n".join(
            f"--- {machine.name}\n{machine.log.read_text(errors='replace')[-4000:]}"
            for machine in self._machines
            if machine.log.exists()
        )

    def close(self) -> None:
        """Cut every machine's power and remove everything."""
        for machine in self._machines:
            machine.power_cut()
        self._network.close()
        self._remove_traces()

    def _remove_traces(self) -> None:
        self._keeper.close()
        self._directory.close()
