"""Loop devices by ioctl: which file a device shows, binding one to a file, letting go of it.

A device is known by the device and inode numbers of its file (`LOOP_GET_STATUS64`), never by the
file's name, which may be changed or taken by another file. An image never gets two devices: they
would have two caches, and two file systems writing to one image destroy it. Finding the device and
binding a new one is therefore one step under a lock on the image file.

Everything here blocks for microseconds to milliseconds (giving back: up to `_PASSING_LOOK_S`) and
belongs into the pool. Stateless.
"""

import errno
import fcntl
import os
import stat
import struct
import time
from dataclasses import dataclass
from typing import Final

from volagent.host import paths
from volagent.host.contract import BlockDevice
from volagent.host.errors import Absent, Busy, HostError

_LOOP_CLR_FD: Final = 0x4C01
_LOOP_SET_STATUS64: Final = 0x4C04
_LOOP_GET_STATUS64: Final = 0x4C05
_LOOP_SET_CAPACITY: Final = 0x4C07
_LOOP_CONFIGURE: Final = 0x4C0A
_LOOP_CTL_GET_FREE: Final = 0x4C82

_FLAG_READ_ONLY: Final = 1
_FLAG_AUTOCLEAR: Final = 4
_FLAG_DIRECT_IO: Final = 16

_CONTROL: Final = "/dev/loop-control"
_BLOCKS: Final = "/sys/block"
_INFO: Final = struct.Struct("=5Q4I64s64s32s2Q")
"""`struct loop_info64`: device, inode, rdevice, offset, size limit; number, encryption type and
key size, flags; file name, encryption name and key; two words of initialisation."""
_CONFIG: Final = struct.Struct(f"=2I{_INFO.size}s64x")
"""`struct loop_config`: descriptor, block size, information."""
_SECTOR_BYTES: Final = 512
"""Said, not left to the kernel: recent ones take 4096 for an image that shares blocks with a copy,
and a file system that was made with smaller sectors cannot be mounted then. Where direct I/O needs
larger ones, the kernel does without it."""
_NAME_BYTES_MAX: Final = 63
_FREE_ATTEMPTS_MAX: Final = 32
"""Others may take the free device that we were told of; so often in a row is no coincidence."""
_PASSING_LOOK_S: Final = 0.2
_LOOK_AGAIN_S: Final = 0.01


@dataclass(frozen=True, slots=True)
class LoopStatus:
    """What a bound loop device shows."""

    device: int
    """`st_dev` of the file."""
    inode: int
    offset: int
    size_limit: int
    flags: int

    @property
    def identity(self) -> str:
        """As in `BlockDevice.identity`."""
        return f"loop:{self.device}:{self.inode}"


def read_status(fd: int) -> LoopStatus | None:
    """What a loop device shows, or None when it is free. Raises `OSError`."""
    buffer = bytearray(_INFO.size)
    try:
        fcntl.ioctl(fd, _LOOP_GET_STATUS64, buffer)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return None
        raise
    device, inode, _, offset, limit, _, _, _, flags, *_ = _INFO.unpack(buffer)
    return LoopStatus(device, inode, offset, limit, flags)


def find_loops() -> dict[str, BlockDevice]:
    """All loop devices that show a whole file, by device path."""
    found = {}
    for name in _list_bound():
        path = f"/dev/{name}"
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue  # gone in this moment, or a number without a node
        try:
            status = read_status(fd)
            if status is not None and not status.offset and not status.size_limit:
                found[path] = _describe(fd, path, status)
        except OSError:
            continue
        finally:
            os.close(fd)
    return found


