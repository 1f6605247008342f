"""Carries out what `decide` says, claim by claim and volume by volume.

A change of either marks it and its counterparts; a worker then takes it as far as it goes, each
write conditional on the version that was decided on. A lost race is not retried here: the change
that won marks the key again. A volume that was chosen is held back from other claims until the
store has seen it bound, or the write failed.

Claims that found nothing wait in `Offers`: a volume that becomes free wakes the one of them that it
suits best. What a claim waits for is told when it has waited for `GRACE_S`, so that a claim that
was merely faster than its volume leaves no event.
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
    STORAGE_CLASSES,
    ApiError,
    Client,
    Conflict,
    NotFound,
)
from volagent.client.events import EventRecorder, subject_of
from volagent.client.informer import Key
from volagent.client.shared import SharedCopies
from volagent.control.bind.decide import (
    NOTHING,
    AskProvisioner,
    BindClaim,
    BindVolume,
    ChooseClass,
    FreeVolume,
    Outlook,
    SetClaimPhase,
    SetVolumePhase,
    Step,
    Verdict,
    decide_claim,
    decide_volume,
)
from volagent.control.bind.offers import Offers
from volagent.control.bind.patches import patch_of
from volagent.control.bind.rejections import summarize_rejections
from volagent.objects.annotations import SELECTED_NODE
from volagent.objects.classes import choose_default_class, class_of_claim
from volagent.objects.node_affinity import admits_node
from volagent.objects.pod import Pod
from volagent.objects.pod_claims import claim_source_of
from volagent.objects.storage import PersistentVolume, PersistentVolumeClaim, StorageClass
from volagent.observe.logs import get_logger

STEPS_LIMIT = 8
"""Steps in one go: two make a binding, so more mean that somebody works against it."""
WORKERS = 32
RETRY_S = 2.0
"""After a failed write (the server cannot store it now) the key waits so long."""
GRACE_S = 0.5
"""A claim without a volume says so after this."""
LOOK_AGAIN_S = 300.0
"""Safety net: a claim that waits is looked at so often without any change, and says again why."""

_CLAIM, _VOLUME = "claim", "volume"
_Item = tuple[str, str, str]
"""`_CLAIM` or `_VOLUME`, namespace, name."""
V = TypeVar("V", bound=Hashable)

_log = get_logger("binder")


class Binder:
    """Finds volumes for claims, and says who is to make one where there is none."""

    def __init__(
        self,
        copies: SharedCopies,
        client: Client,
        events: EventRecorder,
        provisioners: frozenset[str] = frozenset(),
    ) -> None:
        """`provisioners` are those of this process. Before `copies.run`."""
        self._copies = copies
        self._client = client
        self._events = events
        self._provisioners = provisioners
        self._offers = Offers(self._mark_claim)
        self._since_s: dict[Key, float] = {}
        """Claim → since when it has found nothing, by the loop's clock."""
        self._naming: dict[str, set[Key]] = {}
        """Volume → the claims that name it."""
        self._consumers: dict[Key, set[str]] = {}
        """Claim → the pods that use it and have no node."""
        self._default_class = ""
        self._queue: KeyedQueue[_Item] | None = None
        copies.volumes.listen(self._volume_changed)
        copies.claims.listen(self._claim_changed)
        copies.classes.listen(self._class_changed)
        copies.pods.listen(self._pod_changed)

    async def run(self) -> None:
        """Bind, for ever."""
        # Not before all is listed: a volume whose claim is merely not known yet must not look
        # abandoned.
        await self._copies.wait_synced()
        async with Supervisor() as tasks:
            queue = self._queue = KeyedQueue("bind", self._work, tasks.start, width=WORKERS)
            for volume in self._copies.volumes.values():
                queue.mark((_VOLUME, "", volume.metadata.name))
            for claim in self._copies.claims.values():
                queue.mark((_CLAIM, claim.metadata.namespace, claim.metadata.name))
            try:
                await asyncio.Event().wait()
            finally:
                queue.stop()

    # -- what a change concerns --------------------------------------------------------------

    def _claim_changed(
        self, key: Key, old: PersistentVolumeClaim | None, new: PersistentVolumeClaim | None
    ) -> None:
        for claim, note in ((old, _discard), (new, _add)):
            if claim is not None and claim.spec.volume_name:
                note(self._naming, claim.spec.volume_name, key)
                self._mark_volume(claim.spec.volume_name)
        if new is None or new.spec.volume_name:
            self._stop_waiting(key)
        self._mark_claim(key)
        for volume in self._offers.index.naming(key):
            self._mark_volume(volume.metadata.name)

    def _volume_changed(
        self, key: Key, old: PersistentVolume | None, new: PersistentVolume | None
    ) -> None:
        name = key[1]
        self._offers.volume_changed(name, new)
        for volume in (old, new):
            reference = volume.spec.claim_ref if volume is not None else None
            if reference is not None:
                self._mark_claim((reference.namespace, reference.name))
        self._mark_volume(name)
        for claim in sorted(self._naming.get(name, ())):
            self._mark_claim(claim)

    def _class_changed(
        self, key: Key, _old: StorageClass | None, _new: StorageClass | None
    ) -> None:
        default = choose_default_class(self._copies.classes.values())
        self._default_class = default.metadata.name if default is not None else ""
        for name in sorted({key[1], ""}):
            for claim in self._offers.waiting.of_class(name):
                self._mark_claim(claim)

    def _pod_changed(self, _key: Key, old: Pod | None, new: Pod | None) -> None:
        for pod, note in ((old, _discard), (new, _add)):
            if pod is None or pod.spec.node_name:
                continue
            for volume in pod.spec.volumes or ():
                source = claim_source_of(pod, volume)
                if source is not None:
                    claim = (pod.metadata.namespace, source.claim_name)
                    note(self._consumers, claim, pod.metadata.name)
                    if self._offers.waiting.holds(claim):
                        self._mark_claim(claim)

    def _mark_claim(self, key: Key) -> None:
        """Have a claim looked at, unless it is plain that nothing is to be done."""
        if self._queue is None:
            return
        claim = self._copies.claims.get(*key)
        if claim is not None and claim.spec.volume_name:
            named = self._offers.index.get(claim.spec.volume_name)
            verdict = decide_claim(claim, named, self._offers.index.naming(key), Outlook())
            if verdict == NOTHING:
                return
        self._queue.mark((_CLAIM, *key))

    def _mark_volume(self, name: str) -> None:
        """As `_mark_claim`."""
        if self._queue is None:
            return
        volume = self._copies.volumes.get("", name)
        if volume is not None and decide_volume(volume, self._claim_of(volume)) == NOTHING:
            return
        self._queue.mark((_VOLUME, "", name))

    def _claim_of(self, volume: PersistentVolume) -> PersistentVolumeClaim | None:
        reference = volume.spec.claim_ref
        if reference is None:
            return None
        return self._copies.claims.get(reference.namespace, reference.name)

    def _stop_waiting(self, key: Key) -> None:
        self._since_s.pop(key, None)
        self._offers.leave(key)

    # -- work --------------------------------------------------------------------------------

    async def _work(self, item: _Item) -> float | None:
        kind, namespace, name = item
        try:
            if kind == _CLAIM:
                return await self._work_on_claim((namespace, name))
            await self._work_on_volume(name)
        except (Conflict, NotFound):
            return None  # it changed meanwhile: that change marks it again
        except ApiError as error:
            _log.warning("binding interrupted", kind=kind, name=name, error=error.message)
            return RETRY_S
        return None

    async def _work_on_claim(self, key: Key) -> float | None:
        claim = self._copies.claims.get(*key)
        known: dict[str, PersistentVolume] = {}
        for _ in range(STEPS_LIMIT):
            if claim is None or claim.spec.volume_name:
                self._stop_waiting(key)
            else:
                # First of all, so that a change of its class from now on is not missed.
                self._offers.waiting.note(key, claim)
            if claim is None:
                return None
            named = self._volume(claim.spec.volume_name, known)
            found = {v.metadata.name: v for v in self._offers.index.naming(key)}
            reserved = [*{**found, **known}.values()]
            outlook = await self._look_around(claim)
            verdict = decide_claim(claim, named, reserved, outlook)
            if verdict.step is None:
                return self._rest(key, claim, verdict)
            self._tell("PersistentVolumeClaim", claim, verdict)
            written = await self._carry_out(verdict.step)
            if isinstance(written, PersistentVolume):
                known[written.metadata.name] = written
            else:
                claim = written
        _log.warning("binding does not come to rest", claim="/".join(key))
        return RETRY_S

    def _rest(self, key: Key, claim: PersistentVolumeClaim, verdict: Verdict) -> float | None:
        """Nothing is to be done for a claim now; the seconds after which it is looked at again."""
        if not verdict.takes_offers:
            self._offers.stand_by(key)
            self._tell("PersistentVolumeClaim", claim, verdict)
            return None
        self._offers.enter(key, claim)
        now_s = asyncio.get_running_loop().time()
        left_s = self._since_s.setdefault(key, now_s) + GRACE_S - now_s
        if left_s > 0:
            return left_s
        self._tell("PersistentVolumeClaim", claim, verdict)
        return LOOK_AGAIN_S

    async def _work_on_volume(self, name: str) -> None:
        volume = self._copies.volumes.get("", name)
        for _ in range(STEPS_LIMIT):
            if volume is None:
                return
            verdict = decide_volume(volume, self._claim_of(volume))
            step = verdict.step
            if isinstance(step, SetVolumePhase) and step.phase in ("Released", "Failed"):
                claim = await self._look_again(volume)
                verdict = decide_volume(volume, claim)
            self._tell("PersistentVolume", volume, verdict)
            if verdict.step is None:
                return
            written = await self._carry_out(verdict.step)
            assert isinstance(written, PersistentVolume)
            volume = written

    async def _look_again(self, volume: PersistentVolume) -> PersistentVolumeClaim | None:
        """The volume's claim, asked for directly: a volume is not given up on a copy's word."""
        reference = volume.spec.claim_ref
        assert reference is not None
        try:
            found = await self._client.get(CLAIMS, reference.name, reference.namespace)
        except NotFound:
            return None
        return msgspec.convert(found, PersistentVolumeClaim)

    def _volume(self, name: str, known: dict[str, PersistentVolume]) -> PersistentVolume | None:
        """A volume as this run last wrote it, else as the copies have it."""
        if not name:
            return None
        return known.get(name) or self._offers.index.get(name)

    async def _look_around(self, claim: PersistentVolumeClaim) -> Outlook:
        if claim.spec.volume_name:
            return Outlook()
        key = (claim.metadata.namespace, claim.metadata.name)
        return Outlook(
            find_free=lambda: self._find_free(claim),
            storage_class=await self._find_class(class_of_claim(claim)),
            default_class=self._default_class,
            waiting_pods=sorted(self._consumers.get(key, ())),
            provisioners=self._provisioners,
            explain_misfits=lambda: summarize_rejections(claim, self._offers.index),
        )

    async def _find_class(self, name: str) -> StorageClass | None:
        """The class of that name. That there is none is asked of the server itself: a class that
        came together with its claim would otherwise seem to be missing, and a claim that is to
        wait for its pod would be bound at once."""
        if not name:
            return None
        known = self._copies.classes.get("", name)
        if known is not None:
            return known
        try:
            return msgspec.convert(await self._client.get(STORAGE_CLASSES, name), StorageClass)
        except NotFound:
            return None

    def _find_free(self, claim: PersistentVolumeClaim) -> PersistentVolume | None:
        node_name = (claim.metadata.annotations or {}).get(SELECTED_NODE)
        node = self._copies.nodes.get("", node_name) if node_name else None
        if node_name and node is None:
            return None
        labels = (node.metadata.labels if node is not None else None) or {}

        def admits(volume: PersistentVolume) -> bool:
            return admits_node(volume.spec.node_affinity, labels, node_name or "")

        return self._offers.find_free(claim, admits if node is not None else None)

    async def _carry_out(self, step: Step) -> PersistentVolume | PersistentVolumeClaim:
        """Write one step; the object as it is now."""
        if not isinstance(step, BindVolume) or step.volume.spec.claim_ref is not None:
            return await self._write(step)
        volume, claim = step.volume, step.claim.metadata
        self._offers.hold(volume)
        try:
            return await self._write(step)
        except (Conflict, NotFound):
            # Somebody changed the volume: it stays held until that is seen, and cannot be chosen
            # again on the old version; the claim looks for another one.
            self._mark_claim((claim.namespace, claim.name))
            raise
        except ApiError:
            self._offers.let_go(volume)
            raise

    async def _write(self, step: Step) -> PersistentVolume | PersistentVolumeClaim:
        body, subresource = patch_of(step)
        written: PersistentVolume | PersistentVolumeClaim
        match step:
            case BindVolume(volume) | FreeVolume(volume) | SetVolumePhase(volume):
                document = await self._client.patch(
                    PERSISTENT_VOLUMES, volume.metadata.name, body, subresource=subresource
                )
                written = msgspec.convert(document, PersistentVolume)
            case (
                BindClaim(claim) | SetClaimPhase(claim) | ChooseClass(claim)
                | AskProvisioner(claim)
            ):  # fmt: skip
                metadata = claim.metadata
                document = await self._client.patch(
                    CLAIMS, metadata.name, body, metadata.namespace, subresource=subresource
                )
                written = msgspec.convert(document, PersistentVolumeClaim)
        _log.info("binding advanced", step=step.describe())
        return written

    def _tell(
        self, kind: str, about: PersistentVolume | PersistentVolumeClaim, verdict: Verdict
    ) -> None:
        report = verdict.report
        if report is None:
            return
        record = self._events.normal if report.normal else self._events.warning
        record(subject_of(kind, about.metadata), report.reason, report.message)


def _add(index: dict[Any, set[V]], key: Any, value: V) -> None:
    index.setdefault(key, set()).add(value)


def _discard(index: dict[Any, set[V]], key: Any, value: V) -> None:
    values = index.get(key)
    if values is not None:
        values.discard(value)
        if not values:
            del index[key]
