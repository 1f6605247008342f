"""Where each networked disk is, by the copies of VolumeAttachments and Nodes."""

from collections.abc import Callable, Collection, Mapping

import msgspec

from volagent.client.contract import FENCINGS, VOLUME_ATTACHMENTS
from volagent.client.informer import Key
from volagent.client.shared import SharedCopies
from volagent.control.attach.decide import Standing, find_proof, is_in_use
from volagent.control.nodes.decide import is_lost
from volagent.drivers.contract import DriverName
from volagent.objects.attachments import (
    ATTACHER,
    EXCLUSIVE,
    VOLUME,
    AttachmentSource,
    VolumeAttachment,
    split_name,
)
from volagent.objects.fencing import WITHHELD, Fencing, fencing_name, withheld_from
from volagent.objects.meta import Document
from volagent.objects.storage import Node

_LOST = "its agent is silent"
_FENCED = "it was kept out of the disk, and has not said yet that it has given it up"


class AttachmentWorld:
    """An index of attachments and of what nodes list, by disk."""

    def __init__(self, copies: SharedCopies, mark: Callable[[str], None]) -> None:
        """`mark` is told which disks a change concerns. Before `copies.run`."""
        self._nodes = copies.nodes
        self._mark = mark
        self._attachments: dict[str, dict[str, VolumeAttachment]] = {}
        self._listed: dict[str, set[str]] = {}
        self._barred: dict[str, str] = {}
        self._fenced: dict[str, dict[str, str]] = {}
        """Disk → Fencing → node."""
        copies.follow(VOLUME_ATTACHMENTS, VolumeAttachment).listen(self._attachment_changed)
        self._fencings = copies.follow(FENCINGS, Fencing)
        self._fencings.listen(self._fencing_changed)
        copies.nodes.listen(self._node_changed)

    def volumes(self) -> Collection[str]:
        """Every disk that is anywhere."""
        return {*self._attachments, *self._listed}

    def standings(self, volume: str) -> list[Standing]:
        """Where a disk is, is coming, or is going from."""
        attachments = self._attachments.get(volume, {}).values()
        nodes = {each.spec.node_name for each in attachments}
        found = [self._standing_of(volume, each) for each in attachments]
        listed = self._listed.get(volume, set()) - nodes
        found += [self._merely_listed(volume, name) for name in listed]
        return sorted(found, key=lambda standing: (standing.node, standing.attachment))

    def barred(self, volume: str) -> Mapping[str, str]:
        """Nodes that do not get a disk, and why."""
        fenced = self._fenced.get(volume)
        if not fenced:
            return self._barred
        return {**dict.fromkeys(fenced.values(), _FENCED), **self._barred}

    def driver_of(self, volume: str) -> DriverName:
        """The driver in a unique name."""
        return DriverName(split_name(volume)[0])

    def attached_by(self, driver: DriverName) -> list[tuple[str, VolumeAttachment]]:
        """The attachments of a driver's disks that its storage has made, with the disks' names."""
        return [
            (volume, attachment)
            for volume, standing in self._attachments.items()
            if self.driver_of(volume) == driver
            for attachment in standing.values()
            if attachment.status.attached and attachment.metadata.deletion_timestamp is None
        ]

    def error_of(self, volume: str) -> str:
        """What the storage said last when it did not attach a disk; "": nothing."""
        for attachment in self._attachments.get(volume, {}).values():
            error = attachment.status.attach_error
            if error is not None:
                return error.message
        return ""

    def decode(self, document: Document) -> VolumeAttachment:
        """The view of an attachment."""
        return msgspec.convert(document, VolumeAttachment)

    def _standing_of(self, volume: str, attachment: VolumeAttachment) -> Standing:
        metadata, spec = attachment.metadata, attachment.spec
        node = self._nodes.get("", spec.node_name)
        return Standing(
            node=spec.node_name,
            attachment=metadata.name,
            uid=metadata.uid,
            source=spec.source,
            exclusive=(metadata.annotations or {}).get(EXCLUSIVE) == "true",
            attached=attachment.status.attached,
            going=metadata.deletion_timestamp is not None,
            told=spec.node_name in self._listed.get(volume, ()),
            in_use=is_in_use(node, volume),
            proof=find_proof(node, self._fencings.get("", fencing_name(metadata.uid))),
        )

    def _merely_listed(self, volume: str, name: str) -> Standing:
        node = self._nodes.get("", name)
        return Standing(
            node=name, attachment="", uid="", source=AttachmentSource(), exclusive=True,
            attached=True, going=False, told=True,
            in_use=is_in_use(node, volume), proof=find_proof(node),
        )  # fmt: skip

    def _attachment_changed(
        self, _key: Key, old: VolumeAttachment | None, new: VolumeAttachment | None
    ) -> None:
        for each in (old, new):
            volume = _volume_of(each)
            if each is None or not volume:
                continue
            standing = self._attachments.setdefault(volume, {})
            standing.pop(each.metadata.name, None)
            if each is new:
                standing[each.metadata.name] = each
            if not standing:
                self._attachments.pop(volume)
            if not _differ_in_errors_only(old, new):
                self._mark(volume)

    def _node_changed(self, key: Key, old: Node | None, new: Node | None) -> None:
        before, after = _listed_by(old), _listed_by(new)
        for volume in before - after:
            nodes = self._listed.get(volume, set())
            nodes.discard(key[1])
            if not nodes:
                self._listed.pop(volume, None)
        for volume in after - before:
            self._listed.setdefault(volume, set()).add(key[1])
        barred_before = self._barred.pop(key[1], "")
        barred = find_proof(new) or (_LOST if new is not None and is_lost(new) else "")
        if barred:
            self._barred[key[1]] = barred
        concerned = before ^ after
        concerned |= {
            volume
            for volume in _used_by(old) ^ _used_by(new)
            if volume in self._attachments or volume in self._listed
        }
        if (old is None) != (new is None) or barred_before != barred:
            concerned |= {
                volume
                for volume, standing in self._attachments.items()
                if any(each.spec.node_name == key[1] for each in standing.values())
            }
        concerned |= _changes_withheld(old, new)
        for volume in sorted(concerned):
            self._mark(volume)

    def _fencing_changed(self, key: Key, old: Fencing | None, new: Fencing | None) -> None:
        if old is not None:
            fenced = self._fenced.get(old.spec.volume, {})
            fenced.pop(key[1], None)
            if not fenced:
                self._fenced.pop(old.spec.volume, None)
            self._mark(old.spec.volume)
        if new is not None:
            self._fenced.setdefault(new.spec.volume, {})[key[1]] = new.spec.node_name
            self._mark(new.spec.volume)


