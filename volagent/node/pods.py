"""The worker of one pod: from published volumes to running containers, and all the way back.

Called by the keyed queue, so never twice at once for a pod. The order that keeps data safe:

1. volumes published → 2. sub-paths bound → 3. containers handed their mounts;
4. containers gone (the runtime says so) → 5. sub-paths unbound → 6. volumes unpublished →
7. the pod's directory removed, level by level, only `rmdir` → 8. the object deleted from the API.

What a pod has is never taken from it before (4).
"""

import asyncio
import enum
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

from volagent.aio.backoff import earlier_of
from volagent.aio.breakable import Breakable
from volagent.aio.clock import Clock, format_time
from volagent.client.contract import PODS, ApiError, Client, Conflict, NotFound
from volagent.drivers.contract import VolumeKey
from volagent.drivers.layout import Layout
from volagent.host.contract import Trees
from volagent.host.errors import HostError
from volagent.node.actual import Actual, is_sub_path
from volagent.node.handed import HandOver, HandsOver
from volagent.node.index import DesiredIndex
from volagent.node.orphans import remove_pod_directory
from volagent.node.resolved import ResolvedPod
from volagent.node.status import (
    Blocker,
    block_by_failure,
    block_by_problem,
    is_published,
    merge_conditions,
    volumes_condition,
)
from volagent.node.trace import StepTrace, Trace
from volagent.objects.meta import Document, PodUid
from volagent.objects.pod import Pod
from volagent.observe.logs import get_logger
from volagent.observe.metrics import pod_ready_seconds

API_RETRY_S = 2.0
UNEXPECTED_RETRY_S = 30.0
WAIT_GRACE_S = 3.0
"""How long a volume may wait for somebody else before its pod's condition says so."""
PROBLEM_GRACE_S = 1.0
"""A problem of the declaration becomes an event only then; the condition has it at once."""
TELL_LOST_TIMEOUT_S = 2.0
FINAL_PHASES = ("Succeeded", "Failed")

_log = get_logger("node")


class Hold(enum.Enum):
    """What a pod on its way out still has."""

    CONTAINERS = "containers"
    SUB_PATHS = "sub-paths"
    VOLUMES = "volumes"


@dataclass(slots=True)
class PodEntry:
    """What the node knows of one pod."""

    pod: Pod
    declared: bool = True
    """False once the API has it no more."""
    seen_at_s: float = 0.0
    """Monotonic."""
    ready_at: datetime | None = None
    draining: bool = False
    """The daemon leaves and takes the mounts down first; the pod stays declared."""
    surrendered: frozenset[VolumeKey] = frozenset()
    """Disks that have to be given up although the pod stays declared (`surrender.py`)."""
    hurried: Pod | None = None
    """The pod with the grace that its containers have then."""
    writing: Breakable = field(default_factory=Breakable)
    """What is on its way to a server: the way may be cut."""
    ready: bool = False
    recovered: bool = False
    """It was there before this process."""
    containers_gone: bool = False
    hold: Hold = Hold.CONTAINERS
    blockers: tuple[Blocker, ...] = ()
    waiting: tuple[str, ...] = ()
    status: Document = field(default_factory=dict)
    """The status as last written."""
    hand_over_error: str = ""
    problems_since: dict[str, float] = field(default_factory=dict)
    """When each problem of the declaration was first seen (monotonic)."""
    problems_told: set[str] = field(default_factory=set)

    @property
    def deleting(self) -> bool:
        """The pod is on its way out."""
        return not self.declared or self.pod.metadata.deletion_timestamp is not None

    @property
    def finished(self) -> bool:
        """All containers ended for good: the volumes are not needed any more."""
        return (self.status.get("phase") or self.pod.status.phase) in FINAL_PHASES

    @property
    def leaving(self) -> bool:
        """Nothing is set up for this pod any more."""
        return self.deleting or self.draining or self.finished or bool(self.surrendered)


