"""What lost nodes have, by the copies of VolumeAttachments, Nodes and Fencings."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from volagent.client.contract import FENCINGS, VOLUME_ATTACHMENTS
from volagent.client.informer import Key
from volagent.client.shared import SharedCopies
from volagent.control.attach.decide import is_in_use
from volagent.control.attach.wants import claims_of
from volagent.objects.attachments import (
    ATTACHER,
    EXCLUSIVE,
    VOLUME,
    VolumeAttachment,
    is_out_of_service,
    is_ready,
)
from volagent.objects.fencing import Fencing, fencing_name, is_withheld
from volagent.objects.storage import Node

FencingListener = Callable[[Fencing | None, Fencing | None], None]


@dataclass(frozen=True, slots=True)
class Stranded:
    """An exclusive disk that a node has and may write to."""

    volume: str
    attachment: VolumeAttachment
    fencing: Fencing | None
    sound: bool
    """The node has got no permission for it since the Fencing was decided on."""

    @property
    def free(self) -> bool:
        """Whether the node is proved to be kept out."""
        return self.fencing is not None and self.fencing.proven and self.sound


class FailoverWorld:
    """An index of exclusive attachments and of Fencings, by node."""

    def __init__(self, copies: SharedCopies, mark: Callable[[str], None]) -> None:
        """`mark` is told which nodes a change concerns. Before `copies.run`."""
        self._copies = copies
        self._mark = mark
        self._attachments: dict[str, dict[str, VolumeAttachment]] = {}
        self._by_node: dict[str, dict[str, Fencing]] = {}
        self.on_fencing: list[FencingListener] = []
        self.on_attached: list[Callable[[str, str], None]] = []
        """Told the disk and the node when a storage has attached one."""
        copies.follow(VOLUME_ATTACHMENTS, VolumeAttachment).listen(self._attachment_changed)
        self._fencings = copies.follow(FENCINGS, Fencing)
        self._fencings.listen(self._fencing_changed)

    def stranded(self, node: Node) -> list[Stranded]:
        """The exclusive disks that a node uses, or may use."""
        found = []
        for attachment in self._attachments.get(node.metadata.name, {}).values():
            volume = volume_of(attachment)
            if is_in_use(node, volume):
                fencing = self._fencings.get("", fencing_name(attachment.metadata.uid))
                sound = fencing is not None and is_withheld(node, fencing)
                found.append(Stranded(volume, attachment, fencing, sound))
        return sorted(found, key=lambda each: each.volume)

    def fencings_of(self, node: str) -> list[Fencing]:
        """Those that are to keep a node out."""
        return list(self._by_node.get(node, {}).values())

    def is_there(self, fencing: Fencing) -> bool:
        """Whether the attachment that it is about exists."""
        spec = fencing.spec
        held = self._attachments.get(spec.node_name, {}).get(spec.attachment.name)
        return held is not None and held.metadata.uid == spec.attachment.uid

    def nodes(self) -> set[str]:
        """All that have something, or had."""
        return {*self._attachments, *self._by_node}

    def ready_nodes(self, without: str) -> set[str]:
        """Those that can carry something out."""
        return {
            node.metadata.name
            for node in self._copies.nodes.values()
            if node.metadata.name != without and is_ready(node) and not is_out_of_service(node)
        }

    def _attachment_changed(
        self, key: Key, old: VolumeAttachment | None, new: VolumeAttachment | None
    ) -> None:
        for each in (old, new):
            if each is None or not _is_exclusive(each):
                continue
            node = each.spec.node_name
            held = self._attachments.setdefault(node, {})
            held.pop(key[1], None)
            if each is new:
                held[key[1]] = each
            if not held:
                self._attachments.pop(node)
            self._mark(node)
        if new is not None and new.status.attached and not (old and old.status.attached):
            for listener in self.on_attached:
                listener(volume_of(new), new.spec.node_name)

    def _fencing_changed(self, key: Key, old: Fencing | None, new: Fencing | None) -> None:
        for each in (old, new):
            if each is None:
                continue
            node = each.spec.node_name
            held = self._by_node.setdefault(node, {})
            held.pop(key[1], None)
            if each is new:
                held[key[1]] = each
            if not held:
                self._by_node.pop(node)
            self._mark(node)
        for listener in self.on_fencing:
            listener(old, new)


def volume_of(attachment: VolumeAttachment) -> str:
    """The unique name of an attachment's disk."""
    return (attachment.metadata.annotations or {}).get(VOLUME, "")


def _is_exclusive(attachment: VolumeAttachment) -> bool:
    annotations = attachment.metadata.annotations or {}
    return attachment.spec.attacher == ATTACHER and annotations.get(EXCLUSIVE) == "true"


def find_wanting(copies: SharedCopies, names: Collection[str]) -> dict[str, set[str]]:
    """For each of these PersistentVolumes, the nodes of pods that do not run yet and claim it."""
    claims: dict[Key, str] = {}
    for name in names:
        volume = copies.volumes.get("", name)
        reference = volume.spec.claim_ref if volume is not None else None
        if reference is not None:
            claims[reference.namespace, reference.name] = name
    found: dict[str, set[str]] = {}
    if not claims:
        return found
    for pod in copies.pods.values():
        if not pod.spec.node_name or pod.status.phase not in ("", "Pending"):
            continue
        for claim in claims_of(pod) & claims.keys():
            found.setdefault(claims[claim], set()).add(pod.spec.node_name)
    return found
