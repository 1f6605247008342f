"""The claims' half of provisioning: from a claim that was given to us to a recorded volume.

Each step is decided on the shared copy and, before a backend is called or anything is given up,
decided once more on what the server has. One step at a time per claim (the controller's queue).
"""

from volagent.client.contract import (
    CLAIMS,
    PERSISTENT_VOLUMES,
    AlreadyExists,
    BadRequest,
    Forbidden,
    Invalid,
    NotFound,
)
from volagent.client.events import Subject, subject_of
from volagent.client.informer import Key
from volagent.control.finalizers import put_on, take_off
from volagent.control.provision.asking import (
    Failures,
    Surroundings,
    ask,
    storage_node_behind,
    tell_failure,
)
from volagent.control.provision.decide import (
    Circumstances,
    ClaimStep,
    Complain,
    Discard,
    Elect,
    ElectStorage,
    Hold,
    LetGo,
    Make,
    decide_claim,
    provisioner_of,
    volume_name_of,
)
from volagent.control.provision.documents import find_fault, request_of, volume_document
from volagent.control.provision.origin import Waiting, origin_of
from volagent.control.provision.parameters import read_retention_s
from volagent.control.provision.reading import read_claim, read_volume
from volagent.drivers.errors import DriverError, Rejected, Uncertain
from volagent.drivers.provisioning.contract import (
    OutOfSpace,
    ProvisionedVolume,
    Provisioner,
    VolumeRequest,
)
from volagent.objects.annotations import (
    BETA_PROVISIONER,
    PROVISIONER,
    PROVISIONING,
    SELECTED_NODE,
)
from volagent.objects.classes import WAIT_FOR_FIRST_CONSUMER, class_of_claim
from volagent.objects.meta import Document
from volagent.objects.storage import Node, PersistentVolume, PersistentVolumeClaim, StorageClass
from volagent.objects.storage_nodes import STORAGE_NODE
from volagent.observe.logs import get_logger

STEPS_LIMIT = 8
"""Steps in one go: three make a volume, so more mean that somebody works against it."""
ORIGIN_RETRY_S = 5.0

_log = get_logger("provision")


