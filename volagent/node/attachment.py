"""Which networked disks this node may touch, by what its Node says. Pure.

The agreement is in `objects/attachments.py`: the controller names a disk in
`status.volumesAttached`, the node then names it in `status.volumesInUse`, and only a version of the
Node that has it in both lists is a permission. The permission lasts until the node itself begins to
write a Node without it, whatever becomes of that write. A disk that is merely wanted is not named,
so that "in use" always means that it may be touched.
"""

from collections.abc import Collection

from volagent.drivers.contract import VolumeKey, VolumeSpec
from volagent.node.actual import Actual
from volagent.node.index import DesiredIndex
from volagent.node.records import Held, VolumeRecord
from volagent.objects.attachments import unique_name
from volagent.objects.storage import Node


class AttachmentGate:
    """The permissions of this node, and who waits for one."""

    def __init__(self) -> None:
        self._version = 0
        self._attached: dict[str, str] = {}
        """Disk → under which name its storage attached it."""
        self._granted: frozenset[str] = frozenset()
        self._waiting: dict[str, VolumeKey] = {}
        self._given_back: set[VolumeKey] = set()

    @property
    def version(self) -> int:
        """Of the Node that was seen last."""
        return self._version

    def is_granted(self, volume: str) -> bool:
        """Whether a disk may be touched, by its unique name."""
        return volume in self._granted

    def is_attached(self, volume: str) -> bool:
        """Whether the controller has named a disk for this node."""
        return volume in self._attached

    def device_path(self, volume: str) -> str:
        """The name under which a disk's storage has attached it, if that has any."""
        return self._attached.get(volume, "")

    def await_grant(self, volume: str, key: VolumeKey) -> None:
        """Have `observe` tell when the disk may be touched."""
        self._waiting[volume] = key

    def give_back(self, key: VolumeKey) -> None:
        """A networked disk was taken away here: another node may wait for it."""
        self._given_back.add(key)

    def was_given_back(self, key: VolumeKey) -> bool:
        """Whether `give_back` was called since this was asked last."""
        known = key in self._given_back
        self._given_back.discard(key)
        return known

    def observe(self, node: Node | None) -> set[VolumeKey]:
        """Take a version of this node's Node; the volumes that may go on because of it.

        An older version than the last is ignored: what is read and what is written meet here.
        """
        if node is None:
            self._version, self._attached, self._granted = 0, {}, frozenset()
            return set()
        version = int(node.metadata.resource_version or "0")
        if version <= self._version:
            return set()
        self._version = version
        listed = node.status.volumes_attached or ()
        self._attached = {each.name: each.device_path for each in listed}
        self._granted = frozenset(self._attached).intersection(node.status.volumes_in_use or ())
        return {
            self._waiting.pop(volume) for volume in tuple(self._waiting) if volume in self._granted
        }

    def begin_write(self, in_use: Collection[str]) -> None:
        """The node is about to write that only these are in use."""
        self._granted = self._granted.intersection(in_use)


def find_volumes_in_use(index: DesiredIndex, actual: Actual, gate: AttachmentGate) -> list[str]:
    """What must not be detached from this node: unique names, sorted.

    Whatever has a device or a mount here, or may have one; and the disks that are attached here and
    that pods want.
    """
    wanted = (index.wanted(key) for key in index.keys())  # noqa: SIM118  # a method
    names = {attachment_of(one.spec) for one in wanted if one is not None and one.spec.identity}
    names = set(filter(gate.is_attached, names))
    for key in actual.keys():  # noqa: SIM118  # a method, not a mapping
        record = actual.get(key)
        if record is not None and _is_held(record):
            names.add(_name_of(record))
    return sorted(names)


def attachment_of(spec: VolumeSpec) -> str:
    """The unique name of a networked disk."""
    return unique_name(spec.driver, spec.identity)


def _is_held(record: VolumeRecord) -> bool:
    return record.attached is not Held.NO or record.staged is not Held.NO


def _name_of(record: VolumeRecord) -> str:
    """Records of a version that did not know the identity of such a disk have its handle."""
    body = record.source.body if record.source else {}
    device = record.device.handle if record.device is not None else ""
    handle = record.identity or body.get("volumeHandle", "") or device
    return unique_name(record.driver, handle) if handle else f"{record.driver}/{record.name}"
