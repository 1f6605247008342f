"""The provision controller: which claim or volume is looked at when, and when trashes are swept.

A change marks what it concerns; one worker per claim and per volume takes it as far as it goes
(`making.py`, `reclaiming.py`). Each provisioner has a lane of its own, so that a slow backend holds
back only its own volumes, and a loop of its own for its trash. Everything is derived again from
what is stored, so being killed between any two writes costs nothing but a repetition.
"""

import asyncio
import random

from volagent.aio.backoff import BackOff
from volagent.aio.clock import Clock
from volagent.aio.queue import KeyedQueue
from volagent.aio.tasks import Supervisor
from volagent.client.contract import ApiError, Client, Conflict, NotFound
from volagent.client.events import EventRecorder
from volagent.client.informer import Key
from volagent.client.shared import SharedCopies
from volagent.control.provision.asking import Surroundings, ask, tell_failure
from volagent.control.provision.decide import maker_of, provisioner_of, volume_name_of
from volagent.control.provision.making import Maker
from volagent.control.provision.reclaiming import Reclaimer
from volagent.drivers.errors import DriverError
from volagent.drivers.provisioning.contract import KeepsTrash, ProvisionerTable
from volagent.objects.classes import class_of_claim
from volagent.objects.storage import Node, PersistentVolume, PersistentVolumeClaim, StorageClass
from volagent.observe.logs import get_logger

WORKERS = 8
"""Claims and volumes that one provisioner works on at once."""
RETRY_S = 2.0
"""After a failed write (the server cannot store it now) the key waits so long."""
SWEEP_AT_LEAST_EVERY_S = 3600.0
SWEEP_PAUSE_S = 2.0
"""At least between two sweeps: volumes are deleted by the dozen, and each is a reason for one."""
SWEEP_RETRY = BackOff(first_s=10.0, max_s=600.0)

_CLAIM, _VOLUME = "claim", "volume"
_Item = tuple[str, str, str]
"""`_CLAIM` or `_VOLUME`, namespace, name."""

_log = get_logger("provision")


