"""Which claims a pod's volumes use: those it names, and those made for it. Pure."""

from volagent.objects.meta import ObjectMeta
from volagent.objects.pod import Pod
from volagent.objects.storage import PersistentVolumeClaim
from volagent.objects.volumes import ClaimSource, Volume


def claim_source_of(pod: Pod, volume: Volume) -> ClaimSource | None:
    """The claim behind a volume: named, or made for a generic ephemeral one; None for others."""
    if volume.persistent_volume_claim is not None:
        return volume.persistent_volume_claim
    if volume.ephemeral is not None:
        return ClaimSource(ephemeral_claim_name(pod.metadata.name, volume.name))
    return None


def ephemeral_claim_name(pod: str, volume: str) -> str:
    """The name of the claim of a generic ephemeral volume, as Kubernetes makes it."""
    return f"{pod}-{volume}"


def is_owned_by(claim: PersistentVolumeClaim, pod: ObjectMeta) -> bool:
    """Whether a claim was made for exactly this pod."""
    return any(
        owner.uid == pod.uid and owner.controller for owner in claim.metadata.owner_references or ()
    )


def find_mode_conflict(pod: Pod, volume: str, *, block: bool) -> tuple[str, str] | None:
    """What is wrong with how the containers use a volume of that mode, and the remedy."""
    for container in (*(pod.spec.init_containers or ()), *pod.spec.containers):
        mounted = any(mount.name == volume for mount in container.volume_mounts or ())
        mapped = any(device.name == volume for device in container.volume_devices or ())
        if block and mounted:
            return (
                f"volume {volume} has volumeMode Block, but is specified in volumeMounts",
                f"use volumeDevices in container {container.name}",
            )
        if not block and mapped:
            return (
                f"volume {volume} has volumeMode Filesystem, but is specified in volumeDevices",
                f"use volumeMounts in container {container.name}",
            )
    return None
