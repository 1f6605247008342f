"""Mounts that come and go without us: noticed by the kernel's events, told, and made again.

A mount of ours that disappears is noted in the records and its volume marked; the worker then
makes it again like any other difference. What others mount elsewhere is none of our business; a
mount laid over one of ours is told, because the pod's view of its volume no longer is the volume.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from volagent.aio.clock import Clock
from volagent.drivers.contract import VolumeKey
from volagent.host.contract import MountChanges, MountId, Mounts
from volagent.node.actual import Actual
from volagent.node.trace import Trace
from volagent.objects.meta import PodUid
from volagent.observe.logs import get_logger
from volagent.observe.metrics import drift_repairs

RECORD_RETRY_S = 5.0

_log = get_logger("node")


@dataclass(slots=True)
class DriftWatch:
    """Turns mount events into work."""

    mounts: Mounts
    actual: Actual
    trace: Trace
    clock: Clock
    mark: Callable[[VolumeKey], None]
    tell_lost: Callable[[VolumeKey, PodUid | None, str], None]
    tell_covered: Callable[[VolumeKey, PodUid | None, str], None]
    _told_covered: set[MountId] = field(default_factory=set)

    def on_change(self, changes: MountChanges) -> None:
        """Look at what came and went; cheap for everything that is not ours."""
        unwritten: set[MountId] = set()
        for mount_id in changes.detached:
            try:
                owner = self.actual.lose_mount(mount_id)
            except OSError as error:  # the run directory is full
                _log.error("lost mount not recorded", mount=mount_id, error=str(error))
                unwritten.add(mount_id)
                continue
            if owner is not None:
                self._lost(*owner)
        if unwritten:
            again = MountChanges(detached=frozenset(unwritten))
            asyncio.get_running_loop().call_later(RECORD_RETRY_S, self.on_change, again)
        for mount_id in changes.attached:
            if self.actual.owner(mount_id) is None:
                self._look_at(mount_id)

    def _lost(self, key: VolumeKey, pod: PodUid | None) -> None:
        record = self.actual.get(key)
        assert record is not None
        where = record.uses[pod].mount if pod is not None else record.stage
        path = where.path if where is not None else ""
        drift_repairs.inc()
        _log.warning("mount lost", volume=key, pod=pod, path=path)
        for user in (pod,) if pod is not None else tuple(record.uses):
            self.trace.note(
                user, record.name, f"{path} was unmounted by somebody else", self.clock.wall()
            )
        self.trace.forget_step(key, "publish" if pod is not None else "stage", pod)
        self.tell_lost(key, pod, path)
        self.mark(key)

    def _look_at(self, mount_id: MountId) -> None:
        entry = self.mounts.find_mount(mount_id)
        if entry is None:
            return
        below = self.actual.owner(entry.parent_id)
        if below is None or mount_id in self._told_covered:
            return
        key, pod = below
        record = self.actual.get(key)
        assert record is not None
        mine = record.uses[pod].mount if pod is not None else record.stage
        if mine is None or mine.path != entry.mount_point:
            return
        self._told_covered.add(mount_id)
        _log.warning("mount covered", volume=key, pod=pod, path=entry.mount_point)
        self.tell_covered(key, pod, entry.mount_point)
