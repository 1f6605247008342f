"""The contract between whoever moves disks from lost nodes and the storages (docs/adr/0009).

A fence returns only when the storage, asked again afterwards, says that the node cannot write: the
text it returns is that evidence. It is idempotent, and it may be called for a node that is alive
and writing at this moment.
"""

from collections.abc import Mapping
from typing import Protocol

import msgspec

from volagent.drivers.contract import Credentials, DriverName, VolumeSource
from volagent.drivers.errors import DriverError
from volagent.host.iscsi.contract import Confirm, always


class NoProof(DriverError):
    """This storage cannot keep a node out, or cannot say that it does; the remedy says who can."""


class FenceOrder(msgspec.Struct, frozen=True):
    """A node that is to be kept from a disk."""

    source: VolumeSource
    volume: str
    """The unique name of the disk."""
    node: str
    """Who is to be kept out."""
    attachment_uid: str
    """Of the VolumeAttachment that it has the disk by."""
    credentials: Credentials | None = None
    """What the storage wants to know of who asks (CHAP)."""
    confirm: Confirm = always
    """Whether the node is still to be kept out; asked before anybody's right is removed."""


class Fences(Protocol):
    """Keeps nodes out of disks of one kind."""

    async def fence(self, order: FenceOrder) -> str:
        """Keep the node out, for good; the evidence, as read back.

        Raises `NoProof`, `Transient` (try again), `Uncertain` (may have happened: try again).
        """


FenceTable = Mapping[DriverName, Fences]
"""Who can fence, by the driver of the disks."""