class Maker:
    """Makes volumes for claims."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._client = around.client
        self.failures: Failures[Key] = Failures(around.clock)
        self.waiting_on: dict[Key, Key] = {}
        """Claim → the claim it is to be a clone of, which is not ready."""
        self._begun: dict[str, VolumeRequest | None] = {}
        """Uid → what a backend may have been asked for it; None: by an earlier process."""

    def note_found(self, claim: PersistentVolumeClaim) -> None:
        """A claim that was there before this process began: something may have been made."""
        if PROVISIONING in (claim.metadata.finalizers or ()):
            self._begun.setdefault(claim.metadata.uid, None)

    def forget(self, claim: PersistentVolumeClaim) -> None:
        """The claim is gone."""
        key = (claim.metadata.namespace, claim.metadata.name)
        self._begun.pop(claim.metadata.uid, None)
        self.failures.forget(key)
        self.waiting_on.pop(key, None)

    def next_step(self, claim: PersistentVolumeClaim) -> ClaimStep | None:
        """What is to be done for a claim, as far as the shared copies tell."""
        volume = self._around.copies.volumes.get("", volume_name_of(claim))
        return self._decide(claim, volume)

    async def work(self, claim: PersistentVolumeClaim) -> float | None:
        """Take a claim as far as it goes; seconds until it wants to be looked at again."""
        key = (claim.metadata.namespace, claim.metadata.name)
        for _ in range(STEPS_LIMIT):
            step = self.next_step(claim)
            if step is None:
                return None
            if isinstance(
                step, ElectStorage | Make | Discard | Complain
            ) and self.failures.is_resting(key):
                return self.failures.left_s(key)
            # Decided again on what the server has: no backend is called on a copy's word.
            document = await self._client.get(CLAIMS, *reversed(key))
            live = read_claim(document)
            volume = await self._fetch_volume(live)
            step = self._decide(live, volume)
            outcome = await self._carry_out(step, document, live)
            if not isinstance(outcome, dict):
                return outcome
            claim = read_claim(outcome)
        return ORIGIN_RETRY_S

    def _decide(
        self, claim: PersistentVolumeClaim, volume: PersistentVolume | None
    ) -> ClaimStep | None:
        provisioner = self._around.provisioners.get(provisioner_of(claim))
        if provisioner is None:
            return None
        seen = Circumstances(
            maker_node=provisioner.node,
            storage_class=self._class_of(claim),
            volume=volume,
            node=self._around.node_of(provisioner),
            storage_node=storage_node_behind(provisioner),
        )
        return decide_claim(claim, seen)

    async def _fetch_volume(self, claim: PersistentVolumeClaim) -> PersistentVolume | None:
        try:
            return read_volume(await self._client.get(PERSISTENT_VOLUMES, volume_name_of(claim)))
        except NotFound:
            return None

    async def _carry_out(
        self, step: ClaimStep | None, document: Document, claim: PersistentVolumeClaim
    ) -> Document | float | None:
        """One step; the claim as it is now when there may be another, else when to look again."""
        match step:
            case Elect(node):
                return await self._write(claim, {"annotations": {SELECTED_NODE: node}})
            case ElectStorage(node):
                return await self._write(claim, {"annotations": {STORAGE_NODE: node}})
            case Hold():
                return await put_on(self._client, CLAIMS, document, PROVISIONING)
            case Make(storage_class):
                return await self._make(document, claim, storage_class)
            case LetGo():
                await self._let_go(document, claim)
                return None
            case Discard():
                return await self._discard(document, claim)
            case Complain(message):
                error = Rejected(message)
                self._warn(claim, "ProvisioningFailed", message)
                return self.failures.note(_key(claim), error)
            case None:
                return None

    async def _hand_back(self, claim: PersistentVolumeClaim) -> None:
        """Nothing is made here: the scheduler chooses again, then the binder asks again."""
        kept = [one for one in claim.metadata.finalizers or () if one != PROVISIONING]
        annotations = {SELECTED_NODE: None, PROVISIONER: None, BETA_PROVISIONER: None}
        await self._write(claim, {"annotations": annotations, "finalizers": kept})

    async def _write(self, claim: PersistentVolumeClaim, change: Document) -> Document:
        metadata = {**change, "resourceVersion": claim.metadata.resource_version}
        return await self._client.patch(
            CLAIMS, claim.metadata.name, {"metadata": metadata}, claim.metadata.namespace
        )

    async def _let_go(self, document: Document, claim: PersistentVolumeClaim) -> None:
        await take_off(self._client, CLAIMS, document, PROVISIONING)
        self.forget(claim)

    # -- making ------------------------------------------------------------------------------

    async def _make(
        self, document: Document, claim: PersistentVolumeClaim, storage_class: StorageClass
    ) -> float | None:
        provisioner = self._provisioner_of(claim)
        try:
            asked = await self._prepare(document, claim, storage_class, provisioner)
            if isinstance(asked, Waiting):
                return self._await_origin(claim, asked)
            request, keep_s = asked
            made = await self._create(claim, provisioner, request)
        except OutOfSpace as error:
            return await self._take_elsewhere(claim, storage_class, error)
        except DriverError as error:
            return self._fail(claim, storage_class, error)
        self.failures.forget(_key(claim))
        volume = volume_document(claim, storage_class, made, keep_s)
        return await self._record(claim, volume, made)

    async def _prepare(
        self,
        document: Document,
        claim: PersistentVolumeClaim,
        storage_class: StorageClass,
        provisioner: Provisioner,
    ) -> tuple[VolumeRequest, int] | Waiting:
        """What to ask for, and how long its data is kept in the end. Raises `Rejected`."""
        keep_s = read_retention_s(storage_class.parameters, self._around.default_keep_s)
        origin = await origin_of(self._client, document)
        if isinstance(origin, Waiting):
            return origin
        node = self._node_for(claim, provisioner)
        request = request_of(claim, storage_class, node, origin)
        provisioner.check(request.parameters, request.mode, request.access_modes)
        return request, keep_s

    async def _create(
        self, claim: PersistentVolumeClaim, provisioner: Provisioner, request: VolumeRequest
    ) -> ProvisionedVolume:
        if self._begun.get(request.owner) is None:
            name = f"{claim.metadata.namespace}/{claim.metadata.name}"
            text = f'External provisioner is provisioning volume for claim "{name}"'
            self._around.events.normal(_subject(claim), "Provisioning", text)
        self._begun[request.owner] = request
        made = await ask(
            provisioner.create(request), f"provisioner {provisioner.name}",
            lambda text: self._warn(claim, "ProvisioningFailed", text),
        )  # fmt: skip
        fault = find_fault(request, made)
        if fault:
            raise Uncertain(
                f"the answer of provisioner {provisioner.name} cannot be used: {fault}",
                remedy="see what the storage holds under the name " + request.name,
            )
        return made

    async def _record(
        self,
        claim: PersistentVolumeClaim,
        volume: Document,
        made: ProvisionedVolume,
    ) -> float | None:
        name = volume["metadata"]["name"]
        known = self._around.copies.claims.get(*_key(claim))
        if known is None or known.metadata.uid != claim.metadata.uid:
            await self._undo(claim)  # somebody took our finalizer off and let it go
            return None
        if known.metadata.deletion_timestamp is not None:
            return 0.0  # discarded in the next turn, not recorded first
        try:
            await self._client.create(PERSISTENT_VOLUMES, volume)
        except AlreadyExists:
            return 0.0  # by an earlier life of ours, or a stranger's: decided on what is there
        except (Invalid, Forbidden, BadRequest) as error:
            text = (
                f"Error creating provisioned PV object for claim {claim.metadata.namespace}/"
                f"{claim.metadata.name}: {error.message}. Deleting the volume."
            )
            self._warn(claim, "ProvisioningFailed", text)
            await self._undo(claim)
            return self.failures.note(_key(claim), Rejected(error.message))
        maker = provisioner_of(claim)
        evidence = f" ({made.evidence})" if made.evidence else ""
        text = f"Successfully provisioned volume {name} using {maker}{evidence}"
        self._around.events.normal(_subject(claim), "ProvisioningSucceeded", text)
        _log.info(
            "volume provisioned", volume=name, provisioner=maker, evidence=made.evidence,
            claim=f"{claim.metadata.namespace}/{claim.metadata.name}",
        )  # fmt: skip
        return None

    def _fail(
        self, claim: PersistentVolumeClaim, storage_class: StorageClass, error: DriverError
    ) -> float | None:
        name = storage_class.metadata.name
        text = f'failed to provision volume with StorageClass "{name}": {tell_failure(error)}'
        self._warn(claim, error.reason or "ProvisioningFailed", text)
        return self.failures.note(_key(claim), error)

    async def _take_elsewhere(
        self, claim: PersistentVolumeClaim, storage_class: StorageClass, error: OutOfSpace
    ) -> float | None:
        """No room here: where a scheduler chooses the node, have it choose again."""
        delay_s = self._fail(claim, storage_class, error)
        annotations = claim.metadata.annotations or {}
        if STORAGE_NODE in annotations:
            if await self._undo(claim):  # another storage node may have room
                await self._write(claim, {"annotations": {STORAGE_NODE: None}})
            return delay_s
        chosen = annotations.get(SELECTED_NODE)
        if not chosen or storage_class.volume_binding_mode != WAIT_FOR_FIRST_CONSUMER:
            return delay_s
        # A claim without a node's name has nothing made for it: that holds for every reader.
        if not await self._undo(claim):
            return delay_s
        await self._hand_back(claim)
        return None

    def _await_origin(self, claim: PersistentVolumeClaim, origin: Waiting) -> float:
        self._warn(claim, "ProvisioningFailed", f"waiting for its data source: {origin.reason}")
        if origin.on_claim is not None:
            self.waiting_on[_key(claim)] = origin.on_claim
        return ORIGIN_RETRY_S

    # -- taking back -------------------------------------------------------------------------

    async def _discard(
        self, document: Document, claim: PersistentVolumeClaim
    ) -> Document | float | None:
        if await self._undo(claim):
            await self._let_go(document, claim)
            return None
        return self.failures.left_s(_key(claim))

    async def _undo(self, claim: PersistentVolumeClaim) -> bool:
        """Remove what `create` may have left; whether nothing is left. The failure is told."""
        uid = claim.metadata.uid
        if uid not in self._begun:
            return True
        try:
            request = self._begun[uid] or self._request_again(claim)
            provisioner = self._provisioner_of(claim)
            done = await ask(
                provisioner.discard(request), f"provisioner {provisioner.name}",
                lambda text: self._warn(claim, "ProvisioningCleanupFailed", text),
            )  # fmt: skip
        except DriverError as error:
            text = (
                f"Error cleaning provisioned volume for claim {claim.metadata.namespace}/"
                f"{claim.metadata.name}: {tell_failure(error)}. Please delete manually."
            )
            self._warn(claim, error.reason or "ProvisioningCleanupFailed", text)
            self.failures.note(_key(claim), error)
            return False
        self._begun.pop(uid, None)
        _log.info("volume discarded", volume=volume_name_of(claim), evidence=done.evidence)
        return True

    def _request_again(self, claim: PersistentVolumeClaim) -> VolumeRequest:
        """What an earlier process asked for, by the class as it is. Raises `Rejected` without."""
        storage_class, name = self._class_of(claim), class_of_claim(claim)
        if storage_class is None or storage_class.provisioner != provisioner_of(claim):
            raise Rejected(
                f'storageclass.storage.k8s.io "{name}" not found, and without its parameters the'
                " volume cannot be looked for",
                remedy="make the class again; or remove what the backend holds under the name"
                f" {volume_name_of(claim)}, then the claim's finalizer {PROVISIONING}",
            )
        node = self._node_for(claim, self._provisioner_of(claim))
        return request_of(claim, storage_class, node)

    # -- looking up --------------------------------------------------------------------------

    def _provisioner_of(self, claim: PersistentVolumeClaim) -> Provisioner:
        return self._around.provisioners[provisioner_of(claim)]

    def _class_of(self, claim: PersistentVolumeClaim) -> StorageClass | None:
        return self._around.copies.classes.get("", class_of_claim(claim))

    def _node_for(self, claim: PersistentVolumeClaim, provisioner: Provisioner) -> Node | None:
        annotations = claim.metadata.annotations or {}
        return self._around.node(provisioner.node or annotations.get(SELECTED_NODE, ""))

    def _warn(self, claim: PersistentVolumeClaim, reason: str, message: str) -> None:
        name = f"{claim.metadata.namespace}/{claim.metadata.name}"
        _log.warning("not provisioned", claim=name, reason=reason, error=message)
        self._around.events.warning(_subject(claim), reason, message)


def _key(claim: PersistentVolumeClaim) -> Key:
    return claim.metadata.namespace, claim.metadata.name


def _subject(claim: PersistentVolumeClaim) -> Subject:
    return subject_of("PersistentVolumeClaim", claim.metadata)
