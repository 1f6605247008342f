"""What volumes ask of this machine's iSCSI initiator: values, errors and one protocol.

A *session* is a login to one portal of a target; a LUN is a numbered disk of the target, and each
session shows it as a scsi device of its own: a *path*. Portals are `ADDRESS:PORT`.
"""

import enum
from dataclasses import dataclass, field
from typing import Protocol

from volagent.host.contract import BlockDevice
from volagent.host.errors import HostError


@dataclass(frozen=True, slots=True)
class Chap:
    """Names and passwords for one login; `_in` is what the target must prove in return."""

    username: str = field(repr=False)
    password: str = field(repr=False)
    username_in: str = field(default="", repr=False)
    password_in: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class LunWish:
    """A disk of a target, and how to log in to it."""

    iqn: str
    lun: int
    portals: tuple[str, ...]
    interface: str = "default"
    initiator_name: str = ""
    session_chap: Chap | None = None
    discovery_chap: Chap | None = None
    read_only: bool = False
    """The device itself shall refuse every write."""


@dataclass(frozen=True, slots=True)
class LunHandle:
    """A disk that was attached: what finds exactly it again."""

    iqn: str
    lun: int
    wwid: str
    """What the disk says of itself, world-wide."""
    interface: str = "default"
    """Of open-iscsi; by another one the target may show other disks."""


class Refusal(enum.Enum):
    """Why there is no session with a portal."""

    SILENT = "does not answer"
    UNREACHABLE = "cannot be reached"
    CREDENTIALS = "does not accept the credentials"
    UNKNOWN_TARGET = "does not offer the target"
    NO_DAEMON = "was not asked: iscsid does not run"
    FAILED = "the login failed"


@dataclass(frozen=True, slots=True)
class PortalFailure:
    """A portal without a session."""

    portal: str
    refusal: Refusal
    detail: str = ""

    def __str__(self) -> str:
        text = f"{self.portal} {self.refusal.value}"
        return f"{text} ({self.detail})" if self.detail else text


@dataclass(frozen=True, slots=True)
class FoundLun:
    """A disk that is attached."""

    device: BlockDevice
    handle: LunHandle
    paths: tuple[str, ...]
    """The portals it is reached by."""
    multipath: str = ""
    """The map's name, when several paths are one device."""
    remarks: tuple[str, ...] = ()
    """What is not as it should be: portals without a session, paths that are not used."""


class NoSession(HostError):
    """No portal of a target accepted a login; `failures` says why, one by one."""

    def __init__(self, iqn: str, failures: tuple[PortalFailure, ...]) -> None:
        super().__init__("login", iqn, 0, "; ".join(map(str, failures)))
        self.failures = failures


class LunMissing(HostError):
    """The target has no disk of that number for this node, or it did not appear in time."""


class LunNameless(HostError):
    """The disk does not say who it is, so it could be taken for another."""


class LunChanged(HostError):
    """Another disk is shown under the number of one that is in use or was recorded."""


class Initiator(Protocol):
    """Logs in to targets, and finds and gives back their disks."""

    async def anticipate(self, wish: LunWish) -> None:
        """Learn what attaching will need, without a login and without leaving anything.

        For a disk that is not this node's yet. Raises `Unsupported`, `HostError`.
        """

    async def attach(self, wish: LunWish) -> FoundLun:
        """Log in to every portal that answers and find the disk, however much of that is done.

        A disk that is there already takes its present size. What is not current is deleted and
        looked for again, unless it is in use. Raises `NoSession`, `LunMissing`, `LunNameless`,
        `LunChanged`, `Unsupported` (no open-iscsi), `TimedOut`.
        """

    async def check(self, handle: LunHandle) -> None:
        """Ask the disk itself, on every path, who it is now. Raises `LunChanged`, `LunMissing`."""

    async def rescan(self, handle: LunHandle) -> FoundLun:
        """Have the kernel look at the disk's size again, on every path and on their map."""

    async def cut(self, handle: LunHandle) -> tuple[str, ...]:
        """Set every path of exactly this disk offline, whoever uses it: nothing more is sent to it.

        Returns the paths, in words; empty when there are none. Raises `TimedOut`, `HostError`.
        """

    async def detach(
        self, handle: LunHandle, device: BlockDevice, *, write_out: bool = True
    ) -> tuple[str, ...]:
        """Write out, take the map and the paths of exactly this disk away, close idle sessions.

        Without `write_out` nothing is sent to the disk. Returns what was done, in words; empty when
        there was nothing. Raises `Busy`, `TimedOut`.
        """

    def is_up(self, number: str) -> bool:
        """Whether the device `major:minor` has a path that takes requests at this moment."""

    def is_present(self, wish: LunWish) -> bool:
        """Whether the kernel shows anything under this number now."""
