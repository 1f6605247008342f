"""What volumes ask of this machine's iSCSI initiator: values, errors and one protocol.

A *session* is a login to one portal of a target; a LUN is a numbered disk of the target, and each
session shows it as a scsi device of its own: a *path*. Portals are `ADDRESS:PORT`.
"""

import enum
from collections.abc import Awaitable, Callable
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


Confirm = Callable[[], Awaitable[str]]
"""Asks whoever decides once more: "" when it is still so, else why not. Does not raise."""


async def always() -> str:
    """Nobody takes it back."""
    return ""


@dataclass(frozen=True, slots=True)
class Claim:
    """A node's wish to be known to a disk's storage, by persistent reservations."""

    key: int
    """Of its attachment (`objects/reservation_keys.py`); not guarded."""
    guard: int
    """What the node registers where it keeps others out."""
    exclusive: bool = True
    """Nobody else may write. Else it only becomes one of those whom a reservation allows to."""
    confirm: Confirm = field(default=always, compare=False)
    """Whether the node still may have the disk; asked when its key is registered, and before
    anybody is removed."""


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
    claim: Claim | None = None
    """None: the storage is not asked to keep anybody out."""


@dataclass(frozen=True, slots=True)
class LunHandle:
    """A disk that was attached: what finds exactly it again."""

    iqn: str
    lun: int
    wwid: str
    """What the disk says of itself, world-wide."""
    interface: str = "default"
    """Of open-iscsi; by another one the target may show other disks."""
    key: int = 0
    """What this node has registered on it; 0: nothing."""
    guard: int = 0
    """What takes the key's place when the disk is given back and has to stay guarded."""


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


class Fenced(HostError):
    """This node's key is registered no more: somebody keeps it from the disk, for good."""


class Withdrawn(HostError):
    """What was asked for is not wanted any more; nothing was written, and it is undone."""


class Reserved(HostError):
    """Somebody who is not volagent is registered on the disk, or has it reserved."""


@dataclass(frozen=True, slots=True)
class Exclusion:
    """Who is to be kept from a disk, and by whom."""

    keys: tuple[int, ...]
    """What that node may have registered."""
    guard: int
    """What this one registers for it."""
    confirm: Confirm = field(default=always, compare=False)
    """Whether it is still to be kept out; asked when the guard is registered, and before anybody is
    removed."""


class Excludes(Protocol):
    """Keeps another node from a disk."""

    async def keep_out(self, wish: LunWish, exclusion: Exclusion) -> str:
        """Have the storage refuse every write of a node, and ask it again whether it does.

        Returns what it said. Raises as `attach`; `Unsupported`: this storage cannot; `Reserved`;
        `Withdrawn`; `Busy`: the disk is in use on this node itself.
        """


class Initiator(Protocol):
    """Logs in to targets, and finds and gives back their disks."""

    async def anticipate(self, wish: LunWish) -> None:
        """Learn what attaching will need, without a login and without leaving anything.

        For a disk that is not this node's yet. Raises `Unsupported`, `HostError`.
        """

    @property
    def reserves(self) -> bool:
        """Whether claims are wanted of those that attach disks here."""

    async def attach(self, wish: LunWish) -> FoundLun:
        """Log in to every portal that answers and find the disk, however much of that is done.

        A disk that is there already takes its present size. What is not current is deleted and
        looked for again, unless it is in use. A claim is registered before the disk becomes a
        device, and once only: later it is looked for. Raises `NoSession`, `LunMissing`,
        `LunNameless`, `LunChanged`, `Fenced`, `Reserved`, `Withdrawn`, `Unsupported` (no
        open-iscsi), `TimedOut`.
        """

    async def check(self, handle: LunHandle) -> None:
        """Ask the disk itself, on every path, who it is now, and whether it knows this node's key.

        Raises `LunChanged`, `LunMissing`, `Fenced`.
        """

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

        Nothing is sent to the disk without `write_out`, nor when this node was fenced from it.
        Returns what was done, in words; empty when there was nothing. Raises `Busy`, `TimedOut`.
        """

    async def drop_if_fenced(self, number: str) -> bool:
        """Whether this node was fenced from the disk of a device `major:minor`.

        If so the kernel sends nothing more to it. Raises `TimedOut`, `HostError`.
        """

    async def is_fenced(self, handle: LunHandle) -> bool:
        """Whether the storage says that this node's key is gone; False while nobody can say."""

    def list_attached(self) -> list[FoundLun]:
        """The disks of every session that was made here, whatever is noted of them.

        Except those that this process is only looking at, for another node's sake. A session
        without any is one with the number 0 and no device. Raises `HostError`.
        """

    def is_up(self, number: str) -> bool:
        """Whether the device `major:minor` has a path that takes requests at this moment."""

    def is_present(self, wish: LunWish) -> bool:
        """Whether the kernel shows anything under this number now."""
