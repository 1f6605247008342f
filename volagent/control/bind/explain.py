"""Why a claim has the volume that it has, or none: every volume and its reason. Pure.

Works on what the API shows, so that the command line can ask it about any server.
"""

from collections.abc import Sequence
from typing import Any

from volagent.control.bind.match import full_name
from volagent.control.bind.rejections import find_rejections
from volagent.objects.annotations import PROVISIONER, SELECTED_NODE
from volagent.objects.classes import (
    NO_PROVISIONER,
    WAIT_FOR_FIRST_CONSUMER,
    choose_default_class,
    class_of_claim,
)
from volagent.objects.pod import Pod
from volagent.objects.pod_claims import claim_source_of
from volagent.objects.storage import PersistentVolume, PersistentVolumeClaim, StorageClass


def explain_claim(
    claim: PersistentVolumeClaim,
    volumes: Sequence[PersistentVolume],
    classes: Sequence[StorageClass],
    pods: Sequence[Pod],
) -> dict[str, Any]:
    """`claim`, `phase`, `volume`, `class`, `pods`, `waits`, `remedy` and `rejected`."""
    name = class_of_claim(claim)
    storage_class = next((each for each in classes if each.metadata.name == name), None)
    users = [
        pod
        for pod in pods
        if any(
            source is not None and source.claim_name == claim.metadata.name
            for source in (claim_source_of(pod, volume) for volume in pod.spec.volumes or ())
        )
    ]
    waits, remedy = "", ""
    if claim.metadata.deletion_timestamp is not None:
        waits = "it is to be deleted, and stays until no pod uses it"
        remedy = f"delete {', '.join(pod.metadata.name for pod in users)}" if users else ""
    elif claim.status.phase == "Lost":
        waits = f"its volume {claim.spec.volume_name} is gone"
        remedy = (
            f"make PersistentVolume {claim.spec.volume_name} again, or see `volagent trash list`"
        )
    elif claim.status.phase != "Bound":
        waits, remedy = _explain_wait(claim, storage_class, users, choose_default_class(classes))
    rejected = [] if claim.status.phase == "Bound" else find_rejections(claim, volumes)
    return {
        "claim": full_name(claim),
        "phase": claim.status.phase or "Pending",
        "volume": claim.spec.volume_name,
        "class": name,
        "provisioner": storage_class.provisioner if storage_class is not None else "",
        "pods": [pod.metadata.name for pod in users],
        "waits": waits,
        "remedy": remedy,
        "rejected": [
            {"volume": each.volume, "reason": each.reason or "it fits"} for each in rejected
        ],
    }


def _explain_wait(
    claim: PersistentVolumeClaim,
    storage_class: StorageClass | None,
    users: Sequence[Pod],
    default: StorageClass | None,
) -> tuple[str, str]:
    """What a claim without a volume waits for, and what to do."""
    annotations = claim.metadata.annotations or {}
    name = class_of_claim(claim)
    if claim.spec.volume_name:
        return (
            f"it names the volume {claim.spec.volume_name}, which it cannot have",
            "see the volume's reason below; make it fit, or make the claim again",
        )
    if not name:
        known = f"; {default.metadata.name} is the default" if default is not None else ""
        return (
            "no volume without a class fits",
            f"make a PersistentVolume that fits, or name a class{known}",
        )
    if storage_class is None:
        return (
            f'there is no StorageClass "{name}", and no volume of that class fits',
            f"make the class, or a PersistentVolume with storageClassName {name}",
        )
    waits_for_pod = storage_class.volume_binding_mode == WAIT_FOR_FIRST_CONSUMER
    if waits_for_pod and SELECTED_NODE not in annotations:
        if not users:
            return ("it waits for the first pod that uses it", "declare the pod")
        names = ", ".join(pod.metadata.name for pod in users)
        return (
            f"no node was found for {names}",
            f"see `volagent describe pod {users[0].metadata.name}`",
        )
    if storage_class.provisioner == NO_PROVISIONER:
        return (
            f"volumes of class {name} are made by hand, and none fits",
            f"make a PersistentVolume with storageClassName {name}",
        )
    asked = annotations.get(PROVISIONER, storage_class.provisioner)
    return (
        f"{asked} has been asked to make its volume",
        "its events say how that goes; a provisioner that is none of this daemon's has to run",
    )
