"""The operator's programs that switch a machine off: their exit status is the proof.

Each executable file of the directory whose name has no dot is asked, in the order of their names:

    PROGRAM fence NODE      facts of the node in the environment (VOLAGENT_...), nothing on stdin

    0       the machine is off, or was reset: what ran there when it was lost does not run any more
    2       this machine is not one of mine
    else    I do not know; what it wrote last is shown

The first 0 ends it. A program has its time, and is killed with its children afterwards. A file that
others than root can change is not run. One boot of a machine is switched off once, however many
disks it had: it may have booted again since, and is somebody's then.
"""

import asyncio
import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec

from volagent.drivers.errors import DriverError, Transient
from volagent.drivers.fencing.contract import NoProof
from volagent.host.errors import HostError, TimedOut

if TYPE_CHECKING:
    from volagent.host.process import Helpers

DIRECTORY: Final = "/etc/volagent/fence.d"
TIMEOUT_S: Final = 60.0
"""Of one program."""
NOT_MINE: Final = 2
_NAME: Final = re.compile(r"[A-Za-z0-9_-]+")
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
_REMEDY: Final = (
    "see the program, and switch the machine off by hand: then `volagent node confirm-off NODE`"
)


class Machine(msgspec.Struct, frozen=True):
    """A machine that is to be off, in the boot in which it was lost."""

    node: str
    boot_id: str
    facts: Mapping[str, str] = {}
    """For the programs: `INTERNAL_IP`, `MACHINE_ID`, ..."""


def find_programs(directory: str) -> tuple[list[str], list[str]]:
    """The programs that may be run, by path, and why others may not."""
    programs, refused = [], []
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        return [], []
    for name in names:
        path = os.path.join(directory, name)
        try:
            found = os.stat(path)
        except OSError:
            continue
        if not _NAME.fullmatch(name) or not stat.S_ISREG(found.st_mode):
            continue
        if not found.st_mode & stat.S_IXUSR:
            continue
        if found.st_uid not in (0, os.geteuid()) or found.st_mode & _OTHERS_WRITE:
            refused.append(f"{path} can be changed by others than root")
        else:
            programs.append(path)
    return programs, refused


@dataclass(frozen=True, slots=True)
class FenceHooks:
    """Runs them."""

    helpers: "Helpers"
    directory: str = DIRECTORY
    timeout_s: float = TIMEOUT_S
    _running: dict[str, asyncio.Lock] = field(default_factory=dict)
    """By node: one at a time."""
    _off: dict[tuple[str, str], str] = field(default_factory=dict)
    """The evidence by node and boot, which is true for ever."""

    def has_programs(self) -> bool:
        """Whether there is anything to run."""
        return bool(find_programs(self.directory)[0])

    async def switch_off(self, machine: Machine) -> str:
        """Have a machine switched off; the evidence.

        Raises `NoProof` when no program is for it, `Transient` when none succeeds.
        """
        boot = (machine.node, machine.boot_id)
        async with self._running.setdefault(machine.node, asyncio.Lock()):
            if boot not in self._off:
                self._off[boot] = await self._ask(machine)
        return self._off[boot]

    async def _ask(self, machine: Machine) -> str:
        programs, said = find_programs(self.directory)
        failed = False
        for program in programs:
            status, text = await self._run(program, machine)
            if status == 0:
                return f"{program} says that it is off{f': {text}' if text else ''}"
            failed = failed or status != NOT_MINE
            how = "it is not one of its machines" if status == NOT_MINE else text or str(status)
            said.append(f"{program}: {how}")
        raise _explain(machine, said, failed=failed)

    async def _run(self, program: str, machine: Machine) -> tuple[int | None, str]:
        """Its exit status, None when there is none, and what it says."""
        try:
            outcome = await self.helpers.run(
                (program, "fence", machine.node),
                backend=f"fence:{machine.node}",
                timeout_s=self.timeout_s,
                stdin=b"",
                env=_environment(machine),
            )
        except TimedOut:
            return None, f"not done within {self.timeout_s:g} s"
        except HostError as error:
            return None, str(error)
        text = outcome.words
        return outcome.returncode, text or f"exit status {outcome.returncode}" * bool(
            outcome.returncode
        )


def _environment(machine: Machine) -> dict[str, str]:
    facts = {"NODE": machine.node, "BOOT_ID": machine.boot_id, **machine.facts}
    return {f"VOLAGENT_{name}": value for name, value in facts.items()}


def _explain(machine: Machine, said: Sequence[str], *, failed: bool) -> DriverError:
    text = "; ".join(said) or "there is no program"
    kind: type[DriverError] = Transient if failed else NoProof
    return kind(f"{machine.node} was not switched off: {text}", remedy=_REMEDY)
