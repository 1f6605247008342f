"""Carries out what `decide` says: the controller's half of growing a claim.

Needs the provisioner that made the volume, so a node-local volume is made larger by the controller
that runs on its node. A refusal is noted in the claim and told; asking for less (but not for less
than there is) begins anew. Each write is conditional on the version that was decided on.
"""

import asyncio
import math
import random
from dataclasses import dataclass

from volagent.aio.backoff import BackOff
from volagent.aio.clock import Clock, format_time
from volagent.aio.queue import KeyedQueue
from volagent.aio.tasks import Supervisor
from volagent.client.contract import (
    CLAIMS,
    PERSISTENT_VOLUMES,
    ApiError,
    Client,
    Conflict,
    NotFound,
)
from volagent.client.events import EventRecorder, Subject, subject_of
from volagent.client.informer import Key
from volagent.client.shared import SharedCopies
from volagent.control.expand.decide import (
    AwaitNode,
    Begin,
    Enlarge,
    Finish,
    GiveUp,
    Ignore,
    Step,
    decide_growth,
)
from volagent.drivers.errors import DriverError, Rejected
from volagent.drivers.provisioning.contract import (
    Grows,
    OutOfSpace,
    ProvisionerTable,
    ServesFrom,
)
from volagent.objects.annotations import NODE_RESIZE, PROVISIONED_BY
from volagent.objects.growth import (
    status_awaiting_node,
    status_begun,
    status_refused,
    status_settled,
    wanted_bytes,
)
from volagent.objects.meta import Document
from volagent.objects.quantity import canonical_quantity
from volagent.objects.storage import PersistentVolume, PersistentVolumeClaim
from volagent.objects.storage_nodes import storage_node_of
from volagent.objects.volumes import PV_SOURCES
from volagent.observe.logs import get_logger

WORKERS = 8
RETRY_S = 2.0
BACKEND_RETRY = BackOff(first_s=1.0, max_s=300.0)

_log = get_logger("growth")


@dataclass(frozen=True, slots=True)
class _Failure:
    """What the backend said last for a claim, until the claim asks for something else."""

    count: int
    not_before_s: float
    """On the monotonic clock; infinite when it is no use to ask again."""


