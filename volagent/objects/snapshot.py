"""Typed views of snapshots: the request, what was made of it, and its class.

Source: external-snapshotter `client/apis/volumesnapshot/v1/types.go`. A VolumeSnapshot and its
VolumeSnapshotContent are to each other what a claim and its volume are.
"""

from typing import Any

from volagent.objects.meta import ObjectReference, TypedObject, View

DEFAULT_SNAPSHOT_CLASS = "snapshot.storage.kubernetes.io/is-default-class"
"""Annotation of a VolumeSnapshotClass: "true" for the one of snapshots that name none."""


class SnapshotSource(View, frozen=True):
    """`spec.source` of a VolumeSnapshot; exactly one is set."""

    persistent_volume_claim_name: str | None = None
    """The claim, of the same namespace, that is copied."""
    volume_snapshot_content_name: str | None = None
    """The content that exists already."""


class VolumeSnapshotSpec(View, frozen=True):
    """`spec` of a VolumeSnapshot."""

    source: SnapshotSource = SnapshotSource()
    volume_snapshot_class_name: str | None = None


class SnapshotError(View, frozen=True):
    """What went wrong last, and when (RFC 3339)."""

    time: str | None = None
    message: str | None = None


class VolumeSnapshotStatus(View, frozen=True):
    """`status` of a VolumeSnapshot; both sides must name each other before it counts as bound."""

    bound_volume_snapshot_content_name: str | None = None
    creation_time: str | None = None
    """When the copy was taken, RFC 3339."""
    ready_to_use: bool | None = None
    restore_size: str | int | None = None
    """The least size of a volume that is made from it, a quantity."""
    error: SnapshotError | None = None


class VolumeSnapshot(TypedObject, frozen=True):
    """A VolumeSnapshot: somebody wants a copy of a claim as it is now."""

    spec: VolumeSnapshotSpec = VolumeSnapshotSpec()
    status: VolumeSnapshotStatus = VolumeSnapshotStatus()


class VolumeSnapshotClass(TypedObject, frozen=True):
    """A VolumeSnapshotClass (cluster-scoped): who makes snapshots, and what becomes of them."""

    driver: str = ""
    parameters: dict[str, str] | None = None
    deletion_policy: str = ""
    """`Delete` or `Retain`; required."""


class ContentSource(View, frozen=True):
    """`spec.source` of a VolumeSnapshotContent; exactly one is set."""

    volume_handle: str | None = None
    """The volume that a copy is to be taken of."""
    snapshot_handle: str | None = None
    """The copy that exists already."""


class VolumeSnapshotContentSpec(View, frozen=True):
    """`spec` of a VolumeSnapshotContent."""

    volume_snapshot_ref: ObjectReference = ObjectReference()
    """The VolumeSnapshot it belongs to; its uid is set once they are bound."""
    deletion_policy: str = ""
    driver: str = ""
    volume_snapshot_class_name: str | None = None
    source: ContentSource = ContentSource()
    source_volume_mode: str | None = None


class VolumeSnapshotContentStatus(View, frozen=True):
    """`status` of a VolumeSnapshotContent: what is there in the backend."""

    snapshot_handle: str | None = None
    creation_time: int | None = None
    """When the copy was taken, nanoseconds since the epoch."""
    restore_size: int | None = None
    """The least size of a volume that is made from it, bytes."""
    ready_to_use: bool | None = None
    error: SnapshotError | None = None


class VolumeSnapshotContent(TypedObject, frozen=True):
    """A VolumeSnapshotContent (cluster-scoped): one copy in a backend."""

    spec: VolumeSnapshotContentSpec = VolumeSnapshotContentSpec()
    status: VolumeSnapshotContentStatus = VolumeSnapshotContentStatus()


class TypedReference(View, frozen=True):
    """`spec.dataSource` and `spec.dataSourceRef` of a claim: what it is filled from."""

    api_group: str | None = None
    """The group of `kind`; empty for the core group."""
    kind: str = ""
    name: str = ""
    namespace: str | None = None
    """In `dataSourceRef` only; the claim's own when not given."""


def is_default_snapshot_class(document: dict[str, Any]) -> bool:
    """Whether a VolumeSnapshotClass is taken by snapshots that name none."""
    annotations = document["metadata"].get("annotations") or {}
    return bool(annotations.get(DEFAULT_SNAPSHOT_CLASS) == "true")
