"""Carries out what `decide` says, claim by claim and volume by volume.

A change of either marks it and its counterparts; a worker then takes it as far as it goes, each
write conditional on the version that was decided on. A lost race is not retried here: the change
that won marks the key again. Needs nothing but a client, so that it can run anywhere.
"""

import asyncio
from collections.abc import Hashable
from typing import Any, TypeVar

import msgspec

from volagent.aio.queue import KeyedQueue
from volagent.aio.tasks import Supervisor
from volagent.client.contract import (
    CLAIMS,
    PERSISTENT_VOLUMES,
    ApiError,
    Client,
    Conflict,
    NotFound,
    Selection,
)
from volagent.client.events import EventRecorder, subject_of
from volagent.client.informer import Informer, Key
from volagent.control.bind.decide import (
    FreeVolume,
    NameVolume,
    ReserveVolume,
    SetClaimPhase,
    SetVolumePhase,
    Step,
    Verdict,
    decide_claim,
    decide_volume,
    reference_to,
)
from volagent.objects.annotations import BIND_COMPLETED, BOUND_BY_CONTROLLER
from volagent.objects.meta import Document
from volagent.objects.storage import PersistentVolume, PersistentVolumeClaim
from volagent.observe.logs import get_logger

STEPS_LIMIT = 8
"""Steps in one go: four make a binding, so more mean that somebody works against it."""
WORKERS = 16
RETRY_S = 2.0
"""After a failed write (the server cannot store it now) the key waits so long."""

_CLAIM, _VOLUME = "claim", "volume"
_Item = tuple[str, str, str]
"""`_CLAIM` or `_VOLUME`, namespace, name."""
V = TypeVar("V", bound=Hashable)

_log = get_logger("binder")


class Binder:
    """Binds claims that name their volume, and volumes that name their claim."""

    def __init__(self, client: Client, events: EventRecorder) -> None:
        self._client = client
        self._events = events
        self._claims = Informer(client, CLAIMS, Selection(), _read_claim, self._claim_changed)
        self._volumes = Informer(
            client, PERSISTENT_VOLUMES, Selection(), _read_volume, self._volume_changed
        )
        self._naming: dict[str, set[Key]] = {}
        """Volume → the claims that name it."""
        self._reserving: dict[Key, set[str]] = {}
        """Claim → the volumes that name it."""
        self._queue: KeyedQueue[_Item] | None = None

    async def run(self) -> None:
        """Bind, for ever."""
        async with Supervisor() as tasks:
            loops = (
                tasks.start_loop("binder's claims", self._claims.run()),
                tasks.start_loop("binder's volumes", self._volumes.run()),
            )
            await self._claims.synced.wait()
            await self._volumes.synced.wait()
            # Only now: a volume whose claim is merely not listed yet must not look abandoned.
            queue = self._queue = KeyedQueue("bind", self._work, tasks.start, width=WORKERS)
            for claim in self._claims.values():
                queue.mark((_CLAIM, claim.metadata.namespace, claim.metadata.name))
            for volume in self._volumes.values():
                queue.mark((_VOLUME, "", volume.metadata.name))
            try:
                await asyncio.wait(loops)
            finally:
                queue.stop()

    # -- what a change concerns --------------------------------------------------------------

    def _claim_changed(
        self, key: Key, old: PersistentVolumeClaim | None, new: PersistentVolumeClaim | None
    ) -> None:
        for claim, note in ((old, _discard), (new, _add)):
            if claim is not None and claim.spec.volume_name:
                note(self._naming, claim.spec.volume_name, key)
                self._mark(_VOLUME, ("", claim.spec.volume_name))
        self._mark(_CLAIM, key)
        for name in self._reserving.get(key, ()):
            self._mark(_VOLUME, ("", name))

    def _volume_changed(
        self, key: Key, old: PersistentVolume | None, new: PersistentVolume | None
    ) -> None:
        name = key[1]
        for volume, note in ((old, _discard), (new, _add)):
            if volume is not None and volume.spec.claim_ref is not None:
                reference = volume.spec.claim_ref
                note(self._reserving, (reference.namespace, reference.name), name)
                self._mark(_CLAIM, (reference.namespace, reference.name))
        self._mark(_VOLUME, key)
        for claim in self._naming.get(name, ()):
            self._mark(_CLAIM, claim)

    def _mark(self, kind: str, key: Key) -> None:
        if self._queue is not None:
            self._queue.mark((kind, *key))

    # -- work --------------------------------------------------------------------------------

    async def _work(self, item: _Item) -> float | None:
        kind, namespace, name = item
        try:
            if kind == _CLAIM:
                await self._work_on_claim(namespace, name)
            else:
                await self._work_on_volume(name)
        except (Conflict, NotFound):
            return None  # it changed meanwhile: that change marks it again
        except ApiError as error:
            _log.warning("binding interrupted", kind=kind, name=name, error=error.message)
            return RETRY_S
        return None

    async def _work_on_claim(self, namespace: str, name: str) -> None:
        claim = self._claims.get(namespace, name)
        known: dict[str, PersistentVolume] = {}
        for _ in range(STEPS_LIMIT):
            if claim is None:
                return
            named = self._volume(claim.spec.volume_name, known)
            reserved = [
                volume
                for each in self._reserving.get((namespace, name), ())
                if (volume := self._volume(each, known)) is not None
            ]
            verdict = decide_claim(claim, named, reserved)
            self._tell("PersistentVolumeClaim", claim, verdict)
            if verdict.step is None:
                return
            written = await self._carry_out(verdict.step)
            if isinstance(written, PersistentVolume):
                known[written.metadata.name] = written
            else:
                claim = written

    async def _work_on_volume(self, name: str) -> None:
        volume = self._volumes.get("", name)
        for _ in range(STEPS_LIMIT):
            if volume is None:
                return
            reference = volume.spec.claim_ref
            claim = (
                self._claims.get(reference.namespace, reference.name)
                if reference is not None
                else None
            )
            verdict = decide_volume(volume, claim)
            if isinstance(verdict.step, SetVolumePhase) and verdict.step.phase == "Released":
                claim = await self._look_again(volume)
                verdict = decide_volume(volume, claim)
            self._tell("PersistentVolume", volume, verdict)
            if verdict.step is None:
                return
            written = await self._carry_out(verdict.step)
            assert isinstance(written, PersistentVolume)
            volume = written

    async def _look_again(self, volume: PersistentVolume) -> PersistentVolumeClaim | None:
        """The volume's claim, asked for directly: a volume is not given up on a cache's word."""
        reference = volume.spec.claim_ref
        assert reference is not None
        try:
            found = await self._client.get(CLAIMS, reference.name, reference.namespace)
        except NotFound:
            return None
        return _read_claim(found)

    def _volume(self, name: str, known: dict[str, PersistentVolume]) -> PersistentVolume | None:
        """A volume as this run last wrote it, else as the informer has it."""
        if not name:
            return None
        return known.get(name) or self._volumes.get("", name)

    async def _carry_out(self, step: Step) -> PersistentVolume | PersistentVolumeClaim:
        """Write one step; the object as it is now."""
        body, subresource = patch_of(step)
        if isinstance(step, NameVolume | SetClaimPhase):
            metadata = step.claim.metadata
            document = await self._client.patch(
                CLAIMS, metadata.name, body, metadata.namespace, subresource=subresource
            )
            written: PersistentVolume | PersistentVolumeClaim = _read_claim(document)
        else:
            metadata = step.volume.metadata
            document = await self._client.patch(
                PERSISTENT_VOLUMES, metadata.name, body, subresource=subresource
            )
            written = _read_volume(document)
        _log.info("binding advanced", step=step.describe())
        return written

    def _tell(
        self, kind: str, about: PersistentVolume | PersistentVolumeClaim, verdict: Verdict
    ) -> None:
        report = verdict.report
        if report is not None:
            subject = subject_of(kind, about.metadata)
            self._events.warning(subject, report.reason, report.message)


