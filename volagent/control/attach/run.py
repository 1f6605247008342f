"""Carries out what `decide` says: the attach/detach controller.

One disk at a time, disks side by side. Everything is derived from the stored objects, so another
process can go on from between any two writes.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from volagent.aio.backoff import BackOff
from volagent.aio.clock import Clock, format_time
from volagent.aio.queue import KeyedQueue
from volagent.aio.tasks import Supervisor
from volagent.client.contract import (
    VOLUME_ATTACHMENTS,
    AlreadyExists,
    ApiError,
    Client,
    Conflict,
    NotFound,
)
from volagent.client.events import EventRecorder, Subject
from volagent.client.informer import Key
from volagent.client.shared import SharedCopies
from volagent.control.attach.decide import (
    Attach,
    Await,
    Create,
    Refuse,
    Release,
    Standing,
    Step,
    Tell,
    Withdraw,
    decide_disk,
    find_remedy,
)
from volagent.control.attach.documents import (
    attachment_document,
    status_attached,
    status_error,
    status_lost,
    without_finalizer,
)
from volagent.control.attach.nodes import AttachedLists
from volagent.control.attach.showing import ask_to_hide, ask_to_show
from volagent.control.attach.wants import Want, WantFinder, WantIndex, claims_of
from volagent.control.attach.world import AttachmentWorld
from volagent.drivers.attaching.contract import Attacher, AttacherTable, Placed, Verifies
from volagent.drivers.contract import DriverName
from volagent.drivers.errors import DriverError, Transient
from volagent.objects.attachments import VolumeAttachment, split_name
from volagent.objects.pod import Pod
from volagent.objects.storage import PersistentVolume, PersistentVolumeClaim
from volagent.objects.storage_nodes import storage_node_of
from volagent.observe.attachments import (
    ACTUAL,
    DESIRED,
    FENCED,
    OFF,
    AttachmentCounts,
    showing_attachments,
)
from volagent.observe.logs import get_logger

WORKERS: Final = 64
RETRY_S: Final = 1.0
VERIFY_S: Final = 60.0
BACKEND_RETRY: Final = BackOff(first_s=1.0, max_s=300.0)

_log = get_logger("attach")


class AttachController:
    """Decides which node has which disk."""

    def __init__(
        self,
        copies: SharedCopies,
        client: Client,
        events: EventRecorder,
        attachers: AttacherTable,
        clock: Clock,
    ) -> None:
        """Before `copies.run`."""
        self._copies = copies
        self._client = client
        self._events = events
        self._attachers = attachers
        self._clock = clock
        self._finder = WantFinder(attachers, copies.claims.get, copies.volumes.get)
        self._wants = WantIndex()
        self._lists = AttachedLists(client)
        self._failures: dict[str, int] = {}
        self._told: dict[str, set[tuple[str, str]]] = {}
        """Per disk, what pods were told about it: uid and text."""
        self._forced: Counter[str] = Counter()
        self._queue: KeyedQueue[str] | None = None
        self._world = AttachmentWorld(copies, self._mark)
        copies.pods.listen(self._pod_changed)
        copies.claims.listen(self._claim_changed)
        copies.volumes.listen(self._volume_changed)

    async def run(self) -> None:
        """Attach and detach, for ever."""
        await self._copies.wait_synced()
        with showing_attachments(self._count):
            async with Supervisor() as tasks:
                self._queue = KeyedQueue("attach", self._work, tasks.start, width=WORKERS)
                for pod in tuple(self._copies.pods.values()):
                    self._find_wants(pod)
                for volume in sorted(self._world.volumes()):
                    self._mark(volume)
                if any(isinstance(each, Verifies) for each in self._attachers.values()):
                    self._verifying = tasks.start_loop("verify", self._verify_again_and_again())
                try:
                    await asyncio.Event().wait()
                finally:
                    self._queue.stop()

    # -- what a change concerns --------------------------------------------------------------

    def _mark(self, volume: str) -> None:
        if self._queue is not None:
            self._queue.mark(volume)

    def _pod_changed(self, key: Key, old: Pod | None, new: Pod | None) -> None:
        self._wants.name_claims(key, claims_of(old), claims_of(new))
        if self._queue is None:
            return
        if new is not None:
            self._find_wants(new)
        else:
            self._put(key, [])

    def _claim_changed(
        self, key: Key, _old: PersistentVolumeClaim | None, _new: PersistentVolumeClaim | None
    ) -> None:
        if self._queue is None:
            return
        for namespace, name in sorted(self._wants.pods_of_claim(key)):
            pod = self._copies.pods.get(namespace, name)
            if pod is not None:
                self._find_wants(pod)

    def _volume_changed(
        self, _key: Key, _old: PersistentVolume | None, new: PersistentVolume | None
    ) -> None:
        reference = new.spec.claim_ref if new is not None else None
        if reference is not None:
            self._claim_changed((reference.namespace, reference.name), None, None)

    def _find_wants(self, pod: Pod) -> None:
        self._put((pod.metadata.namespace, pod.metadata.name), self._finder.find(pod))

    def _put(self, pod: Key, wants: list[Want]) -> None:
        for volume in sorted(self._wants.put(pod, wants)):
            self._failures.pop(volume, None)
            self._mark(volume)

    # -- work --------------------------------------------------------------------------------

    async def _work(self, volume: str) -> float | None:
        wants = self._wants.of_volume(volume)
        steps = decide_disk(wants, self._world.standings(volume), self._world.barred(volume))
        self._forget_told(volume, wants)
        again_s: list[float] = []
        for step in steps:
            try:
                again = await self._carry_out(volume, step)
            except (Conflict, NotFound, AlreadyExists):
                again = RETRY_S  # it changed meanwhile; the change may have been seen already
            except ApiError as error:
                _log.warning("attachment interrupted", volume=volume, error=error.message)
                again = RETRY_S
            if again is not None:
                again_s.append(again)
        return min(again_s, default=None)

    async def _carry_out(self, volume: str, step: Step) -> float | None:
        match step:
            case Create(want):
                await self._client.create(VOLUME_ATTACHMENTS, attachment_document(want))
            case Attach():
                return await self._attach(volume, step)
            case Tell(standing):
                await self._lists.add(volume, standing)
            case Release(standing):
                await self._client.delete(VOLUME_ATTACHMENTS, standing.attachment, uid=standing.uid)
            case Withdraw(standing):
                return await self._withdraw(volume, standing)
            case Refuse(want, reason):
                self._tell_once(volume, want, "FailedAttachVolume", reason)
            case Await():
                pass  # the node's next word marks the disk
        return None

    async def _attach(self, volume: str, step: Attach) -> float | None:
        attachment = await self._read(step.standing)
        placed = self._placed(volume, attachment)
        if placed.source is None or attachment.metadata.deletion_timestamp is not None:
            return None
        storage_node = self._storage_node_of(attachment)
        try:
            if storage_node:
                shown_as = await ask_to_show(self._client, attachment, storage_node)
                if not shown_as:
                    return None  # its word marks the disk
                facts: Mapping[str, str] = {"shown-by": storage_node, "shown-as": shown_as}
            else:
                facts = await self._attacher_of(volume).attach(placed)
        except DriverError as error:
            return await self._failed(volume, attachment, error, step.wants)
        status = status_attached(attachment, facts)
        await self._client.patch(
            VOLUME_ATTACHMENTS, attachment.metadata.name, status, subresource="status"
        )
        self._failures.pop(volume, None)
        for want in step.wants:
            text = f'AttachVolume.Attach succeeded for volume "{want.label}"'
            self._events.normal(_subject(want), "SuccessfulAttachVolume", text)
        _log.info("attached", volume=volume, node=placed.node)
        return None

    async def _withdraw(self, volume: str, standing: Standing) -> float | None:
        """From the Node first, and on its word as it is now; then from the storage."""
        if not await self._lists.remove(volume, standing):
            return None  # it is used again: the node says when it is not
        if standing.proof and standing.in_use:
            _log.warning(
                "taken from a node by proof", volume=volume, node=standing.node,
                proof=standing.proof,
            )  # fmt: skip
        if not standing.attachment:
            return None
        attachment = await self._read(standing)
        try:
            if not await ask_to_hide(self._client, attachment):
                return None  # the storage node's word marks the disk
            await self._attacher_of(volume).detach(self._placed(volume, attachment))
        except DriverError as error:
            return await self._failed(volume, attachment, error, ())
        await self._client.patch(
            VOLUME_ATTACHMENTS, attachment.metadata.name, without_finalizer(attachment)
        )
        self._failures.pop(volume, None)
        if standing.proof and standing.in_use:
            self._forced[OFF if standing.off else FENCED] += 1
        _log.info("detached", volume=volume, node=standing.node)
        return None

    async def _failed(
        self,
        volume: str,
        attachment: VolumeAttachment,
        error: DriverError,
        wants: Sequence[Want],
    ) -> float:
        """Note it where people look, and try again later."""
        text = f"{error} ({error.remedy})" if error.remedy else str(error)
        for want in wants:
            reason = f'AttachVolume.Attach failed for volume "{want.label}" : {text}'
            self._tell_once(volume, want, "FailedAttachVolume", reason)
        if text not in _errors_of(attachment):  # each write is a change, which is looked at
            status = status_error(attachment, text, format_time(self._clock.wall()))
            await self._client.patch(
                VOLUME_ATTACHMENTS, attachment.metadata.name, status, subresource="status"
            )
        _log.warning("storage refused", volume=volume, node=attachment.spec.node_name, error=text)
        count = self._failures[volume] = self._failures.get(volume, 0) + 1
        return BACKEND_RETRY.delay_s(count, random.random())

    async def _read(self, standing: Standing) -> VolumeAttachment:
        """The attachment that was judged, as it is now. Raises `Conflict` when it is another."""
        document = await self._client.get(VOLUME_ATTACHMENTS, standing.attachment)
        attachment = self._world.decode(document)
        if attachment.metadata.uid != standing.uid:
            raise Conflict(f"{standing.attachment} is another one now")
        return attachment

    def _storage_node_of(self, attachment: VolumeAttachment) -> str:
        """The storage node that has the volume, if one has."""
        name = attachment.spec.source.persistent_volume_name
        volume = self._copies.volumes.get("", name) if name else None
        return storage_node_of(volume.metadata) if volume is not None else ""

    def _placed(self, volume: str, attachment: VolumeAttachment) -> Placed:
        source = self._finder.source_named(attachment.spec.source)
        facts = attachment.status.attachment_metadata or {}
        return Placed(split_name(volume)[1], attachment.spec.node_name, source, facts)

    def _attacher_of(self, volume: str) -> Attacher:
        """Raises `Transient` for a disk that this server was once able to attach."""
        driver = self._world.driver_of(volume)
        try:
            return self._attachers[driver]
        except KeyError:
            raise Transient(
                f"this server cannot attach or detach disks of {driver}",
                remedy="see its settings: what was attached by it has to be detached by it",
            ) from None

    async def _verify_again_and_again(self) -> None:
        while True:
            await asyncio.sleep(VERIFY_S)
            for driver, attacher in self._attachers.items():
                if isinstance(attacher, Verifies):
                    await self._verify(driver, attacher)

    async def _verify(self, driver: DriverName, attacher: Verifies) -> None:
        """An attachment that its storage does not know any more is made again."""
        held = [
            (self._placed(volume, attachment), attachment)
            for volume, attachment in self._world.attached_by(driver)
        ]
        try:
            lost = await attacher.find_lost([placed for placed, _ in held]) if held else ()
        except DriverError as error:
            _log.warning("attachments not verified", driver=driver, error=str(error))
            return
        for placed, attachment in held:
            if placed not in lost:
                continue
            change = status_lost(attachment)
            name = attachment.metadata.name
            try:
                await self._client.patch(VOLUME_ATTACHMENTS, name, change, subresource="status")
            except ApiError as error:
                _log.warning("lost attachment not noted", name=name, error=error.message)
            else:
                _log.warning("attachment lost", name=name, node=placed.node)

    def _count(self) -> AttachmentCounts:
        volumes: Counter[tuple[str, str]] = Counter(
            (self._world.driver_of(volume), ACTUAL) for volume in self._world.volumes()
        )
        in_use: Counter[tuple[str, str]] = Counter()
        for volume, wants in self._wants.by_volume():
            driver = self._world.driver_of(volume)
            volumes[driver, DESIRED] += 1
            in_use.update({(want.node, driver) for want in wants})
        return AttachmentCounts(volumes, in_use, self._forced)

    # -- what pods are told ------------------------------------------------------------------

    def _tell_once(self, volume: str, want: Want, reason: str, text: str) -> None:
        told = self._told.setdefault(volume, set())
        if (want.uid, text) not in told:
            told.add((want.uid, text))
            self._events.warning(_subject(want), reason, text)

    def _forget_told(self, volume: str, wants: Sequence[Want]) -> None:
        uids = {want.uid for want in wants}
        left = {each for each in self._told.get(volume, ()) if each[0] in uids}
        if left:
            self._told[volume] = left
        else:
            self._told.pop(volume, None)

    def find_holder(self, pod: Pod, use: str) -> tuple[str, str]:
        """Who keeps a disk that a pod waits for, and the disk's unique name; or "" and "".

        That may be the pod's own node, which is lost and has its permission no more.
        """
        for want in self._finder.find(pod):
            if want.use == use:
                for standing in self._world.standings(want.volume):
                    if standing.must_stay:
                        return standing.node, want.volume
        return "", ""

    def explain(self, pod: Pod) -> Iterator[tuple[str, tuple[str, str]]]:
        """For each disk of a pod, by the pod's name for it: why it is not attached, and a remedy.

        Both are "" for a disk that is.
        """
        for want in self._finder.find(pod):
            standings = self._world.standings(want.volume)
            barred = self._world.barred(want.volume)
            steps = decide_disk(self._wants.of_volume(want.volume), standings, barred)
            refused = (s.reason for s in steps if isinstance(s, Refuse) and s.want.uid == want.uid)
            reason = next(refused, "")
            here = next((s for s in standings if s.node == want.node and s.told), None)
            if not reason and here is None:
                reason = self._world.error_of(want.volume) or "it is being attached"
            stuck = [s for s in steps if isinstance(s, Await)]
            yield want.use, (reason, find_remedy(stuck[0].standing) if reason and stuck else "")


def _errors_of(attachment: VolumeAttachment) -> set[str]:
    status = attachment.status
    return {each.message for each in (status.attach_error, status.detach_error) if each is not None}


def _subject(want: Want) -> Subject:
    return Subject("Pod", want.pod[0], want.pod[1], want.uid)
