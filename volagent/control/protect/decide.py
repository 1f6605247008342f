"""What is in use is not removed. Pure.

A claim is held by `pvc-protection` while a pod uses it, a volume by `pv-protection` while it is
bound. As in Kubernetes only a pod with a node uses a claim, and one that has finished still does,
until it is deleted. Source: Kubernetes `pkg/controller/volume/{pvcprotection,pvprotection}`.
"""

import enum
from collections.abc import Iterable, Iterator

from volagent.objects.annotations import CLAIM_PROTECTION, VOLUME_PROTECTION
from volagent.objects.meta import ObjectMeta
from volagent.objects.pod import Pod
from volagent.objects.pod_claims import claim_source_of
from volagent.objects.storage import PersistentVolume, PersistentVolumeClaim


class Step(enum.Enum):
    """What is to be done with an object's protection."""

    PROTECT = "protect"
    """It lacks the finalizer: put it on."""
    RELEASE = "release"
    """It is going and not in use: take it off."""


def decide_claim(claim: PersistentVolumeClaim, pods: Iterable[Pod]) -> Step | None:
    """The next step for a claim; `pods` are those of its namespace."""
    step = _decide(claim.metadata, CLAIM_PROTECTION)
    return None if step is Step.RELEASE and find_user(claim, pods) is not None else step


def decide_volume(volume: PersistentVolume, claim: PersistentVolumeClaim | None) -> Step | None:
    """The next step for a volume; `claim` is the one its `claimRef` names, if it exists."""
    step = _decide(volume.metadata, VOLUME_PROTECTION)
    if step is not Step.RELEASE:
        return step
    if volume.status.phase == "Bound" or _has(claim, volume):
        return None
    return step


def find_user(claim: PersistentVolumeClaim, pods: Iterable[Pod]) -> Pod | None:
    """A pod that keeps the claim, or None."""
    name, namespace = claim.metadata.name, claim.metadata.namespace
    for pod in pods:
        if pod.metadata.namespace == namespace and pod.spec.node_name and name in claims_of(pod):
            return pod
    return None


def claims_of(pod: Pod) -> Iterator[str]:
    """The names of the claims that a pod's volumes use, made for it or named."""
    for volume in pod.spec.volumes or ():
        source = claim_source_of(pod, volume)
        if source is not None:
            yield source.claim_name


def _decide(metadata: ObjectMeta, finalizer: str) -> Step | None:
    held = finalizer in (metadata.finalizers or ())
    if metadata.deletion_timestamp is None:
        return None if held else Step.PROTECT
    return Step.RELEASE if held else None


def _has(claim: PersistentVolumeClaim | None, volume: PersistentVolume) -> bool:
    reference = volume.spec.claim_ref
    return (
        claim is not None
        and reference is not None
        and reference.uid in ("", claim.metadata.uid)
        and claim.spec.volume_name == volume.metadata.name
    )
