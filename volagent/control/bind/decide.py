"""What brings one claim or one volume a step further. Pure.

Binding is four writes, each of which is derived again from what is stored, so that it goes on
wherever it was interrupted: (1) the volume names the claim (`claimRef` with its uid), (2) the
volume is Bound, (3) the claim names the volume and is marked `bind-completed`, (4) the claim is
Bound. Each call here answers with the next single step. Rules, texts and annotations are those of
Kubernetes' `pkg/controller/volume/persistentvolume/pv_controller.go`, except where a comment says
otherwise.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from volagent.objects.annotations import BETA_CLASS, BIND_COMPLETED
from volagent.objects.meta import ObjectReference
from volagent.objects.quantity import QuantityError, parse_quantity
from volagent.objects.storage import PersistentVolume, PersistentVolumeClaim


@dataclass(frozen=True, slots=True)
class ReserveVolume:
    """Let the volume name the claim, with its uid."""

    volume: PersistentVolume
    claim: PersistentVolumeClaim

    def describe(self) -> str:
        """A sentence for the log."""
        return f"volume {self.volume.metadata.name} reserved for {full_name(self.claim)}"


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

    def describe(self) -> str:
        """A sentence for the log."""
        return f"volume {self.volume.metadata.name} is {self.phase}"


@dataclass(frozen=True, slots=True)
class NameVolume:
    """Let the claim name the volume, for good."""

    claim: PersistentVolumeClaim
    volume: PersistentVolume

    def describe(self) -> str:
        """A sentence for the log."""
        return f"claim {full_name(self.claim)} takes volume {self.volume.metadata.name}"


@dataclass(frozen=True, slots=True)
class SetClaimPhase:
    """Say where the claim stands, and with a volume, what it got."""

    claim: PersistentVolumeClaim
    phase: str
    volume: PersistentVolume | None = None

    def describe(self) -> str:
        """A sentence for the log."""
        return f"claim {full_name(self.claim)} is {self.phase}"


Step = ReserveVolume | FreeVolume | SetVolumePhase | NameVolume | SetClaimPhase


@dataclass(frozen=True, slots=True)
class Report:
    """An event about the claim or volume that was looked at."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The next step, if any, and what there is to tell."""

    step: Step | None = None
    report: Report | None = None


