"""What brings one claim or one volume a step further. Pure.

Binding is two writes, each of which is derived again from what is stored, so that it goes on
wherever it was interrupted: (1) the volume names the claim (`claimRef` with its uid) and is Bound,
(2) the claim names the volume, is marked `bind-completed` and is Bound. Through a server that can
only write an object or its status, each of the two is two. A call here answers with the next single
step. Rules, texts and annotations are those of Kubernetes'
`pkg/controller/volume/persistentvolume/pv_controller.go`, except where a comment says otherwise;
which of several volumes is taken is in `match.py`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from volagent.control.bind.match import (
    find_misfit,
    full_name,
    is_reserved_for,
    rank_reserved,
)
from volagent.objects.annotations import (
    BIND_COMPLETED,
    PROVISIONED_BY,
    PROVISIONER,
    PROVISIONING,
    SELECTED_NODE,
)
from volagent.objects.classes import (
    NO_PROVISIONER,
    WAIT_FOR_FIRST_CONSUMER,
    class_of_claim,
    names_no_class,
)
from volagent.objects.storage import PersistentVolume, PersistentVolumeClaim, StorageClass


@dataclass(frozen=True, slots=True)
class BindVolume:
    """Let the volume name the claim, with its uid, and be Bound: (1)."""

    volume: PersistentVolume
    claim: PersistentVolumeClaim

    def describe(self) -> str:
        """A sentence for the log."""
        return f"volume {self.volume.metadata.name} bound to {full_name(self.claim)}"


@dataclass(frozen=True, slots=True)
class FreeVolume:
    """Take the claim's uid, or the whole reservation where the binder made it, from the volume."""

    volume: PersistentVolume

    def describe(self) -> str:
        """A sentence for the log."""
        return f"volume {self.volume.metadata.name} freed"


@dataclass(frozen=True, slots=True)
class SetVolumePhase:
    """Say where the volume stands."""

    volume: PersistentVolume
    phase: str
    message: str = ""

    def describe(self) -> str:
        """A sentence for the log."""
        return f"volume {self.volume.metadata.name} is {self.phase}"


@dataclass(frozen=True, slots=True)
class BindClaim:
    """Let the claim name the volume, for good, and be Bound: (2)."""

    claim: PersistentVolumeClaim
    volume: PersistentVolume

    def describe(self) -> str:
        """A sentence for the log."""
        return f"claim {full_name(self.claim)} bound to volume {self.volume.metadata.name}"


@dataclass(frozen=True, slots=True)
class SetClaimPhase:
    """Say where the claim stands."""

    claim: PersistentVolumeClaim
    phase: str

    def describe(self) -> str:
        """A sentence for the log."""
        return f"claim {full_name(self.claim)} is {self.phase}"


@dataclass(frozen=True, slots=True)
class ChooseClass:
    """Give the claim, which names no class, the default one."""

    claim: PersistentVolumeClaim
    name: str

    def describe(self) -> str:
        """A sentence for the log."""
        return f"claim {full_name(self.claim)} gets class {self.name}"


@dataclass(frozen=True, slots=True)
class AskProvisioner:
    """Note on the claim who is to make its volume."""

    claim: PersistentVolumeClaim
    provisioner: str
    ours: bool
    """One of this process: it promises to clean up, by a finalizer in the same write."""

    def describe(self) -> str:
        """A sentence for the log."""
        return f"claim {full_name(self.claim)} is for {self.provisioner} to make"


