"""Which networked disks this node may touch, by what its Node says. Pure.

The agreement is in `objects/attachments.py`: the controller names a disk in
`status.volumesAttached`, the node then names it in `status.volumesInUse`, and only a version of the
Node that has it in both lists is a permission. The permission lasts until the node itself begins to
write a Node without it, whatever becomes of that write. A disk that is merely wanted is not named,
so that "in use" always means that it may be touched.

A permission also ends with the lease, where the node fences itself, and is given again only by a
Node that was read after the next renewal (`forget`). A disk that this node was fenced off is not
permitted as long as the Fencing stands.
"""

from collections.abc import Callable, Collection

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
        self._attached: frozenset[str] = frozenset()
        self._granted: frozenset[str] = frozenset()
        self._waiting: dict[str, VolumeKey] = {}
        self._fenced: frozenset[str] = frozenset()
        self.guard: Callable[[], bool] = _always
        """Asked at each use of a permission: whether this node may use any at this moment."""

    @property
    def version(self) -> int:
        """Of the Node that was seen last."""
        return self._version

    def is_granted(self, volume: str) -> bool:
        """Whether a disk may be touched, by its unique name."""
        return volume in self._granted and volume not in self._fenced and self.guard()

    def is_attached(self, volume: str) -> bool:
        """Whether the controller has named a disk for this node, that is not fenced off it."""
        return volume in self._attached and volume not in self._fenced

    def is_fenced(self, volume: str) -> bool:
        """Whether this node was proved to be kept out of a disk."""
        return volume in self._fenced

    def keep_out(self, volumes: Collection[str]) -> set[VolumeKey]:
        """These are the disks that this node is kept out of; the volumes that may go on now."""
        self._fenced = frozenset(volumes)
        return self._go_on()

    def forget(self) -> None:
        """Nothing is permitted until a Node is observed that is read from now on."""
        self._version, self._attached, self._granted = 0, frozenset(), frozenset()

    def await_grant(self, volume: str, key: VolumeKey) -> None:
        """Have `observe` tell when the disk may be touched."""
        self._waiting[volume] = key

    def observe(self, node: Node | None) -> set[VolumeKey]:
        """Take a version of this node's Node; the volumes that may go on because of it.

        An older version than the last is ignored: what is read and what is written meet here.
        """
        if node is None:
            self.forget()
            return set()
        version = int(node.metadata.resource_version or "0")
        if version <= self._version:
            return set()
        self._version = version
        self._attached = frozenset(each.name for each in node.status.volumes_attached or ())
        self._granted = self._attached.intersection(node.status.volumes_in_use or ())
        return self._go_on()

    def _go_on(self) -> set[VolumeKey]:
        free = self._granted - self._fenced
        return {self._waiting.pop(volume) for volume in tuple(self._waiting) if volume in free}

    def begin_write(self, in_use: Collection[str]) -> None:
        """The node is about to write that only these are in use."""
        self._granted = self._granted.intersection(in_use)


def _always() -> bool:
    return True


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
        if record is not None and is_held(record):
            names.add(name_of(record))
    return sorted(names)


def attachment_of(spec: VolumeSpec) -> str:
    """The unique name of a networked disk."""
    return unique_name(spec.driver, spec.identity)


def is_held(record: VolumeRecord) -> bool:
    """Whether its device or its stage is there, or may be."""
    return record.attached is not Held.NO or record.staged is not Held.NO


def name_of(record: VolumeRecord) -> str:
    """The unique name of a recorded volume's disk."""
    body = record.source.body if record.source else {}
    handle = record.identity or body.get("volumeHandle", "")
    return unique_name(record.driver, handle) if handle else f"{record.driver}/{record.name}"
