"""Which claims pods want made for them, and which have outlived their pods. Pure.

Source: Kubernetes `pkg/controller/volume/ephemeral` and its garbage collector, of which only the
part is needed that lets claims go with the pods that own them.
"""

from dataclasses import dataclass

from volagent.objects.meta import Document
from volagent.objects.pod import Pod
from volagent.objects.pod_claims import ephemeral_claim_name, is_owned_by
from volagent.objects.storage import PersistentVolumeClaim
from volagent.objects.volumes import Volume


@dataclass(frozen=True, slots=True)
class Make:
    """Make this claim."""

    name: str
    document: Document


@dataclass(frozen=True, slots=True)
class Refuse:
    """Another claim has the name."""

    name: str
    message: str


def decide_volume(
    pod: Pod, volume: Volume, claim: PersistentVolumeClaim | None
) -> Make | Refuse | None:
    """What to do about one volume of a pod; `claim` is the one of its claim's name."""
    template = volume.ephemeral.volume_claim_template if volume.ephemeral is not None else None
    if template is None or pod.metadata.deletion_timestamp is not None:
        return None
    name = ephemeral_claim_name(pod.metadata.name, volume.name)
    if claim is None:
        return Make(name, _describe(pod, name, template.metadata or {}, template.spec or {}))
    if is_owned_by(claim, pod.metadata):
        return None
    return Refuse(
        name,
        f'PVC {pod.metadata.namespace}/{name} was not created for pod "{pod.metadata.name}" (pod is'
        " not owner); delete or rename it",
    )


def owners_of(claim: PersistentVolumeClaim) -> list[tuple[str, str]]:
    """Name and uid of the pods that a claim goes with; empty when something else keeps it."""
    references = claim.metadata.owner_references or []
    if not references or any(owner.kind != "Pod" for owner in references):
        return []
    return [(owner.name, owner.uid) for owner in references]


def _describe(pod: Pod, name: str, metadata: Document, spec: Document) -> Document:
    owner = {
        "apiVersion": "v1", "kind": "Pod", "name": pod.metadata.name, "uid": pod.metadata.uid,
        "controller": True, "blockOwnerDeletion": True,
    }  # fmt: skip
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": name,
            "labels": metadata.get("labels") or {},
            "annotations": metadata.get("annotations") or {},
            "ownerReferences": [owner],
        },
        "spec": spec,
    }