@dataclass(slots=True)
class PodWorker:
    """Brings pods to where they should be."""

    client: Client
    index: DesiredIndex
    actual: Actual
    trace: Trace
    trees: Trees
    layout: Layout
    hand_over: HandsOver
    clock: Clock
    mark_volumes: Callable[[set[VolumeKey]], None]
    tell_problem: Callable[[Pod, Blocker], None]
    entries: dict[PodUid, PodEntry] = field(default_factory=dict)

    async def work(self, uid: PodUid) -> float | None:
        """Do what can be done for a pod; seconds until it wants another look, or None."""
        entry = self.entries.get(uid)
        if entry is None:
            return None
        try:
            if entry.deleting:
                return await self._withdraw(uid, entry)
            if entry.leaving:
                return await self._release(uid, entry)
            return await self._bring_up(uid, entry)
        except (NotFound, Conflict):
            return None  # the object went or was replaced meanwhile: its informer will say so
        except TimeoutError:
            return 0.0 if entry.surrendered else API_RETRY_S  # the write was broken off
        except ApiError as error:
            _log.warning("pod status not written", pod=uid, error=error.message)
            return API_RETRY_S
        except Exception:  # noqa: BLE001  # boundary: one pod's bug stays its own
            _log.exception("pod failed in an unexpected way", pod=uid)
            return UNEXPECTED_RETRY_S

    async def _bring_up(self, uid: PodUid, entry: PodEntry) -> float | None:
        resolved = self.index.pod(uid)
        if resolved is None:
            return None
        entry.waiting, entry.blockers = self._examine(resolved)
        ready = not entry.waiting
        if ready:
            resolved, ready = self._bind_sub_paths(entry, resolved)
        if ready and not entry.ready:
            self._became_ready(uid, entry, resolved)
        entry.ready = ready
        answer = await self.hand_over.sync(entry.pod, resolved, ready=ready)
        entry.hand_over_error = answer.error
        look_again_s = self._tell_problems(entry, resolved)
        await self._write_status(entry, ready, answer)
        if entry.finished:
            return await self._release(uid, entry)
        keys = [volume.spec.key for volume in resolved.volumes.values()]
        if any(self.trace.wait(key) and not self._long_wait(key) for key in keys):
            look_again_s = earlier_of(look_again_s, WAIT_GRACE_S)
        return earlier_of(answer.retry_after_s, look_again_s)

    def _tell_problems(self, entry: PodEntry, resolved: ResolvedPod) -> float | None:
        """Tell each problem once, when it has lasted: objects declared together arrive one by one.

        Seconds until the next one may have to be told, or None.
        """
        now_s = self.clock.monotonic()
        problems = {b.error: b for b in entry.blockers if b.volume in resolved.problems}
        entry.problems_since = {error: entry.problems_since.get(error, now_s) for error in problems}
        entry.problems_told &= problems.keys()
        for error in problems.keys() - entry.problems_told:
            left_s = entry.problems_since[error] + PROBLEM_GRACE_S - now_s
            if left_s > 0:
                return left_s
            entry.problems_told.add(error)
            self.tell_problem(entry.pod, problems[error])
        return None

    def _examine(self, resolved: ResolvedPod) -> tuple[tuple[str, ...], tuple[Blocker, ...]]:
        waiting: list[str] = []
        blockers: list[Blocker] = []
        for name, problem in resolved.problems.items():
            blockers.append(block_by_problem(name, problem))
            if name not in resolved.volumes:
                waiting.append(name)
        for name, volume in resolved.volumes.items():
            key = volume.spec.key
            if is_published(resolved, name, self.actual.get(key)):
                continue
            waiting.append(name)
            failure = self.trace.failure(key, resolved.uid) or self._long_wait(key)
            if failure is not None:
                blockers.append(block_by_failure(name, failure))
        return tuple(waiting), tuple(blockers)

    def _long_wait(self, key: VolumeKey) -> StepTrace | None:
        """The step that waits for somebody else for longer than that usually takes."""
        trace = self.trace.wait(key)
        since = trace.waiting_since if trace is not None else None
        lasts = since is not None and (self.clock.wall() - since).total_seconds() >= WAIT_GRACE_S
        return trace if lasts else None

    def _bind_sub_paths(self, entry: PodEntry, resolved: ResolvedPod) -> tuple[ResolvedPod, bool]:
        sub_paths, problems = self.hand_over.sub_paths(entry.pod, resolved)
        if not sub_paths and not problems:
            return resolved, True
        extended = ResolvedPod(
            resolved.uid,
            {**resolved.volumes, **sub_paths},
            {**resolved.problems, **problems},
            resolved.references,
        )
        changed = self.index.put(extended)
        if changed:
            self.mark_volumes(changed)
        entry.waiting, entry.blockers = self._examine(extended)
        return extended, not entry.waiting

    def _became_ready(self, uid: PodUid, entry: PodEntry, resolved: ResolvedPod) -> None:
        entry.ready_at = self.clock.wall()
        if entry.recovered:
            return
        took_s = self.clock.monotonic() - entry.seen_at_s
        pod_ready_seconds.observe(took_s)
        _log.info(
            "pod volumes ready", pod=f"{entry.pod.metadata.namespace}/{entry.pod.metadata.name}",
            uid=uid, volumes=len(resolved.volumes), took_ms=round(took_s * 1000.0, 3),
        )  # fmt: skip

    async def _write_status(self, entry: PodEntry, ready: bool, answer: HandOver) -> None:
        if not ready and not entry.blockers and not entry.status:
            return  # still at the first try: nothing is worth a write yet
        now = format_time(self.clock.wall())
        condition = volumes_condition(ready, entry.blockers, entry.waiting)
        own = [
            {"type": "PodScheduled", "status": "True"},
            condition,
            *answer.status.get("conditions", ()),
        ]
        status: Document = {"phase": "Pending", **answer.status}
        if answer.error:
            status["message"] = answer.error
        status["conditions"] = merge_conditions(entry.status.get("conditions", ()), own, now)
        status["startTime"] = entry.status.get("startTime") or entry.pod.status.start_time or now
        if status == entry.status:
            return
        await self._patch_status(entry, status)
        entry.status = status

    async def _patch_status(self, entry: PodEntry, status: Document) -> None:
        metadata = entry.pod.metadata
        gone = {key: None for key in entry.status if key not in status}
        patch = {"metadata": {"uid": metadata.uid}, "status": {**status, **gone}}
        name, namespace = metadata.name, metadata.namespace
        write = self.client.patch(PODS, name, patch, namespace, subresource="status")
        await entry.writing.wait(write)

    async def _withdraw(self, uid: PodUid, entry: PodEntry) -> float | None:
        again_s = await self._release(uid, entry)
        if self.entries.get(uid) is not entry or not self._is_released(uid, entry):
            return again_s
        if not self._remove_directory(uid, entry):  # (7)
            return API_RETRY_S
        if entry.declared:
            await self._finalize(entry)  # (8)
        self.hand_over.forget(entry.pod)
        self.trace.forget_pod(uid)
        self.entries.pop(uid, None)
        return None

    async def _release(self, uid: PodUid, entry: PodEntry) -> float | None:
        """(4) to (6), as far as they go now."""
        ends = entry.deleting or entry.draining or entry.surrendered
        if ends and not entry.containers_gone:
            await self._tell_lost(uid, entry)
            answer = await self.hand_over.remove(entry.hurried or entry.pod)  # (4)
            if not answer.released:
                entry.hand_over_error = answer.error
                if (answer.status or answer.error) and entry.declared and not entry.surrendered:
                    await self._write_status(entry, entry.ready, answer)
                return answer.retry_after_s
            entry.containers_gone = True
        if entry.hold is Hold.CONTAINERS:
            entry.hold = Hold.SUB_PATHS
            self.index.release(uid)
            changed = self.index.drop_only(uid, lambda volume: is_sub_path(volume.spec.key))
            self.mark_volumes(changed | self.actual.sub_paths_of(uid))
        if entry.hold is Hold.SUB_PATHS:
            if self.actual.sub_paths_of(uid):
                await self._report_leftovers(uid, entry)  # (5)
                return None
            entry.hold = Hold.VOLUMES
            self._give_up_volumes(uid, entry)
        if not self._is_released(uid, entry):
            await self._report_leftovers(uid, entry)  # (6)
        return None

    async def _tell_lost(self, uid: PodUid, entry: PodEntry) -> None:
        """What was ready is not when its disk is lost. Said once: all else is more urgent."""
        resolved = self.index.pod(uid)
        if resolved is None or not entry.ready or not entry.declared:
            return
        keys = {key for key in entry.surrendered if (r := self.actual.get(key)) and r.lost}
        lost = tuple(name for name, each in resolved.volumes.items() if each.spec.key in keys)
        if lost:
            entry.ready, entry.waiting, entry.blockers = False, lost, ()
            with suppress(ApiError, TimeoutError):
                async with asyncio.timeout(TELL_LOST_TIMEOUT_S):
                    await self._write_status(entry, False, HandOver())

    def _give_up_volumes(self, uid: PodUid, entry: PodEntry) -> None:
        if entry.surrendered and not entry.deleting and not entry.draining:
            self.index.drop_only(uid, lambda volume: volume.spec.key in entry.surrendered)
            self.mark_volumes(set(entry.surrendered))
            return
        if entry.deleting or not entry.draining:
            self.mark_volumes(self.index.drop(uid) | set(self.actual.keys_of(uid)))
            return
        # Draining: what has no mount (an emptyDir on disk) stays with the declared pod, as it
        # would through a reboot.
        mounted = set(self.actual.mounted_keys_of(uid))
        self.mark_volumes(self.index.drop_only(uid, lambda volume: volume.spec.key in mounted))

    def _is_released(self, uid: PodUid, entry: PodEntry) -> bool:
        if entry.hold is not Hold.VOLUMES or (entry.deleting and not entry.containers_gone):
            return False
        if entry.draining and not entry.deleting:
            return not self.actual.mounted_keys_of(uid)
        return not self.actual.keys_of(uid)

    async def _report_leftovers(self, uid: PodUid, entry: PodEntry) -> None:
        """Say what cannot be taken down; the volumes' own workers go on trying."""
        entry.blockers = self._failures_of(uid, self.actual.keys_of(uid))
        if entry.blockers and entry.declared and not entry.surrendered:
            await self._write_status(entry, False, HandOver())

    def _failures_of(self, uid: PodUid, keys: Sequence[VolumeKey]) -> tuple[Blocker, ...]:
        found = []
        for key in keys:
            failure = self.trace.failure(key, uid)
            if failure is not None:
                record = self.actual.get(key)
                found.append(block_by_failure(record.name if record is not None else key, failure))
        return tuple(found)

    def _remove_directory(self, uid: PodUid, entry: PodEntry) -> bool:
        root = self.layout.pod(uid)
        try:
            remove_pod_directory(self.trees, root)
        except HostError as error:
            blocker = Blocker(
                "",
                f"the pod's directory is not empty: {error}",
                f"look at what is in {root}; volagent deletes nothing that it did not make",
            )
            if blocker.error not in entry.problems_told:
                entry.problems_told.add(blocker.error)
                self.tell_problem(entry.pod, blocker)
            return False
        return True

    async def _finalize(self, entry: PodEntry) -> None:
        metadata = entry.pod.metadata
        try:
            deletion = self.client.delete(
                PODS, metadata.name, metadata.namespace, grace_period_seconds=0, uid=metadata.uid
            )
            await entry.writing.wait(deletion)
        except (NotFound, Conflict):
            return
        _log.info("pod withdrawn", pod=f"{metadata.namespace}/{metadata.name}", uid=metadata.uid)