class ExpandController:
    """Makes the volumes of claims larger that ask for more."""

    def __init__(
        self,
        copies: SharedCopies,
        client: Client,
        events: EventRecorder,
        provisioners: ProvisionerTable,
        clock: Clock,
    ) -> None:
        self._copies = copies
        self._client = client
        self._events = events
        self._growers: dict[str, Grows] = {
            name: each for name, each in provisioners.items() if isinstance(each, Grows)
        }
        self._clock = clock
        self._failures: dict[Key, _Failure] = {}
        self._queue: KeyedQueue[Key] | None = None
        copies.claims.listen(self._claim_changed)
        copies.volumes.listen(self._volume_changed)

    async def run(self) -> None:
        """Let claims grow, for ever."""
        await self._copies.wait_synced()
        async with Supervisor() as tasks:
            queue = self._queue = KeyedQueue("grow", self._work, tasks.start, width=WORKERS)
            for claim in self._copies.claims.values():
                queue.mark((claim.metadata.namespace, claim.metadata.name))
            try:
                await asyncio.Event().wait()
            finally:
                queue.stop()

    def _claim_changed(
        self, key: Key, old: PersistentVolumeClaim | None, new: PersistentVolumeClaim | None
    ) -> None:
        if new is None or (old is not None and old.spec != new.spec):
            self._failures.pop(key, None)
        if self._queue is not None and new is not None and self._next_step(new) is not None:
            self._queue.mark(key)

    def _volume_changed(
        self, _key: Key, _old: PersistentVolume | None, new: PersistentVolume | None
    ) -> None:
        reference = new.spec.claim_ref if new is not None else None
        if self._queue is not None and reference is not None:
            claim = self._copies.claims.get(reference.namespace, reference.name)
            if claim is not None and self._next_step(claim) is not None:
                self._queue.mark((reference.namespace, reference.name))

    def _next_step(self, claim: PersistentVolumeClaim) -> Step | None:
        volume = self._copies.volumes.get("", claim.spec.volume_name)
        maker = self._maker_of(volume) if volume is not None else ""
        grower = self._growers.get(maker)
        if volume is not None and isinstance(grower, ServesFrom):
            made_on, here = storage_node_of(volume.metadata), grower.storage_node
            if made_on != here:
                return None
        return decide_growth(claim, volume, maker, grows=maker in self._growers)

    def _maker_of(self, volume: PersistentVolume) -> str:
        made_by = (volume.metadata.annotations or {}).get(PROVISIONED_BY)
        if made_by:
            return made_by
        storage_class = self._copies.classes.get("", volume.spec.storage_class_name)
        return storage_class.provisioner if storage_class is not None else ""

    async def _work(self, key: Key) -> float | None:
        claim = self._copies.claims.get(*key)
        step = self._next_step(claim) if claim is not None else None
        if claim is None or step is None:
            return None
        failure = self._failures.get(key)
        if failure is not None and isinstance(step, Begin | Enlarge):
            left_s = failure.not_before_s - self._clock.monotonic()
            if left_s > 0:
                return left_s if left_s < math.inf else None
        try:
            return await self._carry_out(step)
        except (Conflict, NotFound):
            return None  # it changed meanwhile: that change marks it again
        except ApiError as error:
            _log.warning("growth interrupted", claim=claim.metadata.name, error=error.message)
            return RETRY_S

    async def _carry_out(self, step: Step) -> float | None:
        claim = step.claim
        now = format_time(self._clock.wall())
        match step:
            case Begin():
                target = format_size(wanted_bytes(claim))
                await self._write(claim, status_begun(claim, target, now))
                self._tell(claim, "Resizing", f"resizing volume {claim.spec.volume_name}")
            case Enlarge():
                return await self._enlarge(step)
            case AwaitNode(_, volume):
                size = format_size(wanted_bytes(claim))
                target = str((volume.spec.capacity or {}).get("storage", size))
                await self._write(claim, status_awaiting_node(claim, target, now))
                text = "Require file system resize of volume on node"
                self._tell(claim, "FileSystemResizeRequired", text)
            case Finish(_, volume):
                await self._write(claim, status_settled(claim, volume))
                self._tell(claim, "VolumeResizeSuccessful", "Resize volume succeeded")
            case GiveUp():
                await self._write(claim, status_settled(claim, None))
            case Ignore():
                text = (
                    "Ignoring the PVC: didn't find a plugin capable of expanding the volume; "
                    "waiting for an external controller to process this PVC."
                )
                self._events.warning(_subject(claim), "ExternalExpanding", text)
        return None

    async def _enlarge(self, step: Enlarge) -> float | None:
        """Steps (2) and (3): the backend first, then the record of what it did."""
        claim, name = step.claim, step.volume.metadata.name
        # Asked of the server itself: a backend is not changed on a copy's word.
        document = await self._client.get(PERSISTENT_VOLUMES, name)
        reference = document["spec"].get("claimRef") or {}
        if reference.get("uid") != claim.metadata.uid:
            return None
        provisioner = self._growers[step.provisioner]
        key = (claim.metadata.namespace, claim.metadata.name)
        try:
            grown = await provisioner.grow(
                _source_of(document), document["metadata"].get("annotations") or {},
                step.target_bytes,
            )  # fmt: skip
        except DriverError as error:
            return await self._refuse(step, key, error)
        self._failures.pop(key, None)
        size = format_size(max(grown.capacity_bytes, step.target_bytes))
        node_half = grown.node_half and step.volume.spec.volume_mode != "Block"
        change: Document = {
            "metadata": {
                "resourceVersion": document["metadata"]["resourceVersion"],
                "annotations": {NODE_RESIZE: None if node_half else "false"},
            },
            "spec": {"capacity": {"storage": size}},
        }
        await self._client.patch(PERSISTENT_VOLUMES, name, change)
        _log.info("volume grown", volume=name, size=size, evidence=grown.evidence)
        return None

    async def _refuse(self, step: Enlarge, key: Key, error: DriverError) -> float | None:
        claim = step.claim
        remedy = f"; {error.remedy}" if error.remedy else ""
        target = format_size(step.target_bytes)
        text = (
            f"resize volume {step.volume.metadata.name} to {target} by {step.provisioner} failed:"
            f" {error}{remedy}"
        )
        self._events.warning(_subject(claim), "VolumeResizeFailed", text)
        before = self._failures.get(key)
        count = before.count + 1 if before is not None else 1
        delay_s = math.inf
        if not isinstance(error, Rejected):
            delay_s = BACKEND_RETRY.delay_s(count, random.random())
        self._failures[key] = _Failure(count, self._clock.monotonic() + delay_s)
        if isinstance(error, Rejected | OutOfSpace):
            now = format_time(self._clock.wall())
            await self._write(claim, status_refused(claim, target, f"{error}{remedy}", now))
        return delay_s if delay_s < math.inf else None

    async def _write(self, claim: PersistentVolumeClaim, status: Document) -> None:
        metadata = claim.metadata
        body = {"metadata": {"resourceVersion": metadata.resource_version}, "status": status}
        await self._client.patch(
            CLAIMS, metadata.name, body, metadata.namespace, subresource="status"
        )

    def _tell(self, claim: PersistentVolumeClaim, reason: str, message: str) -> None:
        self._events.normal(_subject(claim), reason, message)


def format_size(size_bytes: int) -> str:
    """A size as a quantity, in binary units where it is a whole number of MiB."""
    whole = size_bytes % (1 << 20) == 0
    return canonical_quantity(f"{size_bytes >> 20}Mi") if whole else str(size_bytes)


def _source_of(volume: Document) -> Document:
    return {kind: body for kind, body in volume["spec"].items() if kind in PV_SOURCES}


def _subject(claim: PersistentVolumeClaim) -> Subject:
    return subject_of("PersistentVolumeClaim", claim.metadata)
