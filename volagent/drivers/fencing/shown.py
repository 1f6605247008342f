"""Fences volumes of a storage node, on that node: who is not shown a volume cannot write to it.

For iSCSI the initiator is not let in any more and its session is ended, as the kernel says; for NFS
the directory is exported to the node no more, as `exportfs` says. It holds across restarts of the
daemon and the machine, until the volume was detached from the node.
"""

from collections.abc import Callable
from dataclasses import dataclass

from volagent.drivers.contract import VolumeSource
from volagent.drivers.errors import Transient, Uncertain
from volagent.drivers.fencing.contract import FenceOrder, Fences, FenceTable, NoProof
from volagent.drivers.showing.contract import Shower


@dataclass(frozen=True, slots=True)
class HidingFence:
    """Fences what one shower shows."""

    shower: Shower
    read_volume: Callable[[VolumeSource], str]
    """What the storage node calls a volume; "" for one that is none of its own."""

    async def fence(self, order: FenceOrder) -> str:
        """Keep the node out, for good; the evidence, as read back."""
        volume = self.read_volume(order.source)
        if not volume:
            raise NoProof(
                f"{order.volume} is no volume of this storage node",
                remedy="ask the storage that has it",
            )
        old = await order.confirm()
        if old:
            raise Transient(f"{order.node} was not kept from {order.volume}: {old}")
        evidence = await self.shower.fence(volume, order.node)
        if order.node not in (await self.shower.list_shown()).get(volume, ()):
            raise Uncertain(
                f"{order.node} is not noted as fenced from {volume}", remedy="it is tried again"
            )
        return evidence


@dataclass(frozen=True, slots=True)
class OwnFirst:
    """Of disks of one kind those that this storage node shows, then all others."""

    own: Fences
    others: Fences

    async def fence(self, order: FenceOrder) -> str:
        """By whoever can."""
        try:
            return await self.own.fence(order)
        except NoProof:
            return await self.others.fence(order)


def join_fences(own: FenceTable, others: FenceTable) -> FenceTable:
    """What a storage node's agent can be asked for: `own` are those of its own volumes."""
    both = {
        driver: OwnFirst(fence, others[driver]) for driver, fence in own.items() if driver in others
    }
    return {**others, **own, **both}
