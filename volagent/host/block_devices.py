"""What a block device is: number, size and the identity that stays when its path changes.

Read from sysfs and, for loop devices, by ioctl; the device itself is opened only in that case, so
that a sick disk cannot hang this. Microseconds. Stateless.
"""

import errno
import fcntl
import os
import stat
import sys
import time
from typing import Final

from volagent.host import loop, paths
from volagent.host.contract import BlockDevice
from volagent.host.errors import Absent, Busy, HostError

_LOOP_MAJOR: Final = 7
_SECTOR_BYTES: Final = 512
_BLKROSET: Final = 0x125D
_BLKRRPART: Final = 0x125F
_LOOK_S: Final = 0.01
_DISKS: Final = "/sys/block"
# The best first: what it was connected to, what the device says of itself, world-wide, then its
# maker's number.
_IDENTITIES: Final = (
    ("nbd", "backend"),
    ("dm", "dm/uuid"),
    ("wwid", "wwid"),
    ("wwid", "device/wwid"),
    ("serial", "serial"),
    ("serial", "device/serial"),
)


def identify(path: str) -> BlockDevice:
    """The block device at a path, links followed. Raises `Absent`, `HostError`."""
    real = os.path.realpath(paths.encode(path).decode(errors="surrogateescape"))
    try:
        found = os.stat(real)
    except OSError as error:
        code = error.errno or 0
        kind = Absent if code in (errno.ENOENT, errno.ENOTDIR) else HostError
        raise kind("stat", path, code) from error
    if not stat.S_ISBLK(found.st_mode):
        raise HostError("stat", path, errno.ENOTBLK)
    number = f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"
    size = _read(number, "size")
    if size is None:
        raise Absent("sysfs", path, errno.ENODEV, f"no device {number}")
    return BlockDevice(
        real,
        number,
        _find_identity(real, number),
        int(size) * _SECTOR_BYTES,
        _read(number, "ro") == "1",
    )


def find_disk(serial: str) -> BlockDevice | None:
    """The disk that says this serial number of itself. Raises `HostError`."""
    for name in sorted(os.listdir(_DISKS)):
        try:
            with open(f"{_DISKS}/{name}/device/serial", errors="replace") as file:
                found = file.read().strip()
        except OSError:
            continue  # it has none, or went while we look
        if found == serial:
            try:
                return identify(f"/dev/{name}")
            except Absent:
                return None
    return None


def flush(path: str, identity: str) -> None:
    """Write out what is cached for a device that nobody holds. May hang: not for the daemon.

    The exclusive open fails while the device, or a part of it, is mounted in any mount namespace.
    Raises `Busy`, `Absent`, `HostError`.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC)
    except OSError as error:
        kind = {errno.EBUSY: Busy}.get(error.errno or 0, HostError)
        if error.errno in (errno.ENOENT, errno.ENXIO, errno.ENODEV):
            kind = Absent
        raise kind("open", path, error.errno or 0, "exclusively") from error
    try:
        found = identify(path)
        if found.identity != identity:
            raise Absent("open", path, errno.ENODEV, f"it is {found.identity} now")
        os.fsync(fd)
    except OSError as error:
        raise HostError("fsync", path, error.errno or 0) from error
    finally:
        os.close(fd)


def await_device(path: str, within_s: float) -> None:
    """Open a device as soon as the kernel has made it. May hang: not for the daemon.

    Raises `OSError` (ENOENT, ENXIO) when it has not within that time.
    """
    ends_s = time.monotonic() + within_s
    while True:
        try:
            os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        except OSError as error:
            if error.errno not in (errno.ENXIO, errno.ENOENT) or time.monotonic() > ends_s:
                raise
            time.sleep(_LOOK_S)
        else:
            return


def refuse_writes(path: str) -> None:
    """Make a device read-only until it is gone. May hang: not for the daemon. Raises `OSError`."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, _BLKROSET, (1).to_bytes(4, sys.byteorder))
    finally:
        os.close(fd)


def scan_partitions(path: str) -> None:
    """Have the kernel read a disk's partition table, unless somebody uses a part of it.

    A kernel that makes no partitions of such a device is not told so here: none are found then. May
    hang: not for the daemon. Raises `HostError`.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # which is enough for a new disk
    except OSError as error:
        raise HostError("open", path, error.errno or 0) from error
    try:
        fcntl.ioctl(fd, _BLKRRPART)
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.EINVAL):
            raise HostError("read partition table", path, error.errno or 0) from error
    finally:
        os.close(fd)


def _find_identity(path: str, number: str) -> str:
    if number.startswith(f"{_LOOP_MAJOR}:"):
        return _read_loop_identity(path) or number
    partition = _read(number, "partition")
    # A partition has no identity of its own; its disk has one.
    where, suffix = ("../", f"-part{partition}") if partition is not None else ("", "")
    for kind, name in _IDENTITIES:
        value = _read(number, where + name)
        if value:
            return f"{kind}:{value}{suffix}"
    return number


def _read_loop_identity(path: str) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise HostError("open", path, error.errno or 0) from error
    try:
        status = loop.read_status(fd)
    except OSError as error:
        raise HostError("loop status", path, error.errno or 0) from error
    finally:
        os.close(fd)
    return status.identity if status is not None else ""


def _read(number: str, name: str) -> str | None:
    try:
        with open(f"/sys/dev/block/{number}/{name}", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return None