def _volume_of(attachment: VolumeAttachment | None) -> str:
    if attachment is None or attachment.spec.attacher != ATTACHER:
        return ""
    return (attachment.metadata.annotations or {}).get(VOLUME, "")


def _differ_in_errors_only(old: VolumeAttachment | None, new: VolumeAttachment | None) -> bool:
    """Whether a change is merely the controller's own word about what failed."""
    if old is None or new is None:
        return False
    return _without_errors(old) == _without_errors(new)


def _without_errors(attachment: VolumeAttachment) -> VolumeAttachment:
    replace = msgspec.structs.replace
    return replace(
        attachment,
        metadata=replace(attachment.metadata, resource_version=""),
        status=replace(attachment.status, attach_error=None, detach_error=None),
    )


def _listed_by(node: Node | None) -> set[str]:
    return {each.name for each in (node.status.volumes_attached if node else None) or ()}


def _changes_withheld(old: Node | None, new: Node | None) -> set[str]:
    texts = [(n.metadata.annotations or {}).get(WITHHELD) if n is not None else None
             for n in (old, new)]  # fmt: skip
    if texts[0] == texts[1]:
        return set()
    before, after = ({} if node is None else withheld_from(node) for node in (old, new))
    return {volume for volume, _ in before.items() ^ after.items()}


def _used_by(node: Node | None) -> set[str]:
    return set((node.status.volumes_in_use if node is not None else None) or ())
