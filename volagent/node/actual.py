"""What this node has: the records, and which mount belongs to which of them.

The only writer of the record book, which is written first: a full run directory changes nothing
here. A record is written *before* the kernel is asked (UNKNOWN) and after it answered (YES); a
mount that disappears without us turns into NO and is reported. For the event loop's thread.
"""

import msgspec

from volagent.drivers.contract import DriverName, HeldDevice, HeldMount, VolumeKey
from volagent.host.contract import MountId
from volagent.node.plan import Wanted
from volagent.node.records import Held, RecordBook, UseRecord, VolumeRecord
from volagent.objects.meta import PodUid

Owner = tuple[VolumeKey, PodUid | None]
"""Whose mount it is: a pod's publication, or (None) the stage of the volume."""

replace = msgspec.structs.replace


class Actual:
    """The records of this node, with an index of their mounts."""

    def __init__(self, book: RecordBook) -> None:
        self._book = book
        self._owners: dict[int, Owner] = {}
        self._by_pod: dict[PodUid, set[VolumeKey]] = {}
        for key in book.keys():  # noqa: SIM118  # a method, not a mapping
            record = book.get(key)
            assert record is not None
            self._own(record)

    def get(self, key: VolumeKey) -> VolumeRecord | None:
        """The record of a volume."""
        return self._book.get(key)

    def keys(self) -> list[VolumeKey]:
        """All volumes with a record."""
        return self._book.keys()

    def keys_of(self, pod: PodUid) -> list[VolumeKey]:
        """The volumes that have something, or may have, in a pod's directory."""
        return list(self._by_pod.get(pod, ()))

    def sub_paths_of(self, pod: PodUid) -> set[VolumeKey]:
        """Those of them that are sub-paths of volumes."""
        return set(filter(is_sub_path, self._by_pod.get(pod, ())))

    def pods(self) -> list[PodUid]:
        """Pods that have something, or may have, on this node."""
        return list(self._by_pod)

    def mounted_keys_of(self, pod: PodUid) -> list[VolumeKey]:
        """Those of them that are mounts, or may be."""
        keys = []
        for key in self._by_pod.get(pod, ()):
            record = self._book.get(key)
            use = record.uses.get(pod) if record is not None else None
            if use is not None and (use.mount.mount_id or use.held is Held.UNKNOWN):
                keys.append(key)
        return keys

    def holds_mounts(self) -> bool:
        """Whether a mount or a device of ours is there, or may be."""
        for key in self._book.keys():  # noqa: SIM118  # a method, not a mapping
            record = self._book.get(key)
            if record is None:
                continue
            if record.attached is not Held.NO or record.staged is not Held.NO:
                return True
            if any(use.mount.mount_id or use.held is Held.UNKNOWN for use in record.uses.values()):
                return True
        return False

    def put(self, record: VolumeRecord) -> None:
        """Write a whole record (recovery)."""
        before = self._book.get(record.key)
        self._book.put(record)
        if before is not None:
            self._disown(before)
        self._own(record)

    def owner(self, mount_id: MountId) -> Owner | None:
        """Whose mount this is, if it is ours."""
        return self._owners.get(mount_id)

    def set_attached(
        self, wanted: Wanted | VolumeRecord, held: Held, device: HeldDevice | None = None
    ) -> None:
        """Note the state of the device; NO forgets it and that it was prepared."""
        record = self._begin(wanted)
        prepared = record.prepared and held is Held.YES and record.device == device
        self._book.put(replace(record, attached=held, device=device, prepared=prepared))

    def set_lost(self, key: VolumeKey, why: str) -> None:
        """The disk is not this node's any more: what is here of it is taken down unwritten."""
        record = self._book.get(key)
        if record is not None:
            self._book.put(replace(record, lost=why))

    def set_cut(self, record: VolumeRecord) -> None:
        """Nothing more goes to a lost disk."""
        self._book.put(replace(record, cut=True))

    def set_attachment(self, key: VolumeKey, uid: str) -> None:
        """Note by which VolumeAttachment the disk is here."""
        record = self._book.get(key)
        if record is not None:
            self._book.put(replace(record, attachment_uid=uid))

    def set_prepared(self, wanted: Wanted) -> None:
        """Note that the device has a checked file system."""
        self._book.put(replace(self._begin(wanted), prepared=True))

    def set_staged(
        self, wanted: Wanted | VolumeRecord, held: Held, mount: HeldMount | None
    ) -> None:
        """Note the state of the stage."""
        record = self._begin(wanted)
        self._book.put(replace(record, staged=held, stage=mount))
        if record.stage is not None:
            self._owners.pop(record.stage.mount_id, None)
        if mount is not None and mount.mount_id:
            self._owners[mount.mount_id] = (record.key, None)

    def set_use(
        self,
        wanted: Wanted | VolumeRecord,
        pod: PodUid,
        held: Held,
        mount: HeldMount,
        pod_name: str = "",
    ) -> None:
        """Note the state of one pod's publication."""
        record = self._begin(wanted)
        before = record.uses.get(pod)
        use = UseRecord(held, mount, pod_name or (before.pod_name if before is not None else ""))
        self._book.put(replace(record, uses={**record.uses, pod: use}))
        if before is not None:
            self._owners.pop(before.mount.mount_id, None)
        if mount.mount_id:
            self._owners[mount.mount_id] = (record.key, pod)
        self._by_pod.setdefault(pod, set()).add(record.key)

    def drop_use(self, record: VolumeRecord, pod: PodUid) -> None:
        """A pod's publication is gone."""
        uses = {uid: other for uid, other in record.uses.items() if uid != pod}
        self._book.put(replace(record, uses=uses))
        use = record.uses.get(pod)
        if use is not None:
            self._owners.pop(use.mount.mount_id, None)
        self._forget_use(pod, record.key)

    def lose_mount(self, mount_id: MountId) -> Owner | None:
        """A mount of ours disappeared: note it, unless we are taking it down ourselves."""
        owner = self._owners.get(mount_id)
        if owner is None:
            return None
        key, pod = owner
        record = self._book.get(key)
        assert record is not None
        if pod is None:
            if record.staged is not Held.YES or record.stage is None:
                return None
            self.set_staged(record, Held.NO, replace(record.stage, mount_id=0))
            return owner
        use = record.uses[pod]
        if use.held is not Held.YES:
            return None
        self.set_use(record, pod, Held.NO, replace(use.mount, mount_id=0))
        return owner

    def _begin(self, wanted: Wanted | VolumeRecord) -> VolumeRecord:
        if isinstance(wanted, VolumeRecord):
            return wanted
        spec = wanted.spec
        record = self._book.get(spec.key)
        if record is not None:
            return record
        has_device = len(wanted.phases) > 1
        return VolumeRecord(
            key=spec.key,
            driver=DriverName(spec.driver),
            name=spec.name,
            mode=spec.mode,
            backend=spec.backend,
            source=wanted.source if has_device else None,
            identity=spec.identity,
            shared=spec.shared,
        )

    def _forget_use(self, pod: PodUid, key: VolumeKey) -> None:
        keys = self._by_pod.get(pod)
        if keys is not None:
            keys.discard(key)
            if not keys:
                del self._by_pod[pod]

    def _own(self, record: VolumeRecord) -> None:
        if record.stage is not None and record.stage.mount_id:
            self._owners[record.stage.mount_id] = (record.key, None)
        for pod, use in record.uses.items():
            self._by_pod.setdefault(pod, set()).add(record.key)
            if use.mount.mount_id:
                self._owners[use.mount.mount_id] = (record.key, pod)

    def _disown(self, record: VolumeRecord) -> None:
        if record.stage is not None:
            self._owners.pop(record.stage.mount_id, None)
        for pod, use in record.uses.items():
            self._owners.pop(use.mount.mount_id, None)
            self._forget_use(pod, record.key)


def is_sub_path(key: VolumeKey) -> bool:
    """Whether a volume is a sub-path of another."""
    return key.startswith("sub/")
