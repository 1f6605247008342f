"""What can prove, for each disk of a lost node, that the node cannot write any more."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from volagent.control.failover.decide import Means, Watchdog, order_executors
from volagent.control.failover.world import Stranded
from volagent.objects.fencing import HOOK, STORAGE, WATCHDOG, read_self_fencing
from volagent.objects.storage import Node
from volagent.objects.storage_nodes import asked_to_show, may_be_shown_by

_CSI: Final = "kubernetes.io/csi/"


def _no_hooks() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Fencers:
    """What this cluster has to fence with."""

    drivers: Collection[str] = ()
    """Whose storages can keep a node out."""
    has_hooks: Callable[[], bool] = _no_hooks
    """Whether the operator has given this server programs that switch machines off."""
    methods: Collection[str] = (STORAGE, HOOK, WATCHDOG)
    """Those that the operator trusts."""
    watchdog_margin_s: float = 5.0
    """Beyond what a node promises: its timer's inaccuracy, and the reset itself."""

    def find_watchdog(self, node: Node, silent_s: float) -> Watchdog | None:
        """The watchdog of a node that has been silent for so long."""
        found = read_self_fencing(node)
        if found is None or WATCHDOG not in self.methods:
            return None
        left_s = found.within_seconds + self.watchdog_margin_s - silent_s
        return Watchdog(found.by or "a watchdog", found.within_seconds, left_s)

    def find_means(
        self, node: Node, silent_s: float | None, disks: Collection[Stranded],
        ready: Collection[str], wanting: Mapping[str, Collection[str]],
    ) -> dict[str, Means]:  # fmt: skip
        """By disk. `silent_s`: for how long its Lease has stood still, from which a watchdog's time
        counts; None without one. `wanting`: PersistentVolume → the nodes where a pod waits for it.
        """
        watchdog = self.find_watchdog(node, silent_s) if silent_s is not None else None
        dog = "" if watchdog is not None else self._explain_no_watchdog(node, silent_s)
        hook = HOOK in self.methods and self.has_hooks()
        found = {}
        for disk in disks:
            name = disk.attachment.spec.source.persistent_volume_name or ""
            executors = self._find_executors(disk, ready, wanting.get(name, ()))
            lacking = "; ".join(self._list_lacking(disk, executors, hook, dog))
            found[disk.volume] = Means(executors, hook, watchdog, lacking)
        return found

    def _find_executors(
        self, disk: Stranded, ready: Collection[str], wanting: Collection[str]
    ) -> list[str]:
        """Who can ask the storage, in this order."""
        if STORAGE not in self.methods:
            return []
        shower = _shower_of(disk)
        if shower:  # it lets nobody else near the disk
            return [shower] if shower in ready else []
        if driver_of(disk.volume) not in self.drivers:
            return []
        return order_executors(ready, wanting, disk.volume)

    def _list_lacking(
        self, disk: Stranded, executors: Collection[str], hook: bool, no_watchdog: str
    ) -> Iterator[str]:
        """What would give a proof and is not there."""
        shower = _shower_of(disk)
        if shower and not executors:
            yield f"its storage node {shower} is not ready"
        elif not shower and driver_of(disk.volume) not in self.drivers:
            yield f"the storage of {driver_of(disk.volume)} cannot keep a node out"
        if not hook:
            yield "there is no program in fence.d that switches it off"
        if no_watchdog:
            yield no_watchdog

    def _explain_no_watchdog(self, node: Node, silent_s: float | None) -> str:
        if silent_s is None and self.find_watchdog(node, 0.0) is not None:
            return "it has told of an armed watchdog, and has no lease from which its time counts"
        return "it has told of no armed watchdog"


def _shower_of(disk: Stranded) -> str:
    """The storage node that shows a disk, or ""."""
    return may_be_shown_by(disk.attachment) or asked_to_show(disk.attachment)


def driver_of(volume: str) -> str:
    """The driver in a disk's unique name."""
    if volume.startswith(_CSI):
        return volume.removeprefix(_CSI).partition("^")[0]
    return "/".join(volume.split("/")[:2])
