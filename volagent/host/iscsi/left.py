"""Disks and sessions of ours as the kernel shows them, whatever is noted of them.

Ours are sessions with just the settings that we make them with, as their record in open-iscsi says;
one that an administrator made and that is idle today is not ours to close. Read from sysfs and
records: nothing is asked of storage.
"""

from collections import defaultdict

from volagent.host import block_devices
from volagent.host.contract import BlockDevice
from volagent.host.errors import HostError
from volagent.host.iscsi.claims import Claims
from volagent.host.iscsi.contract import FoundLun, LunHandle
from volagent.host.iscsi.records import Records
from volagent.host.iscsi.sysfs import Path, Session, Sysfs


def list_attached(sysfs: Sysfs, records: Records, claims: Claims) -> list[FoundLun]:
    """Every disk, and for each session without one an empty device under the number 0."""
    disks: dict[LunHandle, list[Path]] = defaultdict(list)
    idle: list[Session] = []
    for session in sysfs.all_sessions():
        if not records.was_made_here(session.iqn, session.portal, session.interface):
            continue
        paths = sysfs.paths(session)
        for path in paths:
            disks[_recognise(path, claims)].append(path)
        if not paths:
            idle.append(session)
    found = [
        FoundLun(_device_of(sysfs, paths), handle, tuple(path.session.portal for path in paths))
        for handle, paths in disks.items()
    ]
    found += [
        FoundLun(_NOTHING, LunHandle(each.iqn, 0, "", each.interface), (each.portal,))
        for each in idle
    ]
    return found


_NOTHING = BlockDevice("", "", "", 0)


def _recognise(path: Path, claims: Claims) -> LunHandle:
    session = path.session
    noted = claims.find(session.iqn, path.lun, session.interface)
    key, guard = (noted.key, noted.guard) if noted is not None else (0, 0)
    return LunHandle(session.iqn, path.lun, path.wwid, session.interface, key, guard)


def _device_of(sysfs: Sysfs, paths: list[Path]) -> BlockDevice:
    """The map over the paths, or the first; what cannot be looked at has no identity."""
    over = next((found for path in paths if (found := sysfs.map_over(path)) is not None), None)
    shown = over or paths[0]
    try:
        return block_devices.identify(shown.device)
    except HostError:
        return BlockDevice(shown.device, shown.number, "", shown.size_bytes)
