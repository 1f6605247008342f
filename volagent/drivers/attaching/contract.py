"""The contract between the attach/detach controller and the storages of networked disks.

CSI's ControllerPublish and ControllerUnpublish. The controller decides when, one call at a time for
a disk, and remembers; an attacher does the one thing it is asked, idempotently: what is attached
there already succeeds, and so does what is not there any more. Errors: `drivers/errors.py`.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol, runtime_checkable

import msgspec

from volagent.drivers.contract import DriverName, VolumeSource


class Placed(msgspec.Struct, frozen=True):
    """A disk on a node."""

    disk: str
    """By its identity, as `identify` says it."""
    node: str
    source: VolumeSource | None = None
    """Its declaration; None when that is gone already, which hinders no detaching."""
    facts: Mapping[str, str] = {}
    """What `attach` answered when it was attached there last, if it was."""


class Attacher(Protocol):
    """Gives disks of one kind to nodes and takes them back."""

    def identify(self, source: VolumeSource) -> str:
        """What the storage calls the disk; two declarations of one disk have the same.

        Pure. Raises `Rejected`.
        """

    async def attach(self, placed: Placed) -> Mapping[str, str]:
        """Let the node reach the disk; what the node may want to know (no secrets)."""

    async def detach(self, placed: Placed) -> None:
        """Take the disk from the node, which does not use it. Sure when it returns."""


@runtime_checkable
class Verifies(Protocol):
    """Can say what is attached where."""

    async def find_lost(self, held: Sequence[Placed]) -> Collection[Placed]:
        """Those of them that the storage does not have attached to their nodes."""


@runtime_checkable
class SharesFiles(Protocol):
    """Has a file system that several nodes may write to, because one machine keeps it."""

    @property
    def shares_files(self) -> bool:
        """Whether it does."""


AttacherTable = Mapping[DriverName, Attacher]
"""The attachers of a server, by the driver of the disks."""