def patch_of(step: Step) -> tuple[Document, str]:
    """The merge patch that writes a step, on the version it was decided on; its sub-resource."""
    match step:
        case ReserveVolume(volume, claim):
            made_here = volume.spec.claim_ref is None
            annotations: dict[str, Any] = {BOUND_BY_CONTROLLER: "yes"} if made_here else {}
            reference = msgspec.to_builtins(reference_to(claim))
            return _patch(volume.metadata.resource_version, annotations, claimRef=reference), ""
        case FreeVolume(volume):
            if BOUND_BY_CONTROLLER in (volume.metadata.annotations or {}):
                annotations = {BOUND_BY_CONTROLLER: None}
                return _patch(volume.metadata.resource_version, annotations, claimRef=None), ""
            # Somebody else reserved it: the reservation stays, open for a new claim of that name.
            nobody = {"uid": None, "resourceVersion": None}
            return _patch(volume.metadata.resource_version, {}, claimRef=nobody), ""
        case SetVolumePhase(volume, phase):
            version = volume.metadata.resource_version
            return _status(version, phase=phase, message=None, reason=None), "status"
        case NameVolume(claim, volume):
            annotations = {BIND_COMPLETED: "yes"}
            if not claim.spec.volume_name:
                annotations[BOUND_BY_CONTROLLER] = "yes"
            version = claim.metadata.resource_version
            return _patch(version, annotations, volumeName=volume.metadata.name), ""
        case SetClaimPhase(claim, phase, volume):
            version = claim.metadata.resource_version
            if volume is None:
                return _status(version, phase=phase, accessModes=None, capacity=None), "status"
            status: dict[str, Any] = {"phase": phase, "accessModes": volume.spec.access_modes}
            if claim.status.phase != "Bound" or not claim.status.capacity:
                # Once bound it does not follow the volume: growing is a request of its own.
                status["capacity"] = volume.spec.capacity
            return _status(version, **status), "status"


def _patch(version: str, annotations: dict[str, Any], **spec: Any) -> Document:
    metadata: dict[str, Any] = {"resourceVersion": version}
    if annotations:
        metadata["annotations"] = annotations
    return {"metadata": metadata, "spec": spec}


def _status(version: str, **status: Any) -> Document:
    return {"metadata": {"resourceVersion": version}, "status": status}


def _add(index: dict[Any, set[V]], key: Any, value: V) -> None:
    index.setdefault(key, set()).add(value)


def _discard(index: dict[Any, set[V]], key: Any, value: V) -> None:
    values = index.get(key)
    if values is not None:
        values.discard(value)
        if not values:
            del index[key]


def _read_claim(document: Document) -> PersistentVolumeClaim:
    return msgspec.convert(document, PersistentVolumeClaim)


def _read_volume(document: Document) -> PersistentVolume:
    return msgspec.convert(document, PersistentVolume)
