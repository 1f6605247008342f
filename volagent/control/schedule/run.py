"""Carries out what `decide` says, pod by pod, until each has its node.

Level-triggered: a change of anything that a decision looked at marks the pods it may concern, and
each is then decided on again from the newest known state. A decision and the promise that counts
the pod on its node happen without a pause between them, so that two pods never share the same last
room. Every write is conditional on the version that was decided on.

What a pod waits for comes as changes: its claims become bound (the binder, a provisioner), or a
provisioner that cannot make a volume on the chosen node takes `SELECTED_NODE` off the claim again.
That node is then left out for this claim for `REFUSED_FOR_S`. Nothing is polled.
"""

import asyncio
from dataclasses import dataclass

import msgspec

from volagent.aio.clock import Clock, format_time
from volagent.aio.queue import KeyedQueue
from volagent.aio.tasks import Supervisor
from volagent.client.contract import (
    CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    ApiError,
    Client,
    Conflict,
    NotFound,
)
from volagent.client.events import EventRecorder, subject_of
from volagent.client.informer import Key
from volagent.client.shared import SharedCopies
from volagent.control.bind.match import reference_to
from volagent.control.schedule.cluster import Cluster
from volagent.control.schedule.decide import (
    Assign,
    Nowhere,
    Outlook,
    Prepare,
    decide_pod,
    explain_placement,
    is_ours,
)
from volagent.control.schedule.triggers import Triggers
from volagent.objects.annotations import BOUND_BY_CONTROLLER, SELECTED_NODE
from volagent.objects.meta import Document
from volagent.objects.pod import Pod
from volagent.objects.storage import PersistentVolume, PersistentVolumeClaim
from volagent.observe.logs import get_logger

WORKERS = 16
RETRY_S = 2.0
"""After a failed write (the server cannot store it now) the pod waits so long."""
LOST_RACE_S = 0.2
"""After a write on an old version: by then the copies have caught up."""
PATIENCE_S = 1.0
"""So long a new pod's claims may be on their way before the pod is called unschedulable."""
WAIT_TOLD_S = 10.0
"""After so long the pod says which claims it waits for."""

_log = get_logger("scheduler")


@dataclass(slots=True)
class _Waiting:
    """A pod without a node, since when."""

    uid: str
    since_s: float
    assigned: bool = False
    """Its node is written; the copies have not seen it yet."""


