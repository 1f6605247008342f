"""Attachments: a volume is on a node, as VolumeAttachments and the status of nodes say it. Pure.

`status.volumesAttached` of a Node is written by the controller, `status.volumesInUse` by the node
itself. A node touches a disk only while one version of its Node has the disk in both lists; the
controller takes a disk from the first list only while it is not in the second. Both write the
Node only in the version that they have read, so a disk is never used and given back at once.

Source: Kubernetes' `GetUniqueVolumeName` and its attach/detach controller; the lists have the same
meaning there.
"""

import hashlib
from collections.abc import Collection
from typing import Any, Final

from volagent.objects.meta import TypedObject, View
from volagent.objects.storage import Node

ATTACHER: Final = "volagent.dev"
"""`spec.attacher` of the attachments that volagent's own controller looks after."""
VOLUME: Final = "volagent.dev/volume"
"""Annotation: the unique name of the volume."""
EXCLUSIVE: Final = "volagent.dev/exclusive"
"""Annotation: `true` when no other node may have the volume."""
OUT_OF_SERVICE: Final = "node.kubernetes.io/out-of-service"
"""Taint: a person's word that a node is off."""
CONFIRMED_BOOT: Final = "volagent.dev/confirmed-off"
"""Annotation of a Node: which boot of it that word is about."""
DETACH_FINALIZER: Final = "volagent.dev/detach"
"""Goes when the storage has taken the volume from the node."""
DEVICE_PATH: Final = "devicePath"
"""Of `status.attachmentMetadata`: the name under which the storage attached the disk."""
_CSI: Final = "kubernetes.io/csi/"


class AttachmentSource(View, frozen=True):
    """`spec.source` of a VolumeAttachment."""

    persistent_volume_name: str | None = None
    inline_volume_spec: dict[str, Any] | None = None


class AttachmentSpec(View, frozen=True):
    """`spec` of a VolumeAttachment: the wish."""

    attacher: str = ""
    source: AttachmentSource = AttachmentSource()
    node_name: str = ""


class AttachmentError(View, frozen=True):
    """What went wrong, and when (RFC 3339)."""

    time: str | None = None
    message: str = ""


class AttachmentStatus(View, frozen=True):
    """`status` of a VolumeAttachment: how far it is."""

    attached: bool = False
    attachment_metadata: dict[str, str] | None = None
    attach_error: AttachmentError | None = None
    detach_error: AttachmentError | None = None


class VolumeAttachment(TypedObject, frozen=True):
    """A VolumeAttachment (cluster-scoped): one volume is to be on one node."""

    spec: AttachmentSpec = AttachmentSpec()
    status: AttachmentStatus = AttachmentStatus()


def unique_name(driver: str, identity: str) -> str:
    """`kubernetes.io/iscsi/<identity>`, or `kubernetes.io/csi/<driver>^<identity>`."""
    if driver.startswith("kubernetes.io/"):
        return f"{driver}/{identity}"
    return f"{_CSI}{driver}^{identity}"


def split_name(volume: str) -> tuple[str, str]:
    """The driver and the identity in a unique name."""
    if volume.startswith(_CSI):
        driver, _, identity = volume.removeprefix(_CSI).partition("^")
        return driver, identity
    first, _, rest = volume.partition("/")
    second, _, identity = rest.partition("/")
    return f"{first}/{second}", identity


def attachment_name(volume: str, node: str, *, exclusive: bool) -> str:
    """The name of the VolumeAttachment of a volume, by its unique name.

    That of an exclusive one does not depend on the node, so that the store itself refuses a second.
    """
    subject = volume if exclusive else f"{volume}\0{node}"
    return f"volagent-{hashlib.sha256(subject.encode()).hexdigest()}"


def limit_name(driver: str) -> str:
    """The resource of a Node that says how many volumes of a driver it takes."""
    if driver.startswith("kubernetes.io/"):
        return f"attachable-volumes-{driver.removeprefix('kubernetes.io/')}"
    return f"attachable-volumes-csi-{driver}"


def is_shareable(
    modes: Collection[str], *, block: bool, read_only: bool, files: bool = False
) -> bool:
    """Whether several nodes may have a disk at once.

    Those that only read it, and raw ones whose users say that they share it. A file system that is
    mounted by two kernels is destroyed by the first write, so ReadWriteMany does not allow that;
    one that another machine keeps for them (`files`) is made for it.
    """
    if read_only or set(modes) == {"ReadOnlyMany"}:
        return True
    return (block or files) and "ReadWriteMany" in modes


def is_ready(node: Node) -> bool:
    """Whether a node's agent is heard of."""
    return any(
        each.type == "Ready" and each.status == "True" for each in node.status.conditions or ()
    )


def is_out_of_service(node: Node) -> bool:
    """Whether a node is off by a person's word, and by its silence."""
    told = any(taint.key == OUT_OF_SERVICE for taint in node.spec.taints or ())
    return told and not is_ready(node)
