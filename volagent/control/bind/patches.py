"""What each step of binding writes: the merge patch, on the version it was decided on. Pure."""

from typing import Any

import msgspec

from volagent.client.contract import WITH_STATUS
from volagent.control.bind.decide import (
    AskProvisioner,
    BindClaim,
    BindVolume,
    ChooseClass,
    FreeVolume,
    SetClaimPhase,
    SetVolumePhase,
    Step,
)
from volagent.control.bind.match import reference_to
from volagent.objects.annotations import (
    BETA_PROVISIONER,
    BIND_COMPLETED,
    BOUND_BY_CONTROLLER,
    PROVISIONER,
    PROVISIONING,
)
from volagent.objects.meta import Document, ObjectMeta


def patch_of(step: Step) -> tuple[Document, str]:
    """The merge patch that writes a step, and its sub-resource."""
    match step:
        case BindVolume():
            return _bind_volume(step), WITH_STATUS
        case BindClaim():
            return _bind_claim(step), WITH_STATUS
        case FreeVolume(volume):
            if BOUND_BY_CONTROLLER in (volume.metadata.annotations or {}):
                change = _metadata(volume.metadata, {BOUND_BY_CONTROLLER: None})
                return {**change, "spec": {"claimRef": None}}, ""
            # Somebody else reserved it: the reservation stays, open for a new claim of that name.
            nobody = {"uid": None, "resourceVersion": None}
            return {**_metadata(volume.metadata), "spec": {"claimRef": nobody}}, ""
        case SetVolumePhase(volume, phase, message):
            status = {"phase": phase, "message": message or None, "reason": None}
            return {**_metadata(volume.metadata), "status": status}, "status"
        case SetClaimPhase(claim, phase):
            status = {"phase": phase, "accessModes": None, "capacity": None}
            return {**_metadata(claim.metadata), "status": status}, "status"
        case ChooseClass(claim, name):
            return {**_metadata(claim.metadata), "spec": {"storageClassName": name}}, ""
        case AskProvisioner(claim, provisioner, ours):
            change = _metadata(
                claim.metadata, {PROVISIONER: provisioner, BETA_PROVISIONER: provisioner}
            )
            held = claim.metadata.finalizers or []
            if ours and PROVISIONING not in held:
                change["metadata"]["finalizers"] = [*held, PROVISIONING]
            return change, ""


def _bind_volume(step: BindVolume) -> Document:
    volume, claim = step.volume, step.claim
    reference = volume.spec.claim_ref
    annotations = {BOUND_BY_CONTROLLER: "yes"} if reference is None else {}
    change = _metadata(volume.metadata, annotations)
    if reference is None or reference.uid != claim.metadata.uid:
        change["spec"] = {"claimRef": msgspec.to_builtins(reference_to(claim))}
    return {**change, "status": {"phase": "Bound", "message": None, "reason": None}}


def _bind_claim(step: BindClaim) -> Document:
    claim, volume = step.claim, step.volume
    annotations = {BIND_COMPLETED: "yes"}
    if not claim.spec.volume_name:
        annotations[BOUND_BY_CONTROLLER] = "yes"
    status: dict[str, Any] = {"phase": "Bound", "accessModes": volume.spec.access_modes}
    if claim.status.phase != "Bound" or not claim.status.capacity:
        # Once bound it does not follow the volume: growing is a request of its own.
        status["capacity"] = volume.spec.capacity
    return {
        **_metadata(claim.metadata, annotations),
        "spec": {"volumeName": volume.metadata.name},
        "status": status,
    }


def _metadata(metadata: ObjectMeta, annotations: dict[str, Any] | None = None) -> Document:
    change: Document = {"resourceVersion": metadata.resource_version}
    if annotations:
        change["annotations"] = annotations
    return {"metadata": change}