class ProvisionController:
    """Makes volumes for claims, and ends them when they are released."""

    def __init__(
        self,
        copies: SharedCopies,
        client: Client,
        events: EventRecorder,
        provisioners: ProvisionerTable,
        clock: Clock,
        *,
        default_keep_s: int,
    ) -> None:
        """`default_keep_s`: how long data stays in the trash where the class does not say."""
        self._copies = copies
        self._provisioners = provisioners
        around = Surroundings(copies, client, events, provisioners, clock, default_keep_s)
        self._maker = Maker(around)
        self._reclaimer = Reclaimer(around)
        self._swept = {name: asyncio.Event() for name in provisioners}
        """Set when a provisioner's trash has to be looked at before its time."""
        self._queue: KeyedQueue[_Item] | None = None
        copies.claims.listen(self._claim_changed)
        copies.volumes.listen(self._volume_changed)
        copies.classes.listen(self._class_changed)
        copies.nodes.listen(self._node_changed)

    async def run(self) -> None:
        """Provision and reclaim, for ever."""
        await self._copies.wait_synced()
        async with Supervisor() as tasks:
            queue = self._queue = KeyedQueue(
                "provision", self._work, tasks.start, lane_of=self._lane_of, width=WORKERS
            )
            for claim in self._copies.claims.values():
                self._maker.note_found(claim)
            self._mark_all()
            sweepers = [
                tasks.start_loop(f"trash of {name}", self._sweep(name, provisioner))
                for name, provisioner in self._provisioners.items()
                if isinstance(provisioner, KeepsTrash)
            ]
            try:
                await asyncio.gather(asyncio.Event().wait(), *sweepers)
            finally:
                queue.stop()

    def _mark_all(self) -> None:
        for claim in self._copies.claims.values():
            self._mark_claim(claim)
        for volume in self._copies.volumes.values():
            self._mark_volume(volume)

    # -- what a change concerns --------------------------------------------------------------

    def _claim_changed(
        self, key: Key, old: PersistentVolumeClaim | None, new: PersistentVolumeClaim | None
    ) -> None:
        if self._queue is None:
            return
        if new is None:
            if old is not None:
                self._maker.forget(old)
        else:
            if old is not None and _is_news(old, new):
                self._maker.failures.forget(key)
            self._mark_claim(new)
        claim = new or old
        if claim is not None:
            self._mark_volume(self._copies.volumes.get("", volume_name_of(claim)))
            self._mark_volume(self._copies.volumes.get("", claim.spec.volume_name))
        for waiting, awaited in tuple(self._maker.waiting_on.items()):
            if awaited == key:
                del self._maker.waiting_on[waiting]
                self._queue.mark((_CLAIM, *waiting))

    def _volume_changed(
        self, _key: Key, old: PersistentVolume | None, new: PersistentVolume | None
    ) -> None:
        if self._queue is None:
            return
        if new is None:
            assert old is not None
            self._reclaimer.failures.forget(old.metadata.name)
            self._wake_sweeper(maker_of(old))
        else:
            if old is not None and _is_volume_news(old, new):
                self._reclaimer.failures.forget(new.metadata.name)
            self._mark_volume(new)
        reference = (new or old).spec.claim_ref  # type: ignore[union-attr]  # one of them is there
        if reference is not None:
            claim = self._copies.claims.get(reference.namespace, reference.name)
            if claim is not None:
                if new is None:
                    self._maker.failures.forget((reference.namespace, reference.name))
                self._mark_claim(claim)

    def _class_changed(
        self, key: Key, _old: StorageClass | None, _new: StorageClass | None
    ) -> None:
        if self._queue is None:
            return
        for claim in self._copies.claims.values():
            if class_of_claim(claim) == key[1] and provisioner_of(claim) in self._provisioners:
                self._maker.failures.forget((claim.metadata.namespace, claim.metadata.name))
                self._mark_claim(claim)

    def _node_changed(self, key: Key, old: Node | None, new: Node | None) -> None:
        if all(each.node != key[1] for each in self._provisioners.values()):
            return
        if old is None or new is None or _fitness(old) != _fitness(new):
            self._mark_all()

    def _mark_claim(self, claim: PersistentVolumeClaim) -> None:
        if self._queue is not None and self._maker.next_step(claim) is not None:
            self._queue.mark((_CLAIM, claim.metadata.namespace, claim.metadata.name))

    def _mark_volume(self, volume: PersistentVolume | None) -> None:
        if self._queue is None or volume is None:
            return
        if self._reclaimer.next_step(volume) is not None:
            self._queue.mark((_VOLUME, "", volume.metadata.name))

    # -- work --------------------------------------------------------------------------------

    def _lane_of(self, item: _Item) -> str:
        kind, namespace, name = item
        if kind == _CLAIM:
            claim = self._copies.claims.get(namespace, name)
            return provisioner_of(claim) if claim is not None else ""
        volume = self._copies.volumes.get("", name)
        return maker_of(volume) if volume is not None else ""

    async def _work(self, item: _Item) -> float | None:
        kind, namespace, name = item
        try:
            if kind == _CLAIM:
                claim = self._copies.claims.get(namespace, name)
                return await self._maker.work(claim) if claim is not None else None
            volume = self._copies.volumes.get("", name)
            return await self._reclaimer.work(volume) if volume is not None else None
        except (Conflict, NotFound):
            return RETRY_S  # it changed meanwhile: that change marks it sooner
        except ApiError as error:
            _log.warning("provisioning interrupted", kind=kind, name=name, error=error.message)
            return RETRY_S

    # -- trash -------------------------------------------------------------------------------

    def _wake_sweeper(self, provisioner: str) -> None:
        wake = self._swept.get(provisioner)
        if wake is not None:
            wake.set()

    async def _sweep(self, name: str, trash: KeepsTrash) -> None:
        """Have a backend delete what has expired, when it says that something does."""
        wake, failures = self._swept[name], 0
        while True:
            wake.clear()
            try:
                next_s = await ask(
                    trash.sweep(), f"provisioner {name}",
                    lambda text: _log.warning("trash not swept yet", reason=text),
                )  # fmt: skip
                failures = 0
                delay_s = SWEEP_AT_LEAST_EVERY_S
                if next_s is not None:
                    delay_s = min(max(next_s, 0.0) + 0.001, SWEEP_AT_LEAST_EVERY_S)
            except DriverError as error:
                failures += 1
                delay_s = SWEEP_RETRY.delay_s(failures, random.random())
                _log.warning("trash not swept", provisioner=name, error=tell_failure(error))
            try:
                async with asyncio.timeout(delay_s):
                    await wake.wait()
            except TimeoutError:
                continue
            await asyncio.sleep(SWEEP_PAUSE_S)


def _is_news(old: PersistentVolumeClaim, new: PersistentVolumeClaim) -> bool:
    """Whether a failing claim deserves another try. That its node was chosen again is no reason:
    a full node that is chosen over and over would be asked without a pause."""
    return old.spec != new.spec or old.metadata.deletion_timestamp != (
        new.metadata.deletion_timestamp
    )


def _is_volume_news(old: PersistentVolume, new: PersistentVolume) -> bool:
    return old.spec != new.spec or old.metadata.deletion_timestamp != (
        new.metadata.deletion_timestamp
    )


def _fitness(node: Node) -> object:
    return node.metadata.labels, node.spec.unschedulable