Step = (
    BindVolume | FreeVolume | SetVolumePhase | BindClaim | SetClaimPhase | ChooseClass
    | AskProvisioner
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Report:
    """An event about the claim or volume that was looked at."""

    reason: str
    message: str
    normal: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """The next step, if any, and what there is to tell."""

    step: Step | None = None
    report: Report | None = None
    takes_offers: bool = False
    """The claim found no volume, and would take a free one that fits as soon as there is one."""


NOTHING = Verdict()


def _nothing_free() -> PersistentVolume | None:
    return None


def _nothing_to_say() -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What there is for a claim that has no volume yet; what costs is asked only when needed."""

    find_free: Callable[[], PersistentVolume | None] = _nothing_free
    """The best of the free volumes that fit (and that its pod's node can have)."""
    storage_class: StorageClass | None = None
    """The class it names, if there is such an object."""
    default_class: str = ""
    waiting_pods: Sequence[str] = ()
    """Pods that use the claim and have no node yet."""
    provisioners: frozenset[str] = frozenset()
    """Those of this process."""
    explain_misfits: Callable[[], str] = _nothing_to_say
    """Why none of the volumes does, in short."""


_NO_OUTLOOK = Outlook()


def decide_claim(
    claim: PersistentVolumeClaim,
    named: PersistentVolume | None,
    reserved: Sequence[PersistentVolume],
    outlook: Outlook = _NO_OUTLOOK,
) -> Verdict:
    """The next step for a claim.

    `named` is the volume of `spec.volumeName`, `reserved` are those whose `claimRef` names the
    claim. A claim that is going is left alone.
    """
    if claim.metadata.deletion_timestamp is not None:
        return Verdict()
    if BIND_COMPLETED in (claim.metadata.annotations or {}):
        return _decide_bound(claim, named)
    if not claim.spec.volume_name:
        ranked = rank_reserved(claim, reserved)
        return Verdict(_bind(claim, ranked[0])) if ranked else _find_volume(claim, outlook)
    if named is None:
        return _pend(claim, "FailedBinding", f'volume "{claim.spec.volume_name}" not found')
    if named.metadata.deletion_timestamp is not None:
        text = f'volume "{named.metadata.name}" is being deleted'
        return _pend(claim, "FailedBinding", text)
    if named.spec.claim_ref is None:
        problem = find_misfit(claim, named)
        if problem:
            return _pend(
                claim, "VolumeMismatch",
                f'Cannot bind to requested volume "{named.metadata.name}": {problem}',
            )  # fmt: skip
    elif not is_reserved_for(named, claim):
        return _pend(
            claim, "FailedBinding",
            f'volume "{named.metadata.name}" already bound to a different claim.',
        )  # fmt: skip
    return Verdict(_bind(claim, named))


def decide_volume(volume: PersistentVolume, claim: PersistentVolumeClaim | None) -> Verdict:
    """The next step for a volume; `claim` is the one of its `claimRef`, if it exists."""
    reference = volume.spec.claim_ref
    if reference is None or not reference.uid:
        return Verdict(_volume_phase(volume, "Available"))
    if claim is None or claim.metadata.uid != reference.uid:
        return _release(volume)
    if claim.spec.volume_name == volume.metadata.name:
        return Verdict(_volume_phase(volume, "Bound"))
    if claim.spec.volume_name:  # the claim went with another volume
        made_for_it = PROVISIONED_BY in (volume.metadata.annotations or {})
        if made_for_it and volume.spec.persistent_volume_reclaim_policy == "Delete":
            return _release(volume)  # nobody else was meant to have it
        return Verdict(FreeVolume(volume))
    return Verdict()  # being bound: the claim's turn


def _find_volume(claim: PersistentVolumeClaim, outlook: Outlook) -> Verdict:
    """The way of a claim that nothing is reserved for."""
    if names_no_class(claim) and outlook.default_class:
        return Verdict(ChooseClass(claim, outlook.default_class))
    annotations = claim.metadata.annotations or {}
    if PROVISIONER in annotations and PROVISIONING in (claim.metadata.finalizers or ()):
        # One of ours may be making its volume just now: another one would be one too many.
        return Verdict(_pending(claim))
    storage_class = outlook.storage_class
    waits = storage_class is not None and (
        storage_class.volume_binding_mode == WAIT_FOR_FIRST_CONSUMER
    )
    if waits and SELECTED_NODE not in annotations:
        return _await_consumer(claim, outlook)
    free = outlook.find_free()
    if free is not None:
        return Verdict(_bind(claim, free))
    name = class_of_claim(claim)
    if not name:
        text = "no persistent volumes available for this claim and no storage class is set"
        return _lack(claim, "FailedBinding", text, outlook)
    if storage_class is None:
        text = f'storageclass.storage.k8s.io "{name}" not found'
        return _lack(claim, "ProvisioningFailed", text, outlook)
    if storage_class.provisioner == NO_PROVISIONER:
        text = "no volume plugin matched name: kubernetes.io/no-provisioner"
        return _lack(claim, "ProvisioningFailed", text, outlook)
    return _ask(claim, storage_class.provisioner, outlook)


def _ask(claim: PersistentVolumeClaim, provisioner: str, outlook: Outlook) -> Verdict:
    ours = provisioner in outlook.provisioners
    asked = (claim.metadata.annotations or {}).get(PROVISIONER) == provisioner
    report = None
    if not ours:
        report = Report(
            "ExternalProvisioning",
            f'waiting for a volume to be created, either by external provisioner "{provisioner}" or'
            " manually created by system administrator",
            normal=True,
        )
    if not asked or (ours and PROVISIONING not in (claim.metadata.finalizers or ())):
        return Verdict(AskProvisioner(claim, provisioner, ours), report)
    return Verdict(_pending(claim), report, takes_offers=not ours)


def _await_consumer(claim: PersistentVolumeClaim, outlook: Outlook) -> Verdict:
    step = _pending(claim)
    if outlook.waiting_pods:
        pods = ", ".join(outlook.waiting_pods)
        text = f"waiting for pod {pods} to be scheduled"
        return Verdict(step, Report("WaitForPodScheduled", text, normal=True))
    text = "waiting for first consumer to be created before binding"
    return Verdict(step, Report("WaitForFirstConsumer", text, normal=True))


def _lack(claim: PersistentVolumeClaim, reason: str, text: str, outlook: Outlook) -> Verdict:
    """There is no volume, and nobody who would make one."""
    step = _pending(claim)
    if step is not None:
        return Verdict(step)  # it is told when the claim stays so
    misfits = outlook.explain_misfits()
    text = f"{text} ({misfits})" if misfits else text
    return Verdict(None, Report(reason, text), takes_offers=True)


def _bind(claim: PersistentVolumeClaim, volume: PersistentVolume) -> Step | None:
    reference = volume.spec.claim_ref
    if reference is None or reference.uid != claim.metadata.uid or volume.status.phase != "Bound":
        return BindVolume(volume, claim)  # (1)
    named = claim.spec.volume_name == volume.metadata.name
    status = claim.status
    if (
        not named
        or BIND_COMPLETED not in (claim.metadata.annotations or {})
        or status.phase != "Bound"
        or not status.capacity
        or status.access_modes != volume.spec.access_modes
    ):
        return BindClaim(claim, volume)  # (2)
    return None


def _decide_bound(claim: PersistentVolumeClaim, volume: PersistentVolume | None) -> Verdict:
    if not claim.spec.volume_name:
        return _lose(
            claim, "ClaimLost",
            "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!",
        )  # fmt: skip
    if volume is None:
        return _lose(
            claim, "ClaimLost",
            "Bound claim has lost its PersistentVolume. Data on the volume is lost!",
        )  # fmt: skip
    if volume.spec.claim_ref is None or is_reserved_for(volume, claim):
        return Verdict(_bind(claim, volume))
    return _lose(
        claim, "ClaimMisbound",
        "Two claims are bound to the same volume, this one is bound incorrectly",
    )  # fmt: skip


def _pend(claim: PersistentVolumeClaim, reason: str, message: str) -> Verdict:
    return Verdict(_pending(claim), Report(reason, message))


def _pending(claim: PersistentVolumeClaim) -> Step | None:
    return None if claim.status.phase == "Pending" else SetClaimPhase(claim, "Pending")


def _lose(claim: PersistentVolumeClaim, reason: str, message: str) -> Verdict:
    if claim.status.phase == "Lost":
        return Verdict()
    return Verdict(SetClaimPhase(claim, "Lost"), Report(reason, message))


def _release(volume: PersistentVolume) -> Verdict:
    """The claim is gone. Data that nobody here can delete is kept, and that is told."""
    phase = volume.status.phase
    made_by = (volume.metadata.annotations or {}).get(PROVISIONED_BY, "")
    retained = volume.spec.persistent_volume_reclaim_policy != "Delete"
    if phase == "Failed" or (phase == "Released" and (retained or made_by)):
        return Verdict()
    if retained or made_by:  # who made it deletes it
        return Verdict(SetVolumePhase(volume, "Released"))
    text = (
        "the claim is gone and the volume's data is kept: nothing here deletes volumes of this"
        " kind; delete the volume's data and the PersistentVolume, or use it again with"
        f" `volagent pv reuse {volume.metadata.name}`"
    )
    return Verdict(SetVolumePhase(volume, "Failed", text), Report("VolumeFailedDelete", text))


def _volume_phase(volume: PersistentVolume, phase: str) -> Step | None:
    return None if volume.status.phase == phase else SetVolumePhase(volume, phase)