def attach(path: str, *, read_only: bool) -> BlockDevice:
    """The loop device of an image file: the one that it has, else a new one.

    Raises `Absent` when there is no file, `Busy` when somebody else is using or attaching it, and
    `HostError` when it is no image, or has a read-only device and is wanted writable.
    """
    lock = _open_image(path, read_only=read_only)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        found = os.fstat(lock)
        known = _find_device(found, path, read_only=read_only)
        if known is not None:
            return known
        # Opened once more: a device holds on to what it is given and to a lock on that, so a lock
        # there would outlive us when we are killed, and keep our successor out.
        access = os.O_RDONLY if read_only else os.O_RDWR
        image = os.open(f"/proc/self/fd/{lock}", access | os.O_CLOEXEC)
        try:
            return _bind(image, found, path, read_only=read_only)
        finally:
            os.close(image)
    except BlockingIOError as error:
        detail = "somebody holds a lock on this file"
        raise Busy("flock", path, errno.EWOULDBLOCK, detail) from error
    except OSError as error:
        raise HostError("loop attach", path, error.errno or 0) from error
    finally:
        os.close(lock)


def detach(device: BlockDevice) -> None:
    """Give a device back if it is the one described; a free or another one is left alone.

    Raises `Busy` while it is mounted, formatted or open. Whoever looks at it in passing, as udev
    does when a device was written to, is waited for (`_PASSING_LOOK_S`).
    """
    try:
        # Exclusive: so that a mounted device is refused here. The ioctl alone would succeed and
        # take effect whenever its last user closes it.
        fd = os.open(device.path, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    except OSError as error:
        code = error.errno or 0
        if code == errno.EBUSY and _shows(device):
            raise Busy("loop detach", device.path, code) from error
        if code in (errno.EBUSY, errno.ENXIO):
            return
        raise HostError("loop detach", device.path, code) from error
    try:
        status = read_status(fd)
        if status is None or status.identity != device.identity:
            return
        # A mkfs that outlived its agent may not have opened it exclusively yet, but has its lock.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.ioctl(fd, _LOOP_CLR_FD)
    except OSError as error:
        if error.errno == errno.EWOULDBLOCK:
            raise Busy("loop detach", device.path, errno.EBUSY, "it is being formatted") from error
        if error.errno != errno.ENXIO:  # ENXIO: free by now
            raise HostError("loop detach", device.path, error.errno or 0) from error
    finally:
        os.close(fd)
    if not _goes(device):
        raise Busy("loop detach", device.path, errno.EBUSY, "it goes when its last user closes it")


def take_new_size(device: BlockDevice) -> int:
    """Let a device follow the size of its file; returns its size now. Raises `HostError`."""
    try:
        fd = os.open(device.path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise HostError("open", device.path, error.errno or 0) from error
    try:
        status = read_status(fd)
        if status is None or status.identity != device.identity:
            raise Absent("loop grow", device.path, errno.ENXIO, "it shows another file")
        fcntl.ioctl(fd, _LOOP_SET_CAPACITY)
        return os.lseek(fd, 0, os.SEEK_END)
    except OSError as error:
        raise HostError("loop grow", device.path, error.errno or 0) from error
    finally:
        os.close(fd)


def find_backing_file(device: str) -> str | None:
    """The path of the file that a loop device shows, if the file is still there."""
    name = os.path.basename(os.path.realpath(device))
    try:
        with open(f"{_BLOCKS}/{name}/loop/backing_file") as file:
            path = file.read().rstrip("\n")
        found = os.stat(path)
        fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        status = read_status(fd)
    except OSError:
        return None
    finally:
        os.close(fd)
    same = status is not None and (status.device, status.inode) == (found.st_dev, found.st_ino)
    return path if same else None


def _list_bound() -> list[str]:
    """Names of the bound loop devices: only those have a `loop` directory in sysfs."""
    try:
        names = os.listdir(_BLOCKS)
    except OSError as error:
        raise HostError("readdir", _BLOCKS, error.errno or 0) from error
    return [
        name
        for name in names
        if name.startswith("loop") and os.access(f"{_BLOCKS}/{name}/loop", os.F_OK)
    ]


def _open_image(path: str, *, read_only: bool) -> int:
    flags = os.O_RDONLY if read_only else os.O_RDWR
    try:
        # O_NONBLOCK: opening a fifo would wait for ever.
        image = os.open(paths.encode(path), flags | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        code = error.errno or 0
        kind = Absent if code in (errno.ENOENT, errno.ENOTDIR) else HostError
        raise kind("open", path, code) from error
    found = os.fstat(image)
    if not stat.S_ISREG(found.st_mode):
        os.close(image)
        raise HostError("open", path, errno.EINVAL, "not a regular file")
    if found.st_size < 512:
        os.close(image)
        raise HostError("open", path, errno.EINVAL, f"{found.st_size} bytes are no image")
    return image


def _find_device(found: os.stat_result, path: str, *, read_only: bool) -> BlockDevice | None:
    """The device that shows this file already."""
    for name in _list_bound():
        device = f"/dev/{name}"
        try:
            fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            status = read_status(fd)
            if status is None or (status.device, status.inode) != (found.st_dev, found.st_ino):
                continue
            if status.offset or status.size_limit:
                raise Busy("loop attach", path, errno.EBUSY, f"{device} shows a part of it")
            if status.flags & _FLAG_READ_ONLY and not read_only:
                detail = f"attached read-only already, at {device}"
                raise Busy("loop attach", path, errno.EROFS, detail)
            if status.flags & _FLAG_AUTOCLEAR:
                _keep(fd)
            fcntl.ioctl(fd, _LOOP_SET_CAPACITY)  # the file may have grown since
            return _describe(fd, device, status)
        finally:
            os.close(fd)
    return None


def _keep(fd: int) -> None:
    """Take back that the device shall go when its last user closes it."""
    buffer = bytearray(_INFO.size)
    fcntl.ioctl(fd, _LOOP_GET_STATUS64, buffer)
    fields = list(_INFO.unpack(buffer))
    fields[8] &= ~_FLAG_AUTOCLEAR
    fcntl.ioctl(fd, _LOOP_SET_STATUS64, _INFO.pack(*fields))


def _bind(image: int, found: os.stat_result, path: str, *, read_only: bool) -> BlockDevice:
    flags = _FLAG_DIRECT_IO | (_FLAG_READ_ONLY if read_only else 0)
    name = os.fsencode(path)[:_NAME_BYTES_MAX]
    info = _INFO.pack(0, 0, 0, 0, 0, 0, 0, 0, flags, name, b"", b"", 0, 0)
    config = _CONFIG.pack(image, _SECTOR_BYTES, info)
    control = os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(_FREE_ATTEMPTS_MAX):
            device = f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}"
            fd = _open_free(device, path, read_only=read_only)
            try:
                fcntl.ioctl(fd, _LOOP_CONFIGURE, config)  # Linux 5.8
                status = read_status(fd)
                if status is None or (status.device, status.inode) != (found.st_dev, found.st_ino):
                    raise HostError("loop attach", path, 0, f"{device} does not show it")
                return _describe(fd, device, status)
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
            finally:
                os.close(fd)
    finally:
        os.close(control)
    raise Busy("loop attach", path, errno.EBUSY, "others keep taking the free devices")


def _open_free(device: str, path: str, *, read_only: bool) -> int:
    try:
        return os.open(device, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC)
    except FileNotFoundError as error:
        detail = f"{device} is free but has no node; is /dev a devtmpfs?"
        raise HostError("loop attach", path, errno.ENOENT, detail) from error


def _shows(device: BlockDevice) -> bool:
    """Whether a device still shows the file that it was described with."""
    try:
        fd = os.open(device.path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        status = read_status(fd)
    except OSError:
        return False
    finally:
        os.close(fd)
    return status is not None and status.identity == device.identity


def _goes(device: BlockDevice) -> bool:
    """Whether a device that was given back is gone; it stays until its last user closes it."""
    deadline = time.monotonic() + _PASSING_LOOK_S
    while _shows(device):
        if time.monotonic() >= deadline:
            return False
        time.sleep(_LOOK_AGAIN_S)
    return True


def _describe(fd: int, path: str, status: LoopStatus) -> BlockDevice:
    number = os.fstat(fd).st_rdev
    return BlockDevice(
        path,
        f"{os.major(number)}:{os.minor(number)}",
        status.identity,
        os.lseek(fd, 0, os.SEEK_END),
        bool(status.flags & _FLAG_READ_ONLY),
    )
