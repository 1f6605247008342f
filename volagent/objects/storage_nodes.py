"""Storage nodes: VMs that make volumes of their disks, which others reach over the network. Pure.

A volume of a storage node is *shown* to a node by its storage node and nobody else; the server asks
for it on the VolumeAttachment (docs/adr/0012), and so does it for the way back.
"""

from typing import Final

from volagent.objects.attachments import VolumeAttachment
from volagent.objects.meta import ObjectMeta

ISCSI_PROVISIONER: Final = "iscsi.volagent.dev"
NFS_PROVISIONER: Final = "nfs.volagent.dev"
STORAGE_PROVISIONERS: Final = (ISCSI_PROVISIONER, NFS_PROVISIONER)
"""Provisioners that run on storage nodes."""

STORAGE_NODE: Final = "volagent.dev/storage-node"
"""Claim and volume: the storage node that makes it, or has made it. Parameter of a class: the only
one that may."""
STORAGE_ROLE: Final = "node-role.kubernetes.io/storage"
"""Label of a storage node's Node."""
STORAGE_ROOM: Final = "volagent.dev/storage-room"
"""Annotation of a storage node's Node: what its volumes have room for, as JSON."""
NEARLY_FULL_PERCENT: Final = 80
"""From here on a thin pool is told to be nearly full."""
INITIATOR: Final = "volagent.dev/iscsi-initiator"
"""Annotation of a Node: the name of its iSCSI initiator."""

SHOW: Final = "volagent.dev/show"
"""Annotation of a VolumeAttachment, the server's: this storage node is to show the volume."""
SHOWN: Final = "volagent.dev/shown"
"""Finalizer of a VolumeAttachment: its storage node may be showing the volume. Put on before it
does, taken off when the node cannot reach the volume any more, as read back."""
SHOWN_BY: Final = "volagent.dev/shown-by"
"""Annotation: whose finalizer that is."""
SHOWN_AS: Final = "volagent.dev/shown-as"
"""Annotation: the volume is shown, and as what."""
SHOW_ERROR: Final = "volagent.dev/show-error"
"""Annotation: why it is not shown, or still is."""

CHAP_NAMESPACE: Final = "kube-system"
_CHAP_PREFIX: Final = "iscsi-"


def storage_node_of(metadata: ObjectMeta) -> str:
    """The storage node of a claim or volume, or ""."""
    return (metadata.annotations or {}).get(STORAGE_NODE, "")


def asked_to_show(attachment: VolumeAttachment) -> str:
    """The storage node that is to show an attachment's volume, or ""."""
    return (attachment.metadata.annotations or {}).get(SHOW, "")


def may_be_shown_by(attachment: VolumeAttachment) -> str:
    """The storage node that may be showing it, or ""."""
    if SHOWN not in (attachment.metadata.finalizers or ()):
        return ""
    return (attachment.metadata.annotations or {}).get(SHOWN_BY, "")


def chap_secret(volume: str, storage_node: str) -> str:
    """The name of the Secret with a volume's credentials, in `CHAP_NAMESPACE`."""
    return f"{_CHAP_PREFIX}{volume}.{storage_node}"


def is_chap_secret_of(name: str, storage_node: str) -> bool:
    """Whether a Secret of this name is that storage node's to write.

    Volumes' names have no dot, so no node's name is taken for the end of another's.
    """
    return name.startswith(_CHAP_PREFIX) and name.partition(".")[2] == storage_node
