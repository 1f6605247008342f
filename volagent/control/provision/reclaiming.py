"""The volumes' half: from a released volume to its data in the trash and its object gone.

Every step is decided on what the server has, claim included. The object is marked as going before
the backend is asked: from there on no claim can bind it, however long the backend takes.
"""

from volagent.client.contract import CLAIMS, PERSISTENT_VOLUMES, NotFound
from volagent.client.events import subject_of
from volagent.control.finalizers import put_on, take_off
from volagent.control.provision.asking import (
    Failures,
    Surroundings,
    ask,
    storage_node_behind,
    tell_failure,
)
from volagent.control.provision.decide import (
    Doom,
    Forget,
    Protect,
    Reclaim,
    VolumeStep,
    decide_volume,
    is_within_reach,
    maker_of,
)
from volagent.control.provision.documents import reclaim_request_of
from volagent.control.provision.reading import read_claim, read_volume
from volagent.drivers.errors import DriverError
from volagent.objects.annotations import RECLAIM_PROTECTION
from volagent.objects.meta import Document
from volagent.objects.storage import PersistentVolume, PersistentVolumeClaim
from volagent.observe.logs import get_logger

STEPS_LIMIT = 5
"""Steps in one go: three end a volume, so more mean that somebody works against it."""
KEEP_HINT = "to keep the data and let the object go, set persistentVolumeReclaimPolicy to Retain"

_log = get_logger("reclaim")


class Reclaimer:
    """Ends volumes that we made."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._client = around.client
        self.failures: Failures[str] = Failures(around.clock)

    def is_ours(self, volume: PersistentVolume) -> bool:
        """Whether a provisioner of this process made the volume and can reach it."""
        provisioner = self._around.provisioners.get(maker_of(volume))
        if provisioner is None:
            return False
        return is_within_reach(
            volume, provisioner.node, self._around.node_of(provisioner),
            storage_node_behind(provisioner),
        )  # fmt: skip

    def next_step(self, volume: PersistentVolume) -> VolumeStep | None:
        """What is to be done for a volume, as far as the shared copies tell."""
        if not self.is_ours(volume):
            return None
        reference = volume.spec.claim_ref
        claim = None
        if reference is not None:
            claim = self._around.copies.claims.get(reference.namespace, reference.name)
        return decide_volume(volume, claim)

    async def work(self, volume: PersistentVolume) -> float | None:
        """Take a volume as far as it goes; seconds until it wants to be looked at again."""
        name = volume.metadata.name
        if self.next_step(volume) is None:
            return None
        if self.failures.is_resting(name):
            return self.failures.left_s(name)
        document: Document | None = await self._client.get(PERSISTENT_VOLUMES, name)
        for _ in range(STEPS_LIMIT):
            if document is None:
                return None
            live = read_volume(document)
            if not self.is_ours(live):
                return None
            match decide_volume(live, await self._fetch_claim(live)):
                case Protect():
                    document = await put_on(
                        self._client, PERSISTENT_VOLUMES, document, RECLAIM_PROTECTION
                    )
                case Doom():
                    document = await self._doom(document)
                case Reclaim():
                    return await self._reclaim(document, live)
                case Forget():
                    await take_off(self._client, PERSISTENT_VOLUMES, document, RECLAIM_PROTECTION)
                    _log.info("volume let go, its policy is Retain", volume=name)
                    return None
                case None:
                    return None
        return None

    async def _fetch_claim(self, volume: PersistentVolume) -> PersistentVolumeClaim | None:
        """The volume's claim as the server has it: none is given up on a copy's word."""
        reference = volume.spec.claim_ref
        if reference is None:
            return None
        try:
            found = await self._client.get(CLAIMS, reference.name, reference.namespace)
        except NotFound:
            return None
        return read_claim(found)

    async def _doom(self, document: Document) -> Document:
        metadata = document["metadata"]
        return await self._client.delete(
            PERSISTENT_VOLUMES, metadata["name"],
            uid=metadata["uid"], resource_version=metadata["resourceVersion"],
        )  # fmt: skip

    async def _reclaim(self, document: Document, volume: PersistentVolume) -> float | None:
        name = volume.metadata.name
        provisioner = self._around.provisioners[maker_of(volume)]
        request = reclaim_request_of(document, self._around.default_keep_s)
        try:
            done = await ask(
                provisioner.reclaim(request), f"provisioner {provisioner.name}",
                lambda text: self._warn(volume, text),
            )  # fmt: skip
        except DriverError as error:
            return await self._fail(document, volume, error)
        await take_off(self._client, PERSISTENT_VOLUMES, document, RECLAIM_PROTECTION)
        self.failures.forget(name)
        _log.info("volume reclaimed", volume=name, keep_s=request.keep_s, evidence=done.evidence)
        return None

    async def _fail(
        self, document: Document, volume: PersistentVolume, error: DriverError
    ) -> float | None:
        name, text = volume.metadata.name, tell_failure(error)
        delay_s = self.failures.note(name, error)
        self._warn(volume, text if delay_s is not None else f"{text}; {KEEP_HINT}")
        status = {"phase": "Failed", "message": text, "reason": "VolumeFailedDelete"}
        change = {
            "metadata": {"resourceVersion": document["metadata"]["resourceVersion"]},
            "status": status,
        }
        await self._client.patch(PERSISTENT_VOLUMES, name, change, subresource="status")
        return delay_s

    def _warn(self, volume: PersistentVolume, message: str) -> None:
        subject = subject_of("PersistentVolume", volume.metadata)
        self._around.events.warning(subject, "VolumeFailedDelete", message)
