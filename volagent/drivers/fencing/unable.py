"""Kinds of disk whose storage gives no proof, and why."""

from dataclasses import dataclass
from typing import Final

from volagent.drivers.contract import DriverName
from volagent.drivers.errors import DriverError
from volagent.drivers.fencing.contract import FenceOrder, NoProof

SWITCH_OFF: Final = (
    "have a program of yours switch the node off (config/fence.d), or say that it is:"
    " `volagent node confirm-off NODE`"
)
_NBD: Final = (
    "an NBD server does not know its clients, and cannot be asked whether one is still connected:"
    " a connection that was cut is made again by the old node's kernel"
)
_NFS: Final = (
    "an NFS server serves files to everybody whom its exports name, and is not ours to change"
)
_HERE: Final = "the disk is part of the lost machine: nobody else can reach it, and nothing moves"
_UNKNOWN: Final = "nobody here knows how its storage keeps a node out"
_REASONS: Final = {
    "nbd.volagent.dev": _NBD,
    "kubernetes.io/nfs": _NFS,
    "image.volagent.dev": _HERE,
    "directory.volagent.dev": _HERE,
    "kubernetes.io/local-volume": _HERE,
    "kubernetes.io/host-path": _HERE,
}


@dataclass(frozen=True, slots=True)
class Unable:
    """`Fences` that says why it cannot."""

    driver: DriverName

    async def fence(self, order: FenceOrder) -> str:
        """Raises `NoProof`."""
        raise explain_unable(self.driver)


def explain_unable(driver: str) -> DriverError:
    """Why disks of a kind cannot be taken from a node by their storage."""
    return NoProof(f"{driver}: {_REASONS.get(driver, _UNKNOWN)}", remedy=SWITCH_OFF)
