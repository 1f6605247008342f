"""What brings one VolumeSnapshot, or one VolumeSnapshotContent, a step further. Pure.

The pair is like a claim and its volume. A snapshot of a claim goes: (1) the snapshot is protected,
(2) its content is recorded, *before* anything is asked of a backend, so that nothing can be left
behind unknown, (3) the backend takes it and the content's status says so, (4) the snapshot's status
says so. The way back: the content first, with the copy in the backend when its policy is Delete,
then the snapshot. Names, finalizers and texts are those of Kubernetes' external-snapshotter.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from volagent.objects.meta import Document, ObjectMeta
from volagent.objects.snapshot import (
    VolumeSnapshot,
    VolumeSnapshotClass,
    VolumeSnapshotContent,
)
from volagent.objects.storage import PersistentVolume, PersistentVolumeClaim

SNAPSHOT_PROTECTION = "snapshot.storage.kubernetes.io/volumesnapshot-bound-protection"
CONTENT_PROTECTION = "snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection"
SOURCE_VOLUME = "volagent.dev/source-volume"
"""Content: the PersistentVolume that the copy is of."""


@dataclass(frozen=True, slots=True)
class Protect:
    """Put the finalizer on."""

    metadata: ObjectMeta
    finalizer: str


@dataclass(frozen=True, slots=True)
class Unprotect:
    """Take the finalizer off: the object may go."""

    metadata: ObjectMeta
    finalizer: str


@dataclass(frozen=True, slots=True)
class MakeContent:
    """Record the content of a snapshot that is to be taken."""

    document: Document


@dataclass(frozen=True, slots=True)
class BindContent:
    """Let a content that existed before name its snapshot by uid."""

    content: VolumeSnapshotContent
    snapshot: VolumeSnapshot


@dataclass(frozen=True, slots=True)
class SetStatus:
    """Say where the snapshot stands (a merge patch of its status)."""

    snapshot: VolumeSnapshot
    status: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class DeleteContent:
    """Delete the content of a snapshot that goes."""

    content: VolumeSnapshotContent


@dataclass(frozen=True, slots=True)
class Take:
    """Have the backend take the copy."""

    content: VolumeSnapshotContent


@dataclass(frozen=True, slots=True)
class Adopt:
    """A copy that was there before is ready."""

    content: VolumeSnapshotContent
    handle: str


@dataclass(frozen=True, slots=True)
class Drop:
    """Have the backend delete the copy."""

    content: VolumeSnapshotContent


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing can be done yet; why, for the event and the status."""

    reason: str
    message: str


SnapshotStep = (
    Protect | Unprotect | MakeContent | BindContent | SetStatus | DeleteContent | Wait | None
)
ContentStep = Protect | Unprotect | Take | Adopt | Drop | Wait | None


@dataclass(frozen=True, slots=True)
class Source:
    """What a snapshot of a claim is taken of, as far as it was found."""

    claim: PersistentVolumeClaim | None = None
    volume: PersistentVolume | None = None
    driver: str = ""
    """Who made the volume."""


def content_name(snapshot: ObjectMeta) -> str:
    """The name of the content that is made for a snapshot."""
    return f"snapcontent-{snapshot.uid}"


def decide_snapshot(
    snapshot: VolumeSnapshot,
    content: VolumeSnapshotContent | None,
    source: Source,
    snapshot_class: VolumeSnapshotClass | None,
    *,
    is_source: bool,
) -> SnapshotStep:
    """The next step for a snapshot.

    `content` is the one of its name (made for it, or named in its source), `is_source` whether a
    claim is just being filled from it.
    """
    metadata = snapshot.metadata
    protected = SNAPSHOT_PROTECTION in (metadata.finalizers or ())
    if metadata.deletion_timestamp is not None:
        return _let_go(snapshot, content, protected=protected, is_source=is_source)
    if not protected:
        return Protect(metadata, SNAPSHOT_PROTECTION)  # (1)
    if content is None:
        return _missing_content(snapshot, source, snapshot_class)
    reference = content.spec.volume_snapshot_ref
    named = (reference.namespace, reference.name) == (metadata.namespace, metadata.name)
    if not named or reference.uid not in ("", metadata.uid):
        return Wait(
            "SnapshotContentMisbound",
            f"VolumeSnapshotContent [{content.metadata.name}] is bound to a different snapshot",
        )
    if not reference.uid:
        return BindContent(content, snapshot)
    status = _status_of(content)
    held = snapshot.status
    if (
        held.bound_volume_snapshot_content_name != content.metadata.name
        or bool(held.ready_to_use) != bool(content.status.ready_to_use)
        or (held.error and held.error.message) != (status["error"] or {}).get("message")
    ):
        return SetStatus(snapshot, status)  # (4)
    return None


