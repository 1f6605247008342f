"""A disk's partitions: found in sysfs, and made known to the kernel where it has not looked yet.

Over a map of several paths the kernel makes no partitions; kpartx does, as further maps, and on a
machine with udev by itself. Those hold the map below them, so they go before it does
(`iscsi/multipath.py`).
"""

import asyncio
import errno
import os
import time
from typing import TYPE_CHECKING, Final

from volagent.host import block_devices
from volagent.host.contract import BlockDevice
from volagent.host.errors import Absent, HostError, Unsupported

if TYPE_CHECKING:
    from volagent.host.process import Helpers

SCAN_TIMEOUT_S: Final = 15.0
SHOW_TIMEOUT_S: Final = 3.0
"""Between the kernel's look at the table and the partitions' nodes."""
_POLL_S: Final = 0.02
_BLOCK: Final = "/sys/dev/block"
_MAP: Final = "mpath-"
_UDEV_CONTROL: Final = "/run/udev/control"


async def find_partition(helpers: "Helpers", disk: BlockDevice, number: int) -> BlockDevice:
    """The partition; one of a read-only disk refuses writes too. Raises `Absent`, `HostError`."""
    path = find_node(disk.number, number)
    if path is None and _is_map(disk.number):
        path = await _find_in_map(helpers, disk, number)
    elif path is None:
        await helpers.call(
            "scan_partitions", {"path": disk.path}, backend=f"device:{disk.path}",
            timeout_s=SCAN_TIMEOUT_S,
        )  # fmt: skip
        path = await _await_node(disk, number)
    if path is None:
        raise Absent("partition", disk.path, errno.ENOENT, f"it has no partition {number}")
    part = block_devices.identify(path)
    if disk.read_only and not part.read_only:
        await helpers.call(
            "refuse_writes", {"path": path}, backend=f"device:{disk.path}",
            timeout_s=SCAN_TIMEOUT_S,
        )  # fmt: skip
        part = block_devices.identify(path)
    return part


async def _find_in_map(helpers: "Helpers", disk: BlockDevice, number: int) -> str | None:
    """Where udev runs it has kpartx make the maps by itself; two at once would be in each other's
    way, so it is let go first."""
    if os.path.exists(_UDEV_CONTROL):
        path = await _await_node(disk, number)
        if path is not None:
            return path
    try:
        await _run_kpartx(helpers, disk)
    except HostError:
        path = find_node(disk.number, number)
        if path is None:
            raise
        return path
    return await _await_node(disk, number)


def find_node(disk: str, number: int, *, sysfs: str = _BLOCK) -> str | None:
    """`/dev/sda1`, or the map of a map's partition, `/dev/dm-3`; `disk` is `major:minor`."""
    where = f"{sysfs}/{disk}"
    for name in _list(where):
        if _read(f"{where}/{name}/partition") == str(number):
            return f"/dev/{name}"
    for name, part in _maps_of_parts(where):
        if part == number:
            return f"/dev/{name}"
    return None


def has_maps_of_parts(disk: str, *, sysfs: str = _BLOCK) -> bool:
    """Whether partitions of a map are maps now."""
    return bool(_maps_of_parts(f"{sysfs}/{disk}"))


def disk_below(number: str, *, sysfs: str = _BLOCK) -> str:
    """The disk or map that a device is a partition of; of anything else, the device itself."""
    where = f"{sysfs}/{number}"
    if _read(f"{where}/partition"):
        return _read(f"{where}/../dev") or number
    if _read(f"{where}/dm/uuid").startswith("part"):
        for name in _list(f"{where}/slaves"):
            return _read(f"{where}/slaves/{name}/dev") or number
    return number


def _maps_of_parts(where: str) -> list[tuple[str, int]]:
    """Names and numbers; kpartx calls the map of a partition `part<number>-<uuid below>`."""
    below = _read(f"{where}/dm/uuid")
    found = []
    for name in _list(f"{where}/holders") if below.startswith(_MAP) else ():
        part, _, uuid = _read(f"{where}/holders/{name}/dm/uuid").partition("-")
        if uuid == below and part.startswith("part") and part[4:].isdigit():
            found.append((name, int(part[4:])))
    return found


def _is_map(number: str) -> bool:
    """Whether a device is a map of several paths."""
    return _read(f"{_BLOCK}/{number}/dm/uuid").startswith(_MAP)


async def _run_kpartx(helpers: "Helpers", disk: BlockDevice) -> None:
    """Have the maps of a map's partitions made. Raises `HostError`.

    Without its own waiting (`-n`), which was seen not to end on a machine with udev.
    """
    try:
        outcome = await helpers.run(
            ("kpartx", "-a", "-n", disk.path), backend=f"device:{disk.path}",
            timeout_s=SCAN_TIMEOUT_S,
        )  # fmt: skip
    except Unsupported as error:
        detail = "kpartx is not installed: apt-get install kpartx"
        raise Unsupported("exec", "kpartx", error.errno, detail) from error
    if outcome.returncode != 0:
        raise HostError("kpartx", disk.path, 0, outcome.complaint)


async def _await_node(disk: BlockDevice, number: int) -> str | None:
    """The partition's node as soon as it is there; None when it does not come."""
    ends_s = time.monotonic() + SHOW_TIMEOUT_S
    while True:
        path = find_node(disk.number, number)
        if path is not None and os.path.exists(path):
            return path
        if time.monotonic() > ends_s:
            return None
        await asyncio.sleep(_POLL_S)


def _list(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _read(path: str) -> str:
    try:
        with open(path, errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""
