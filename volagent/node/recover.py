"""After a restart: compare the records with the kernel, so that what stands is known again. Pure.

Nothing is changed here and nothing is trusted: a mount is ours when the table has it under the
recorded id at the recorded path. What was in the middle of being made stays UNKNOWN and is looked
at by the executor; what is gone becomes NO and is made again if it is still wanted.
"""

from collections.abc import Collection, Mapping

import msgspec

from volagent.drivers.contract import HeldMount
from volagent.host.contract import BlockDevice, MountEntry, MountTable
from volagent.node.records import Held, UseRecord, VolumeRecord

replace = msgspec.structs.replace


def by_id(table: MountTable) -> dict[int, MountEntry]:
    """The mounts of a table by their ids."""
    return {entry.mount_id: entry for entry in table.entries}


def compare_record(
    record: VolumeRecord,
    mounts: Mapping[int, MountEntry],
    loops: Mapping[str, BlockDevice],
    missing: Collection[str],
) -> VolumeRecord:
    """The record as the kernel bears it out; the same object when nothing differs.

    `missing` are recorded plain directories that are not there any more.
    """
    changes: dict[str, object] = {}
    uses = {}
    for pod, use in record.uses.items():
        held = _compare_mount(use.held, use.mount, mounts, missing)
        if held is not use.held:
            uses[pod] = UseRecord(held, replace(use.mount, mount_id=0), use.pod_name)
    if uses:
        changes["uses"] = {**record.uses, **uses}
    if record.stage is not None:
        held = _compare_mount(record.staged, record.stage, mounts, missing)
        if held is not record.staged:
            changes["staged"] = held
            changes["stage"] = replace(record.stage, mount_id=0)
    if record.attached is Held.YES and not _has_device(record, loops):
        changes["attached"] = Held.UNKNOWN
    return replace(record, **changes) if changes else record


def _compare_mount(
    held: Held, mount: HeldMount, mounts: Mapping[int, MountEntry], missing: Collection[str]
) -> Held:
    if held is not Held.YES:
        return held
    if not mount.mount_id:
        return Held.NO if mount.path in missing else held
    entry = mounts.get(mount.mount_id)
    return held if entry is not None and entry.mount_point == mount.path else Held.NO


def _has_device(record: VolumeRecord, loops: Mapping[str, BlockDevice]) -> bool:
    device = record.device
    if device is None:
        return False
    if not device.identity.startswith("loop:"):
        return True
    found = loops.get(device.path)
    return found is not None and found.identity == device.identity
