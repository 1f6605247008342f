"""Has the pods of lost nodes placed anew.

Level-triggered: a pod is looked at again whenever something about its node, its disks or their
Fencings changes, and each of the two writes there are does everything at once: the successor takes
the place of a pod in the one write that ends it (`Client.redeclare_pod`), so there is no moment
with two of them, nor with none, and nothing to be remembered in between. While too many nodes are
silent at once only pods are moved whose disks have been proved free already.
"""

import asyncio
from collections.abc import Iterator
from typing import Final

from volagent.aio.queue import KeyedQueue
from volagent.aio.tasks import Supervisor
from volagent.client.contract import PODS, ApiError, Client, Conflict, NotFound
from volagent.client.events import EventRecorder, subject_of
from volagent.client.informer import Key
from volagent.client.shared import SharedCopies
from volagent.control.attach.wants import WantFinder, claims_of
from volagent.control.failover.lost import LostNodes
from volagent.control.failover.moves import Forget, Leave, Redeclare, Situation, decide_pod
from volagent.control.nodes.decide import is_lost
from volagent.drivers.attaching.contract import AttacherTable
from volagent.objects.attachments import is_out_of_service
from volagent.objects.node_affinity import is_only_on
from volagent.objects.pod import Pod
from volagent.objects.storage import Node
from volagent.observe.failover import pods_moved
from volagent.observe.logs import get_logger

WORKERS: Final = 8
RETRY_S: Final = 1.0
BRAKE_AGAIN_S: Final = 2.0

_log = get_logger("failover")


class PodMover:
    """Looks after the pods of lost nodes."""

    def __init__(
        self,
        copies: SharedCopies,
        client: Client,
        events: EventRecorder,
        lost: LostNodes,
        *,
        attachers: AttacherTable,
        shared_after_s: float,
    ) -> None:
        """Before `copies.run`."""
        self._copies = copies
        self._client = client
        self._events = events
        self._lost = lost
        self._shared_after_s = shared_after_s
        self._finder = WantFinder(attachers, copies.claims.get, copies.volumes.get)
        self._told: dict[str, str] = {}
        """Uid → what the pod was told last."""
        self._pods: dict[str, dict[Key, Pod]] = {}
        """Node → its pods: a node is looked at often, and others may have thousands."""
        self._queue: KeyedQueue[str] | None = None
        lost.listeners.append(self._mark)
        copies.pods.listen(self._pod_changed)

    async def run(self) -> None:
        """Move pods, for ever."""
        await self._lost.wait_synced()
        async with Supervisor() as tasks:
            queue = self._queue = KeyedQueue("moves", self._work, tasks.start, width=WORKERS)
            for node in self._copies.nodes.values():
                queue.mark(node.metadata.name)
            try:
                await asyncio.Event().wait()
            finally:
                queue.stop()

    def _mark(self, node: str) -> None:
        if self._queue is not None:
            self._queue.mark(node)

    def _pod_changed(self, key: Key, old: Pod | None, new: Pod | None) -> None:
        self._keep(key, old, new)
        if old is not None and (new is None or new.metadata.uid != old.metadata.uid):
            self._told.pop(old.metadata.uid, None)
        name = new.spec.node_name if new is not None else ""
        node = self._copies.nodes.get("", name) if name else None
        if node is not None and is_lost(node):
            self._mark(name)

    def _keep(self, key: Key, old: Pod | None, new: Pod | None) -> None:
        if old is not None and old.spec.node_name in self._pods:
            held = self._pods[old.spec.node_name]
            held.pop(key, None)
            if not held:
                del self._pods[old.spec.node_name]
        if new is not None and new.spec.node_name:
            self._pods.setdefault(new.spec.node_name, {})[key] = new

    # -- work --------------------------------------------------------------------------------

    async def _work(self, name: str) -> float | None:
        node = self._copies.nodes.get("", name)
        if node is None or not is_lost(node) or is_out_of_service(node):
            return None
        lost_for_s = self._lost.lost_for_s(name)
        if lost_for_s <= 0.0:
            return 0.01 - lost_for_s
        again_s: list[float | None] = []
        braked = bool(self._lost.find_held(node))
        disks = self._lost.world.stranded(node)
        free = {each.volume for each in disks if each.free}
        held = {each.volume for each in disks if not each.free}
        for pod in list(self._pods.get(name, {}).values()):
            wants = [want for want in self._finder.find(pod) if want.exclusive]
            if braked and not (wants and free.issuperset(want.volume for want in wants)):
                again_s.append(BRAKE_AGAIN_S)
                continue
            situation = Situation(
                lost_for_s,
                exclusive=bool(wants),
                held={want.label for want in wants if want.volume in held},
                only_here=set(self._find_only_here(node, pod)),
            )
            try:
                again_s.append(await self._move(pod, situation))
            except (Conflict, NotFound):
                again_s.append(RETRY_S)
            except ApiError as error:
                _log.warning("pod not moved", pod=pod.metadata.name, error=error.message)
                again_s.append(RETRY_S)
        return min((each for each in again_s if each is not None), default=None)

    async def _move(self, pod: Pod, situation: Situation) -> float | None:
        metadata, name = pod.metadata, pod.spec.node_name
        subject = subject_of("Pod", metadata)
        match decide_pod(pod, situation, self._shared_after_s):
            case Redeclare():
                await self._client.redeclare_pod(
                    metadata.name, metadata.namespace, uid=metadata.uid
                )
                why = f"for {situation.lost_for_s:.0f} s"
                if situation.exclusive:
                    why = "its disks are proved free"
                text = f"declared again: node {name} is lost, {why}"
                self._events.normal(subject, "NodeLost", text)
                self._report(pod, "redeclared")
            case Forget():
                await self._client.delete(
                    PODS, metadata.name, metadata.namespace, grace_period_seconds=0,
                    uid=metadata.uid,
                )  # fmt: skip
                self._events.normal(subject, "NodeLost", f"deleted: node {name} is lost")
                self._report(pod, "deleted")
            case Leave(reason, again_s):
                if reason and self._told.get(metadata.uid) != reason:
                    self._told[metadata.uid] = reason
                    self._events.warning(subject, "NodeLost", reason)
                return again_s
        return None

    def _report(self, pod: Pod, outcome: str) -> None:
        pods_moved.labels(outcome).inc()
        metadata = pod.metadata
        _log.info(
            "pod of a lost node", pod=f"{metadata.namespace}/{metadata.name}",
            node=pod.spec.node_name, outcome=outcome,
        )  # fmt: skip

    def _find_only_here(self, node: Node, pod: Pod) -> Iterator[str]:
        for namespace, name in claims_of(pod):
            claim = self._copies.claims.get(namespace, name)
            bound = claim.spec.volume_name if claim is not None else ""
            volume = self._copies.volumes.get("", bound) if bound else None
            if volume is not None and is_only_on(volume.spec.node_affinity, node.metadata.name):
                yield volume.metadata.name