class Scheduler:
    """Gives every pod that waits for it a node, or says why it cannot."""

    def __init__(
        self, copies: SharedCopies, client: Client, events: EventRecorder, clock: Clock
    ) -> None:
        """Before `copies.run`."""
        self._copies = copies
        self._client = client
        self._events = events
        self._clock = clock
        self._cluster = Cluster(copies)
        self._triggers = Triggers(copies, self._cluster.csi_nodes, clock, self._mark)
        self._waiting: dict[Key, _Waiting] = {}
        self._queue: KeyedQueue[Key] | None = None

    async def run(self) -> None:
        """Schedule, for ever."""
        async with Supervisor() as tasks:
            await self._copies.wait_synced()
            queue = self._queue = KeyedQueue("schedule", self._work, tasks.start, width=WORKERS)
            try:
                for pod in tuple(self._copies.pods.values()):
                    if is_ours(pod):
                        queue.mark((pod.metadata.namespace, pod.metadata.name))
                await asyncio.Event().wait()
            finally:
                queue.stop()

    def explain(self, namespace: str, name: str) -> tuple[Outlook, ...]:
        """What each node says about a pod now; empty when there is no such pod."""
        pod = self._copies.pods.get(namespace, name)
        if pod is None:
            return ()
        world = self._cluster.world(self._triggers.is_refused, without=(namespace, name))
        return explain_placement(pod, world)

    def _mark(self, key: Key) -> None:
        if self._queue is not None:
            self._queue.mark(key)

    # -- work --------------------------------------------------------------------------------

    async def _work(self, key: Key) -> float | None:
        pod = self._copies.pods.get(*key)
        if pod is None or not is_ours(pod):
            self._forget(key)
            return None
        waiting = self._waiting.get(key)
        if waiting is None or waiting.uid != pod.metadata.uid:
            waiting = _Waiting(pod.metadata.uid, self._clock.monotonic())
            self._waiting[key] = waiting
        elif waiting.assigned:
            return None  # the copies will show it
        try:
            return await self._advance(key, pod, waiting)
        except (Conflict, NotFound):
            self._cluster.withdraw(key)
            return LOST_RACE_S
        except ApiError as error:
            self._cluster.withdraw(key)
            _log.warning("scheduling interrupted", pod=_name(pod), error=error.message)
            return RETRY_S

    def _forget(self, key: Key) -> None:
        self._cluster.withdraw(key)
        self._waiting.pop(key, None)
        self._triggers.stuck.discard(key)

    async def _advance(self, key: Key, pod: Pod, waiting: _Waiting) -> float | None:
        preferred = self._cluster.promised_node(key)
        world = self._cluster.world(self._triggers.is_refused, without=key)
        verdict = decide_pod(pod, world, preferred=preferred)
        waited_s = self._clock.monotonic() - waiting.since_s
        match verdict:
            case Nowhere():
                self._cluster.withdraw(key)
                self._triggers.stuck.add(key)
                if verdict.may_pass and waited_s < PATIENCE_S:
                    return PATIENCE_S - waited_s
                await self._tell_nowhere(pod, verdict)
                return self._triggers.refusal_ends_s(pod)
            case Prepare():
                self._promise(key, pod, verdict.node)
                await self._prepare(verdict)
                if waited_s < WAIT_TOLD_S:
                    return WAIT_TOLD_S - waited_s
                await self._tell_waiting(pod, verdict)
                return None
            case Assign(node):
                self._promise(key, pod, node)
                await self._assign(pod, node)
                waiting.assigned = True
                _log.info(
                    "pod scheduled", pod=_name(pod), node=node, took_ms=round(waited_s * 1000, 1)
                )
                return None

    def _promise(self, key: Key, pod: Pod, node: str) -> None:
        self._triggers.stuck.discard(key)
        self._cluster.promise(key, pod, node)

    async def _prepare(self, step: Prepare) -> None:
        """Reserve volumes, and ask for the others on the chosen node."""
        names = {volume.metadata.name for _, volume in step.reserve}
        self._cluster.taken |= names
        try:
            for claim, volume in step.reserve:
                await self._reserve(claim, volume)
        finally:
            self._cluster.taken -= names
        for claim in step.provision:
            await self._select_node(claim, step.node)

    async def _reserve(self, claim: PersistentVolumeClaim, volume: PersistentVolume) -> None:
        metadata: Document = {"resourceVersion": volume.metadata.resource_version}
        if volume.spec.claim_ref is None:
            metadata["annotations"] = {BOUND_BY_CONTROLLER: "yes"}
        reference = msgspec.to_builtins(reference_to(claim))
        written = await self._client.patch(
            PERSISTENT_VOLUMES, volume.metadata.name,
            {"metadata": metadata, "spec": {"claimRef": reference}},
        )  # fmt: skip
        self._cluster.note_volume(msgspec.convert(written, PersistentVolume))

    async def _select_node(self, claim: PersistentVolumeClaim, node: str) -> None:
        metadata = {
            "resourceVersion": claim.metadata.resource_version,
            "annotations": {SELECTED_NODE: node},
        }
        written = await self._client.patch(
            CLAIMS, claim.metadata.name, {"metadata": metadata}, claim.metadata.namespace
        )
        self._cluster.note_claim(msgspec.convert(written, PersistentVolumeClaim))

    async def _assign(self, pod: Pod, node: str) -> None:
        metadata = pod.metadata
        await self._client.bind_pod(
            metadata.name, metadata.namespace, node,
            uid=metadata.uid, resource_version=metadata.resource_version,
        )  # fmt: skip
        text = f"Successfully assigned {_name(pod)} to {node}"
        self._events.normal(subject_of("Pod", metadata), "Scheduled", text)

    # -- what the pod is told ----------------------------------------------------------------

    async def _tell_nowhere(self, pod: Pod, verdict: Nowhere) -> None:
        if await self._set_condition(pod, "Unschedulable", verdict.message):
            subject = subject_of("Pod", pod.metadata)
            self._events.warning(subject, "FailedScheduling", verdict.describe())
            _log.info("pod unschedulable", pod=_name(pod), reason=verdict.describe())

    async def _tell_waiting(self, pod: Pod, step: Prepare) -> None:
        names = ", ".join(f'"{name}"' for name in step.waiting)
        text = f"waiting for persistentvolumeclaim {names} to be bound on node {step.node}"
        if await self._set_condition(pod, "WaitingForVolumes", text):
            self._events.normal(subject_of("Pod", pod.metadata), "WaitingForVolumes", text)

    async def _set_condition(self, pod: Pod, reason: str, message: str) -> bool:
        """Write `PodScheduled` False; whether that was news."""
        conditions = list(pod.status.conditions or ())
        held = next((each for each in conditions if each.type == "PodScheduled"), None)
        if held is not None and (held.status, held.reason, held.message) == (
            "False", reason, message,
        ):  # fmt: skip
            return False
        began = held.last_transition_time if held is not None and held.status == "False" else None
        condition = {
            "type": "PodScheduled", "status": "False", "reason": reason, "message": message,
            "lastProbeTime": None,
            "lastTransitionTime": began or format_time(self._clock.wall()),
        }  # fmt: skip
        others = [msgspec.to_builtins(each) for each in conditions if each.type != "PodScheduled"]
        body = {
            "metadata": {"resourceVersion": pod.metadata.resource_version},
            "status": {"conditions": [*others, condition]},
        }
        await self._client.patch(
            PODS, pod.metadata.name, body, pod.metadata.namespace, subresource="status"
        )
        return True


def _name(pod: Pod) -> str:
    return f"{pod.metadata.namespace}/{pod.metadata.name}"
