"""Carries out what `decide` says: puts protection on, and takes it off what is not in use.

Event-driven: a change of a claim, a volume or a pod marks what it concerns. Nothing loses its
protection on a copy's word: the server is asked for the object, its pods or its claim first.
"""

import asyncio

import msgspec

from volagent.aio.queue import KeyedQueue
from volagent.aio.tasks import Supervisor
from volagent.client.contract import (
    CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    ApiError,
    Client,
    NotFound,
    Resource,
    Selection,
)
from volagent.client.informer import Key
from volagent.client.shared import SharedCopies
from volagent.control.finalizers import put_on, take_off
from volagent.control.protect.decide import Step, claims_of, decide_claim, decide_volume
from volagent.objects.annotations import CLAIM_PROTECTION, VOLUME_PROTECTION
from volagent.objects.meta import Document
from volagent.objects.pod import Pod, read_pod
from volagent.objects.storage import PersistentVolume, PersistentVolumeClaim
from volagent.observe.logs import get_logger

WORKERS = 8
RETRY_S = 2.0
"""After a failed read or write the key waits so long."""

_FINALIZERS = {CLAIMS: CLAIM_PROTECTION, PERSISTENT_VOLUMES: VOLUME_PROTECTION}
_Item = tuple[Resource, str, str]
"""Claims or volumes, namespace, name."""

_log = get_logger("protection")


class ProtectionController:
    """Keeps claims and volumes while they are in use."""

    def __init__(self, copies: SharedCopies, client: Client) -> None:
        self._copies = copies
        self._client = client
        self._queue: KeyedQueue[_Item] | None = None
        copies.claims.listen(self._claim_changed)
        copies.volumes.listen(self._volume_changed)
        copies.pods.listen(self._pod_changed)

    async def run(self) -> None:
        """Protect, for ever."""
        await self._copies.wait_synced()
        async with Supervisor() as tasks:
            queue = self._queue = KeyedQueue("protect", self._work, tasks.start, width=WORKERS)
            for claim in self._copies.claims.values():
                self._mark_claim(claim)
            for volume in self._copies.volumes.values():
                self._mark_volume(volume)
            try:
                await asyncio.Event().wait()
            finally:
                queue.stop()

    # -- what a change concerns --------------------------------------------------------------

    def _claim_changed(
        self, _key: Key, old: PersistentVolumeClaim | None, new: PersistentVolumeClaim | None
    ) -> None:
        if new is not None:
            self._mark_claim(new)
        for claim in (old, new):
            volume = self._copies.volumes.get("", claim.spec.volume_name) if claim else None
            if volume is not None:
                self._mark_volume(volume)

    def _volume_changed(
        self, _key: Key, _old: PersistentVolume | None, new: PersistentVolume | None
    ) -> None:
        if new is not None:
            self._mark_volume(new)

    def _pod_changed(self, _key: Key, old: Pod | None, _new: Pod | None) -> None:
        if old is None or not old.spec.node_name:
            return  # what it may begin to use is asked of the server when it matters
        for name in sorted(claims_of(old)):
            claim = self._copies.claims.get(old.metadata.namespace, name)
            if claim is not None:
                self._mark_claim(claim)

    def _mark_claim(self, claim: PersistentVolumeClaim) -> None:
        if self._queue is not None and decide_claim(claim, ()) is not None:
            self._queue.mark((CLAIMS, claim.metadata.namespace, claim.metadata.name))

    def _mark_volume(self, volume: PersistentVolume) -> None:
        if self._queue is not None and decide_volume(volume, None) is not None:
            self._queue.mark((PERSISTENT_VOLUMES, "", volume.metadata.name))

    # -- work --------------------------------------------------------------------------------

    async def _work(self, item: _Item) -> float | None:
        resource, namespace, name = item
        try:
            document = await self._client.get(resource, name, namespace)
            decide = self._decide_claim if resource is CLAIMS else self._decide_volume
            match await decide(document):
                case Step.PROTECT:
                    await put_on(self._client, resource, document, _FINALIZERS[resource])
                case Step.RELEASE:
                    await take_off(self._client, resource, document, _FINALIZERS[resource])
                    _log.info(
                        "no longer in use", kind=resource.kind, namespace=namespace, name=name
                    )
                case None:
                    pass
        except NotFound:
            return None
        except ApiError as error:
            _log.warning("protection interrupted", name=name, error=error.message)
            return RETRY_S
        return None

    async def _decide_claim(self, document: Document) -> Step | None:
        claim = msgspec.convert(document, PersistentVolumeClaim)
        step = decide_claim(claim, ())
        if step is not Step.RELEASE:
            return step
        listing = await self._client.list(PODS, Selection(namespace=claim.metadata.namespace))
        return decide_claim(claim, [read_pod(pod) for pod in listing.items])

    async def _decide_volume(self, document: Document) -> Step | None:
        volume = msgspec.convert(document, PersistentVolume)
        reference = volume.spec.claim_ref
        claim = None
        if reference is not None:
            try:
                found = await self._client.get(CLAIMS, reference.name, reference.namespace)
                claim = msgspec.convert(found, PersistentVolumeClaim)
            except NotFound:
                pass  # nobody has it
        return decide_volume(volume, claim)