def _missing_content(
    snapshot: VolumeSnapshot, source: Source, snapshot_class: VolumeSnapshotClass | None
) -> SnapshotStep:
    if snapshot.status.bound_volume_snapshot_content_name:
        return Wait("SnapshotContentMissing", "VolumeSnapshotContent is missing")
    wanted = snapshot.spec.source
    if wanted.volume_snapshot_content_name:
        return Wait(
            "SnapshotContentMissing",
            f"VolumeSnapshotContent [{wanted.volume_snapshot_content_name}] is missing",
        )
    claim = wanted.persistent_volume_claim_name
    if source.claim is None:
        return Wait("SnapshotContentCreationFailed", f'the claim "{claim}" does not exist')
    if source.volume is None:
        text = f'the claim "{claim}" has no volume yet'
        return Wait("SnapshotContentCreationFailed", text)
    if snapshot_class is None:
        name = snapshot.spec.volume_snapshot_class_name
        text = (
            f'VolumeSnapshotClass "{name}" not found'
            if name
            else f"no VolumeSnapshotClass is named and none for {source.driver} is the default"
        )
        return Wait("GetSnapshotClassFailed", text)
    if snapshot_class.driver != source.driver:
        text = (
            f'the class "{snapshot_class.metadata.name}" is for driver {snapshot_class.driver}, but'
            f" the volume was made by {source.driver or 'hand'}"
        )
        return Wait("SnapshotContentCreationFailed", text)
    return MakeContent(_describe(snapshot, source.volume, snapshot_class))  # (2)


def _let_go(
    snapshot: VolumeSnapshot,
    content: VolumeSnapshotContent | None,
    *,
    protected: bool,
    is_source: bool,
) -> SnapshotStep:
    if is_source:
        return Wait("SnapshotDeletePending", "a claim is just being filled from this snapshot")
    ours = content is not None and content.spec.volume_snapshot_ref.uid == snapshot.metadata.uid
    if content is not None and ours and content.spec.deletion_policy == "Delete":
        return None if content.metadata.deletion_timestamp else DeleteContent(content)
    return Unprotect(snapshot.metadata, SNAPSHOT_PROTECTION) if protected else None


def decide_content(content: VolumeSnapshotContent, *, snapshot_exists: bool) -> ContentStep:
    """The next step for a content whose driver is one of ours."""
    metadata = content.metadata
    protected = CONTENT_PROTECTION in (metadata.finalizers or ())
    bound = bool(content.spec.volume_snapshot_ref.uid)
    if metadata.deletion_timestamp is not None:
        if not protected:
            return None
        if bound and snapshot_exists and content.spec.deletion_policy != "Delete":
            return Wait("SnapshotContentDeletePending", "its VolumeSnapshot still exists")
        if content.spec.deletion_policy == "Delete":
            return Drop(content)
        return Unprotect(metadata, CONTENT_PROTECTION)
    if not protected:
        return Protect(metadata, CONTENT_PROTECTION)
    if content.status.ready_to_use:
        return None
    handle = content.spec.source.snapshot_handle
    return Adopt(content, handle) if handle else Take(content)  # (3)


def _status_of(content: VolumeSnapshotContent) -> dict[str, Any]:
    """The snapshot's status, from its content's."""
    held = content.status
    error = None
    if held.error is not None:
        error = {"time": held.error.time, "message": held.error.message}
    return {
        "boundVolumeSnapshotContentName": content.metadata.name,
        "readyToUse": bool(held.ready_to_use),
        "restoreSize": str(held.restore_size) if held.restore_size else None,
        "error": error,
    }


def _describe(
    snapshot: VolumeSnapshot, volume: PersistentVolume, snapshot_class: VolumeSnapshotClass
) -> Document:
    handle = volume.spec.csi.volume_handle if volume.spec.csi is not None else ""
    return {
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshotContent",
        "metadata": {
            "name": content_name(snapshot.metadata),
            "annotations": {SOURCE_VOLUME: volume.metadata.name},
            "finalizers": [CONTENT_PROTECTION],
        },
        "spec": {
            "deletionPolicy": snapshot_class.deletion_policy,
            "driver": snapshot_class.driver,
            "volumeSnapshotClassName": snapshot_class.metadata.name,
            "source": {"volumeHandle": handle or volume.metadata.name},
            "sourceVolumeMode": volume.spec.volume_mode or "Filesystem",
            "volumeSnapshotRef": {
                "apiVersion": "snapshot.storage.k8s.io/v1",
                "kind": "VolumeSnapshot",
                "namespace": snapshot.metadata.namespace,
                "name": snapshot.metadata.name,
                "uid": snapshot.metadata.uid,
            },
        },
    }
