"""Whether the kernel's target still lets anybody log in.

One kernel thread of the target (`iscsi_np`) takes all logins, one after the other. While it waits
for an earlier connection of the same initiator to end it takes no other, and a connection that
never ends means: nobody logs in any more, and only a restart of the machine helps. Seen with Linux
6.1, at a high load: the connection was in PREEMPT AND ABORT and waited for a command. Reads /proc,
as root; the thread itself is not asked.
"""

import os
from dataclasses import dataclass
from typing import Final

_THREAD: Final = "iscsi_np"
_WAITS: Final = "iscsit_cause_connection_reinstatement"


@dataclass(frozen=True, slots=True)
class WaitingLogin:
    """A login that waits for another connection to end; for milliseconds, when all is well."""

    pid: int
    switches: int
    """How often the thread was scheduled: the same number later is the same wait."""


def find_waiting_login(proc: str = "/proc") -> WaitingLogin | None:
    """The login that waits at this moment, if one does."""
    for pid in filter(str.isdigit, os.listdir(proc)):
        if _read(f"{proc}/{pid}/comm") != _THREAD:
            continue
        if _WAITS in _read(f"{proc}/{pid}/stack"):
            return WaitingLogin(int(pid), _count_switches(f"{proc}/{pid}/status"))
    return None


def _count_switches(file: str) -> int:
    lines = _read(file).splitlines()
    return sum(int(line.split()[-1]) for line in lines if "ctxt_switches:" in line)


def _read(path: str) -> str:
    try:
        with open(path, errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""
