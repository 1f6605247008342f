"""What the agent of a storage node may do beyond its own node's objects.

Of claims that were given to a storage node's provisioner: take those that no other storage node has
taken, and write those that it has. Of volumes: make and write those that bear its name. Of
VolumeAttachments: answer those that ask it, or that it holds. Of Secrets: those with its own
volumes' credentials, which have names of their own.

A node is a storage node by the label of its Node, which its own agent sets: whoever may join the
cluster may offer storage to it.
"""

from typing import Final

from volagent.api.auth import User, forbid
from volagent.client.contract import VOLUME_ATTACHMENTS
from volagent.client.shared import SharedCopies
from volagent.objects.annotations import PROVISIONED_BY, PROVISIONER
from volagent.objects.attachments import VolumeAttachment
from volagent.objects.meta import Document
from volagent.objects.rbac import Action
from volagent.objects.storage import PersistentVolume, PersistentVolumeClaim
from volagent.objects.storage_nodes import (
    CHAP_NAMESPACE,
    NFS_PROVISIONER,
    STORAGE_NODE,
    STORAGE_PROVISIONERS,
    STORAGE_ROLE,
    asked_to_show,
    is_chap_secret_of,
    may_be_shown_by,
    storage_node_of,
)
from volagent.objects.volumes import PV_SOURCES

_SECRET: Final = frozenset({"get", "patch", "delete"})


class StorageNodeRights:
    """Answers whether the agent of a storage node may do something."""

    def __init__(self, copies: SharedCopies) -> None:
        """Before `copies.run`."""
        self._nodes = copies.nodes
        self._attachments = copies.follow(VOLUME_ATTACHMENTS, VolumeAttachment)

    def may_make(self, node: str, claim: PersistentVolumeClaim) -> bool:
        """Whether a claim is this node's to make, or to take."""
        given_to = (claim.metadata.annotations or {}).get(PROVISIONER)
        if given_to not in STORAGE_PROVISIONERS or not self._is_storage(node):
            return False
        return storage_node_of(claim.metadata) in ("", node)

    def has_made(self, node: str, volume: PersistentVolume) -> bool:
        """Whether a volume is this node's."""
        made_by = (volume.metadata.annotations or {}).get(PROVISIONED_BY)
        return made_by in STORAGE_PROVISIONERS and storage_node_of(volume.metadata) == node

    def is_made_by(self, node: str, volume: Document) -> bool:
        """Whether a volume that is to be stored says that it is this node's."""
        annotations = (volume.get("metadata") or {}).get("annotations") or {}
        spec = volume.get("spec") or {}
        kinds = {kind for kind in spec if kind in PV_SOURCES and spec[kind] is not None}
        driver = (spec.get("csi") or {}).get("driver", NFS_PROVISIONER)
        return (
            # Never a path of other nodes: what is reached over the network is all it may offer.
            kinds <= {"iscsi", "csi"}
            and driver == NFS_PROVISIONER
            and annotations.get(PROVISIONED_BY) in STORAGE_PROVISIONERS
            and annotations.get(STORAGE_NODE) == node
            and self._is_storage(node)
        )

    def may_answer(self, node: str, name: str) -> bool:
        """Whether an attachment asks this node, or is held by it."""
        found = self._attachments.get("", name)
        return found is not None and node in (asked_to_show(found), may_be_shown_by(found))

    def may_write_secret(self, node: str, action: Action) -> bool:
        """Whether a Secret has the credentials of this node's own volumes."""
        if action.resource != "secrets" or action.namespace != CHAP_NAMESPACE:
            return False
        if action.verb == "create" and not action.name:
            return self._is_storage(node)  # its name is looked at by `check_secret`
        return action.verb in _SECRET and is_chap_secret_of(action.name, node)

    def check_secret(self, user: User, node: str, new: Document) -> None:
        """Raises `Forbidden`."""
        name = (new.get("metadata") or {}).get("name") or ""
        if not is_chap_secret_of(name, node):
            raise forbid(user, "create", f"secrets {name!r}: it is not its own volumes'")

    def _is_storage(self, node: str) -> bool:
        found = self._nodes.get("", node)
        return found is not None and STORAGE_ROLE in (found.metadata.labels or {})
