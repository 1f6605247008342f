"""What a scenario may do to a machine, whatever kind of machine it is.

Implemented by `uml.UmlMachine` and `vagrant.VagrantMachine`. Calls block; several machines
may be used from several threads, one machine from several threads too (each command is its own
process on the machine).
"""

from dataclasses import dataclass, field
from typing import Literal, Protocol, Self


@dataclass(frozen=True, slots=True)
class Hardware:
    """What a machine is made of, at least."""

    memory_mib: int = 512
    disks_mib: tuple[int, ...] = field(default=())
    init: Literal["agent", "systemd"] = "agent"
    """What the first process of a User-Mode-Linux machine is; with systemd a boot takes five times
    as long."""


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


class Installation(Protocol):
    """How volagent lies on a machine, and how its daemon is started and ended there.

    `verb` is the role: `run`, `server` or `agent`.
    """

    @property
    def program(self) -> str:
        """The command line's path."""

    @property
    def python(self) -> str:
        """A Python, with what precedes it, that finds the package `volagent`."""

    @property
    def guest_files(self) -> str:
        """Where the files of `lab/guest` are."""

    @property
    def show_log(self) -> str:
        """A command that prints the end of the daemon's log."""

    def start(self, machine: "Machine", verb: str, settings: str) -> None:
        """Start a daemon with these settings; its pid is in `PID_FILE` then."""

    def kill(self, machine: "Machine", verb: str) -> None:
        """`kill -9`, and wait until it is gone; nobody starts it again."""

    def stop(self, machine: "Machine", verb: str) -> None:
        """SIGTERM, and wait until it has ended."""


PID_FILE = "/run/volagent.pid"
"""On a machine: the pid of the daemon that was started last."""


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

    @property
    def installation(self) -> Installation:
        """volagent on it."""

    @property
    def patience(self) -> float:
        """How many times longer than on User-Mode-Linux something may take here."""

    def start(self) -> None:
        """Switch on and wait until commands can be run.

        What is not on an extra disk may be lost since the last time, or not.
        """

    def halt(self) -> None:
        """Shut down in order; a machine that is off stays off."""

    def power_cut(self) -> None:
        """Take the power away at this moment: what was not synced to a disk is lost."""

    def partition(self) -> None:
        """Cut it off from the network; its clock and programs go on."""

    def heal(self) -> None:
        """Undo `partition`."""

    def freeze(self) -> None:
        """Stop its processor until `thaw`; on User-Mode-Linux its clock goes on."""

    def thaw(self) -> None:
        """Undo `freeze`."""

    def run(self, script: str, *, timeout_s: float = 60.0, check: bool = True) -> Outcome:
        """Run a bash script as root and wait for it, for `timeout_s` times the machine's patience.

        Raises `CommandFailed` (unless `check` is off), `CommandTimedOut`, `MachineLost`.
        """

    def put_file(self, path: str, content: str, *, mode: int = 0o644) -> None:
        """Write a file on the machine, making missing parent directories."""


class Lab(Protocol):
    """Machines for one module of scenarios; a context that leaves nothing behind."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def add_machine(self, name: str, hardware: Hardware = ...) -> Machine:
        """A machine, switched off."""

    def start_all(self) -> None:
        """Boot all machines at once and wait for them."""
