"""The node agent: wires declarations, records, kernel events and workers into one loop.

Start-up is ordered, because tearing down from half a picture loses data:

1. the record book of this boot is read, and every informer has its first list;
2. records are compared with the mount table: what stands is known again, nothing is touched;
3. every declared pod is resolved; what has records and no pod any more is now known as an orphan;
4. only then do the queues start, with everything whose plan is not empty marked.

From there on everything is an event that marks a key. For the event loop's thread.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import msgspec

from volagent.aio.clock import Clock
from volagent.aio.queue import KeyedQueue
from volagent.client.events import EventRecorder
from volagent.client.shared import SharedCopies
from volagent.drivers.contract import DriverTable, VolumeKey
from volagent.host.contract import Closeable, Host
from volagent.node.actual import Actual
from volagent.node.attached import AttachmentFinder
from volagent.node.attachment import AttachmentGate, find_volumes_in_use
from volagent.node.checkpoint import Remembered, collect, keep_current, wait_for_world
from volagent.node.config import AgentConfig
from volagent.node.desired import Resolver
from volagent.node.devices import DeviceWaiter
from volagent.node.drift import DriftWatch
from volagent.node.execute import make_executor
from volagent.node.grow import GrowthReporter
from volagent.node.hand_over import RuntimeHandOver
from volagent.node.index import DesiredIndex
from volagent.node.orphans import find_orphans, sweep_skeleton, sweep_skeletons
from volagent.node.plan import plan
from volagent.node.pods import PodEntry, PodWorker
from volagent.node.pulled import PulledMounts
from volagent.node.records import RecordBook
from volagent.node.recovery import compare_with_kernel, find_outlived, suspect_everything
from volagent.node.register import NodeReporter
from volagent.node.report import EventReporter
from volagent.node.resolved import wishes_of
from volagent.node.tokens import TokenCache
from volagent.node.trace import Trace
from volagent.node.work import VolumeWorker
from volagent.node.world import NodeWorld
from volagent.objects.meta import Document, PodUid
from volagent.objects.pod import Pod
from volagent.objects.references import Reference
from volagent.observe.logs import get_logger

_log = get_logger("node")

Start = Callable[[str, Coroutine[Any, Any, None]], object]
VOLUMES_AT_ONCE_PER_BACKEND = 16
PODS_AT_ONCE = 16
PODS_LANE = ""
DRAIN_LOOK_S = 0.02
RUNTIME_RETRY_S = 5.0


class NodeAgent:
    """Keeps this node's volumes as its pods want them."""

    def __init__(
        self,
        config: AgentConfig,
        *,
        copies: SharedCopies,
        host: Host,
        drivers: DriverTable,
        book: RecordBook,
        hand_over: RuntimeHandOver,
        clock: Clock,
        start: Start,
    ) -> None:
        self.config = config
        client = copies.client
        self.host = host
        self.clock = clock
        self.trace = Trace()
        self.index = DesiredIndex()
        self.events = EventRecorder(client, clock, component="volagent", host=config.node_name)
        self.tokens = TokenCache(client, clock, start, self._token_arrived)
        self.world = NodeWorld(
            copies, config.node_name, config.facts, self.tokens.get, config.start_by_name
        )
        self.resolver = Resolver(drivers, config.layout, self.world)
        self.drivers = drivers
        self.recovered = asyncio.Event()
        self._book = book
        self._client = client
        self._hand_over = hand_over
        self._start = start
        self._watch: Closeable | None = None
        self._changed = asyncio.Event()
        self._devices = DeviceWaiter(config.watch_devices, start, self._mark_volume)
        self.gate = AttachmentGate()
        self.node = NodeReporter(
            client, config.node_name, clock, self.gate,
            lambda: find_volumes_in_use(self.index, self.actual, self.gate), self.mark_volumes,
        )  # fmt: skip

    def _assemble(self) -> None:
        """Build what needs the records."""
        self.actual = Actual(self._book)
        self.reporter = EventReporter(self.events, self.actual, self.trace, self._find_pod)
        self.growth = GrowthReporter(
            self._client, self.events, self.world, self.index, self.actual, self._start
        )
        mounts = PulledMounts(self.host, self.actual, self._start)
        self._hand_over.connect(self.world, self.actual, mounts)
        finder = AttachmentFinder(self._client, self.config.node_name)
        executor = make_executor(self.drivers, self.actual, self.config.layout, self.host.mounts,
                                 gate=self.gate, find_attachment=finder.find,
                                 fetch_permission=finder.fetch_permission)  # fmt: skip
        self.volumes = VolumeWorker(
            self.index, self.actual, executor, self.trace, self.reporter, self.clock,
            self.config.backoff, self._volume_settled,
        )  # fmt: skip
        self.pods = PodWorker(
            self._client, self.index, self.actual, self.trace, self.host.trees,
            self.config.layout, self._hand_over, self.clock, self.mark_volumes,
            self.reporter.problem,
        )  # fmt: skip
        self.volume_queue: KeyedQueue[VolumeKey] = KeyedQueue(
            "volume", self.volumes.work, self._start, lane_of=self._backend_of,
            width=VOLUMES_AT_ONCE_PER_BACKEND,
        )  # fmt: skip
        self.pod_queue: KeyedQueue[PodUid] = KeyedQueue(
            "pod", self.pods.work, self._start, lane_of=lambda _: PODS_LANE, width=PODS_AT_ONCE
        )
        self.drift = DriftWatch(
            self.host.mounts, self.actual, self.trace, self.clock, self._mark_volume,
            self.reporter.mount_lost, self.reporter.mount_covered,
        )  # fmt: skip

    async def run(self, start_loop: Start) -> None:
        """Recover, then follow events for ever."""
        self._book.open()
        self._assemble()
        self._watch = self.host.mounts.watch_mounts(self.drift.on_change)
        for name, informer in self.world.informers:
            start_loop(f"informer {name}", informer.run())
        await wait_for_world(self.world, self.config.checkpoint)
        resolved = [self.resolver.resolve_pod(pod) for pod in self.world.pods.values()]
        await self.world.read_named({each for one in resolved for each in one.references})
        await self._recover()
        start_loop("events", self.events.run())
        start_loop("node status", self.node.run(self._start, self.config.extras))
        for name, loop in self._hand_over.runner.loops(self._containers_changed):
            start_loop(name, loop)
        self.recovered.set()
        if self.config.checkpoint is not None:
            start_loop(
                "checkpoint", keep_current(self.config.checkpoint, self._changed, self._collect)
            )
        while True:
            await asyncio.sleep(self.config.resync_s)
            self._resync()

    async def drain(self) -> None:
        """Take everything down, containers first; for `--drain-on-exit`."""
        for uid, entry in self.pods.entries.items():
            entry.draining = True
            self.pod_queue.mark(uid)
        while self.actual.holds_mounts():
            await self.pod_queue.drain()
            await self.volume_queue.drain()
            await asyncio.sleep(DRAIN_LOOK_S)

    def stop(self) -> None:
        """Begin nothing more; what runs may finish, and what is mounted stays."""
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.close()
        self._devices.close()
        self.world.follow(())
        if self.recovered.is_set():
            self.volume_queue.stop()
            self.pod_queue.stop()

    def close(self) -> None:
        """Give the records back, once nothing runs any more that could write to them."""
        self.stop()
        self._book.close()

    # -- recovery ---------------------------------------------------------------------------

    async def _recover(self) -> None:
        """(2) to (4) of the start-up; nothing here changes a mount.

        Everything after the first await is one piece: no change of an object falls in between.
        """
        runner = self._hand_over.runner
        declared = {PodUid(pod.metadata.uid) for pod in self.world.pods.values()}
        outlived = await find_outlived(runner, declared)
        compare_with_kernel(self.host, self.config.layout, self.actual)
        for pod in self.world.pods.values():
            self._enter_again(pod)
        self._hold_outlived(outlived)
        orphans = 0
        for key in sorted({*self.actual.keys(), *self.index.keys()}):
            wanted, found = self.index.wanted(key), self.actual.get(key)
            if plan(wanted, found, self.index.live):
                orphans += wanted is None
                self.volume_queue.mark(key)
        for uid in self.pods.entries:
            self.pod_queue.mark(uid)
        self.world.follow(self.index.references())
        self._listen()
        known = {*self.pods.entries, *self.actual.pods()}
        sweep_skeletons(self.host, self.config.layout, known)
        self._hand_over.prune(entry.pod for entry in self.pods.entries.values())
        _log.info(
            "records compared with the kernel",
            volumes=len(self.actual.keys()), pods=len(self.pods.entries), orphans=orphans,
        )  # fmt: skip

    def _enter_again(self, pod: Pod) -> None:
        entry = self._enter(pod)
        entry.status = msgspec.to_builtins(pod.status)
        entry.recovered = True
        if entry.finished and not entry.deleting:
            return
        self.index.put(self.resolver.resolve_pod(pod))
        if entry.deleting:
            uid = PodUid(pod.metadata.uid)
            suspect_everything(self.host, self.config.layout, self.index, self.actual, uid)

    def _hold_outlived(self, outlived: Sequence[Pod] | None) -> None:
        """Containers may have outlived their pods' objects: hold what they have until they end."""
        if outlived is None:
            for uid in self.actual.pods():
                self.index.keep(uid)
            self._start("outlived pods", self._look_for_outlived_again())
            return
        for pod in outlived:
            uid = PodUid(pod.metadata.uid)
            self.index.keep(uid)
            self._enter(pod).declared = False
            self.pod_queue.mark(uid)
            _log.warning("containers of a pod that is gone", pod=pod.metadata.name, uid=uid)

    async def _look_for_outlived_again(self) -> None:
        await asyncio.sleep(RUNTIME_RETRY_S)
        outlived = await find_outlived(self._hand_over.runner, self.pods.entries.keys())
        self._hold_outlived(outlived)
        if outlived is None:
            return
        for uid in [uid for uid in self.index.live if uid not in self.pods.entries]:
            self.index.release(uid)
            self.mark_volumes(set(self.actual.keys_of(uid)))

    def _collect(self) -> Remembered:
        return collect(self.world, self.index.references())

    def find_orphans(self) -> list[Document]:
        """Pod directories that belong to no declared pod."""
        known = {*self.pods.entries, *self.actual.pods()}
        return find_orphans(self.host, self.config.layout, known)

    # -- events -----------------------------------------------------------------------------

    def _listen(self) -> None:
        world = self.world
        world.pods.listen(self._pod_changed)
        world.secrets.listen(self._object_changed("Secret"))
        world.config_maps.listen(self._object_changed("ConfigMap"))
        world.claims.listen(self.growth.listen(self._object_changed("PersistentVolumeClaim")))
        world.volumes.listen(self._object_changed("PersistentVolume"))
        world.nodes.listen(self.node.saw)

    def _pod_changed(self, _: tuple[str, str], old: Pod | None, new: Pod | None) -> None:
        self._changed.set()
        if old is not None and (new is None or new.metadata.uid != old.metadata.uid):
            uid = PodUid(old.metadata.uid)
            entry = self.pods.entries.get(uid)
            if entry is not None:
                entry.declared = False
                self.pod_queue.mark(uid)
            self.tokens.forget(uid)
        if new is None:
            return
        uid = PodUid(new.metadata.uid)
        entry = self.pods.entries.get(uid)
        if entry is None:
            self._enter(new)
            self.resolve(new)
            return
        before, entry.pod = entry.pod, new
        if entry.deleting:
            self.pod_queue.mark(uid)
        elif wishes_of(before) != wishes_of(new):
            self.resolve(new)

    def _object_changed(
        self, kind: str
    ) -> Callable[[tuple[str, str], object | None, object | None], None]:
        def changed(key: tuple[str, str], _old: object | None, _new: object | None) -> None:
            reference: Reference = (kind, key[0], key[1])
            for uid in self.index.pods_referring(reference):
                entry = self.pods.entries.get(uid)
                if entry is not None and not entry.deleting:
                    self._changed.set()
                    self.resolve(entry.pod)

        return changed

    def _enter(self, pod: Pod) -> PodEntry:
        uid = PodUid(pod.metadata.uid)
        entry = PodEntry(pod, seen_at_s=self.clock.monotonic())
        self.pods.entries[uid] = entry
        return entry

    def resolve(self, pod: Pod) -> None:
        """Work out anew what a pod wants, unless it is leaving."""
        uid = PodUid(pod.metadata.uid)
        entry = self.pods.entries.get(uid)
        if entry is None or entry.leaving:
            return
        changed = self.index.put(self.resolver.resolve_pod(pod))
        self.world.follow(self.index.references())
        self.mark_volumes(changed)
        if any(
            wanted is not None and wanted.spec.identity
            for wanted in map(self.index.wanted, changed)
        ):
            self.node.hurry()
        resolved = self.index.pod(uid)
        if not changed or (resolved is not None and resolved.problems):
            self.pod_queue.mark(uid)

    def _token_arrived(self, uid: PodUid) -> None:
        entry = self.pods.entries.get(uid)
        if entry is not None:
            self.resolve(entry.pod)

    def _containers_changed(self, uid: PodUid | None) -> None:
        for changed in tuple(self.pods.entries) if uid is None else (uid,):
            if changed in self.pods.entries:
                self.pod_queue.mark(changed)

    def _volume_settled(self, key: VolumeKey, touched: set[PodUid]) -> None:
        for uid in sorted(touched):
            if uid in self.pods.entries and self._may_go_on(uid):
                self.pod_queue.mark(uid)
            if uid not in self.pods.entries and not self.actual.keys_of(uid):
                sweep_skeleton(self.host, self.config.layout.pod(uid))
        self.growth.look(key)
        if key.startswith(("pv/", "disk/")):
            (self.node.hurry if self.gate.was_given_back(key) else self.node.touch)()
            failure = self.trace.failure(key)
            if failure is not None and failure.step == "attach":
                self._devices.expect(key)

    def _may_go_on(self, uid: PodUid) -> bool:
        """Whether a pod's worker has anything to do: not while its other volumes are busy."""
        resolved = self.index.pod(uid)
        if resolved is None:
            return True
        busy = self.volume_queue.is_waiting
        return not any(busy(volume.spec.key) for volume in resolved.volumes.values())

    def _mark_volume(self, key: VolumeKey) -> None:
        self.volumes.reset(key)
        if self.recovered.is_set():
            self.volume_queue.mark(key)

    def mark_volumes(self, keys: set[VolumeKey]) -> None:
        """Have volumes looked at again, at once."""
        for key in sorted(keys):
            self.volumes.reset(key)
            self.volume_queue.mark(key)

    def _backend_of(self, key: VolumeKey) -> str:
        backend = self.index.backend(key)
        if backend is None:
            record = self.actual.get(key)
            backend = record.backend if record is not None else "local"
        return backend

    def _find_pod(self, uid: PodUid) -> Pod | None:
        entry = self.pods.entries.get(uid)
        return entry.pod if entry is not None else None

    def _resync(self) -> None:
        """The safety net: look at everything whose plan is not empty."""
        for uid, entry in tuple(self.pods.entries.items()):
            if not entry.deleting:
                self.resolve(entry.pod)
            else:
                self.pod_queue.mark(uid)
        for key in self.actual.keys():  # noqa: SIM118  # a method, not a mapping
            if plan(self.index.wanted(key), self.actual.get(key), self.index.live):
                self.volume_queue.mark(key)
