"""What a scenario may do to a machine, whatever kind of machine it is.

Implemented by `uml.UmlMachine`. Calls block; several machines may be used from several threads,
one machine from several threads too (each command is its own process on the machine).
"""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finished command."""

    code: int
    out: str
    err: str
    took_s: float


class MachineError(Exception):
    """Something went wrong with a machine or a command on it; `machine` is its name."""

    def __init__(self, machine: str, message: str) -> None:
        super().__init__(f"{machine}: {message}")
        self.machine = machine


class CommandFailed(MachineError):
    """A command that was to succeed did not; `outcome` says how it ended."""

    def __init__(self, machine: str, script: str, outcome: Outcome) -> None:
        super().__init__(
            machine,
            f"exit status {outcome.code} from:\n{script}\n--- stdout\n{outcome.out}\n"
            f"--- stderr\n{outcome.err}",
        )
        self.outcome = outcome


class CommandTimedOut(MachineError):
    """No answer within the time allowed; the command may still be running."""


class MachineLost(MachineError):
    """The machine is off or went down while a command was running."""


class Machine(Protocol):
    """A computer with a kernel of its own, root access, an address and extra disks."""

    @property
    def name(self) -> str:
        """Its host name."""

    @property
    def address(self) -> str:
        """Its IPv4 address on the network that all machines of the lab share."""

    @property
    def disks(self) -> tuple[str, ...]:
        """Device nodes of its extra disks; their content outlives the machine's power."""

    @property
    def is_on(self) -> bool:
        """Whether it was started and not halted or cut since."""

    def start(self) -> None:
        """Switch on and wait until commands can be run; the root file system is fresh each time."""

    def halt(self) -> None:
        """Shut down in order; a machine that is off stays off."""

    def power_cut(self) -> None:
        """Take the power away at this moment: what was not synced to a disk is lost."""

    def partition(self) -> None:
        """Cut it off from the network; its clock and programs go on."""

    def heal(self) -> None:
        """Undo `partition`."""

    def run(self, script: str, *, timeout_s: float = 60.0, check: bool = True) -> Outcome:
        """Run a bash script as root and wait for it.

        Raises `CommandFailed` (unless `check` is off), `CommandTimedOut`, `MachineLost`.
        """

    def put_file(self, path: str, content: str, *, mode: int = 0o644) -> None:
        """Write a file on the machine, making missing parent directories."""