def decide_claim(
    claim: PersistentVolumeClaim,
    named: PersistentVolume | None,
    reserved: Sequence[PersistentVolume],
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
        volume = choose_volume(claim, reserved)
        return _wait_for_volume(claim) if volume is None else Verdict(_bind(claim, volume))
    if named is None:
        return _pend(claim, "FailedBinding", f'volume "{claim.spec.volume_name}" not found')
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
    if claim.spec.volume_name:
        return Verdict(FreeVolume(volume))  # the claim went with another volume
    return Verdict()  # being bound: the claim's turn


def choose_volume(
    claim: PersistentVolumeClaim, reserved: Sequence[PersistentVolume]
) -> PersistentVolume | None:
    """The best of the volumes that are reserved for the claim and can serve it.

    A reservation stands above class and selector. Least waste first, then the name, where
    Kubernetes takes any.
    """
    fitting = [
        (_size(volume.spec.capacity), volume.metadata.name, volume)
        for volume in reserved
        if is_reserved_for(volume, claim) and not find_misfit(claim, volume, any_class=True)
    ]
    return min(fitting, key=lambda entry: entry[:2])[2] if fitting else None


def find_misfit(
    claim: PersistentVolumeClaim, volume: PersistentVolume, *, any_class: bool = False
) -> str:
    """Why a volume cannot serve a claim, or "". In the order and words of Kubernetes."""
    if volume.metadata.deletion_timestamp is not None:
        return f'the volume is marked for deletion "{volume.metadata.name}"'
    resources = claim.spec.resources
    if _size(volume.spec.capacity) < _size(resources.requests if resources else None):
        return "requested PV is too small"
    if not any_class and class_of_volume(volume) != class_of_claim(claim):
        return "storageClassName does not match"
    if (volume.spec.volume_mode or "Filesystem") != (claim.spec.volume_mode or "Filesystem"):
        return "incompatible volumeMode"
    if not set(claim.spec.access_modes or ()) <= set(volume.spec.access_modes or ()):
        return "incompatible accessMode"
    return ""


def is_reserved_for(volume: PersistentVolume, claim: PersistentVolumeClaim) -> bool:
    """Whether a volume's `claimRef` names the claim, and no other life of that name."""
    reference = volume.spec.claim_ref
    return (
        reference is not None
        and reference.namespace == claim.metadata.namespace
        and reference.name == claim.metadata.name
        and reference.uid in ("", claim.metadata.uid)
    )


def class_of_claim(claim: PersistentVolumeClaim) -> str:
    """The class a claim asks for; the old annotation beats the field."""
    annotated = (claim.metadata.annotations or {}).get(BETA_CLASS)
    return annotated if annotated is not None else claim.spec.storage_class_name or ""


def class_of_volume(volume: PersistentVolume) -> str:
    """The class a volume belongs to; the old annotation beats the field."""
    annotated = (volume.metadata.annotations or {}).get(BETA_CLASS)
    return annotated if annotated is not None else volume.spec.storage_class_name


def full_name(claim: PersistentVolumeClaim) -> str:
    """`namespace/name`."""
    return f"{claim.metadata.namespace}/{claim.metadata.name}"


def reference_to(claim: PersistentVolumeClaim) -> ObjectReference:
    """The `claimRef` that names exactly this claim."""
    return ObjectReference(
        kind="PersistentVolumeClaim",
        api_version="v1",
        namespace=claim.metadata.namespace,
        name=claim.metadata.name,
        uid=claim.metadata.uid,
        resource_version=claim.metadata.resource_version,
    )


def _bind(claim: PersistentVolumeClaim, volume: PersistentVolume) -> Step | None:
    reference = volume.spec.claim_ref
    if reference is None or reference.uid != claim.metadata.uid:
        return ReserveVolume(volume, claim)  # (1)
    if volume.status.phase != "Bound":
        return SetVolumePhase(volume, "Bound")  # (2)
    named = claim.spec.volume_name == volume.metadata.name
    if not named or BIND_COMPLETED not in (claim.metadata.annotations or {}):
        return NameVolume(claim, volume)  # (3)
    status = claim.status
    if (
        status.phase != "Bound"
        or not status.capacity
        or status.access_modes != volume.spec.access_modes
    ):
        return SetClaimPhase(claim, "Bound", volume)  # (4)
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


def _wait_for_volume(claim: PersistentVolumeClaim) -> Verdict:
    name = class_of_claim(claim)
    if name:
        return _pend(claim, "ProvisioningFailed", f'storageclass.storage.k8s.io "{name}" not found')
    return _pend(
        claim, "FailedBinding",
        "no persistent volumes available for this claim and no storage class is set",
    )  # fmt: skip


def _pend(claim: PersistentVolumeClaim, reason: str, message: str) -> Verdict:
    step = None if claim.status.phase == "Pending" else SetClaimPhase(claim, "Pending")
    return Verdict(step, Report(reason, message))


def _lose(claim: PersistentVolumeClaim, reason: str, message: str) -> Verdict:
    if claim.status.phase == "Lost":
        return Verdict()
    return Verdict(SetClaimPhase(claim, "Lost"), Report(reason, message))


def _release(volume: PersistentVolume) -> Verdict:
    if volume.status.phase in ("Released", "Failed"):
        return Verdict()
    report = None
    if volume.spec.persistent_volume_reclaim_policy == "Delete":
        report = Report(
            "VolumeFailedDelete",
            "the claim is gone and the volume's data is kept: nothing here deletes volumes of this "
            "kind; delete the volume's data and the PersistentVolume, or remove its claimRef to "
            "use it again",
        )
    return Verdict(SetVolumePhase(volume, "Released"), report)


def _volume_phase(volume: PersistentVolume, phase: str) -> Step | None:
    return None if volume.status.phase == phase else SetVolumePhase(volume, phase)


def _size(quantities: dict[str, str | int] | None) -> int:
    try:
        value = parse_quantity((quantities or {}).get("storage", 0))
    except QuantityError:
        return 0  # refused when it was declared; nothing is known of it
    return -(-value.numerator // value.denominator)
