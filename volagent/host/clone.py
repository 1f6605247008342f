"""Copies of image files: by sharing blocks where the file system can, else byte by byte.

A copy is made under a name that nobody uses and is only reported when it is durable; whoever is
interrupted finds no half copy under the final name. A file that is in use is copied only by sharing
(which is a moment), with its file system frozen; the thaw is in a `finally` of the same function
and the whole is done by a helper process with a bound, so that nothing stays frozen: a frozen file
system whose freezer dies is thawed by the daemon when the helper's end is noticed.

Standard library only: parts of this run in a helper process. Errors are `OSError`.
"""

import contextlib
import errno
import fcntl
import os
from typing import Final

FICLONE: Final = 0x40049409
FIFREEZE: Final = 0xC0045877
FITHAW: Final = 0xC0045878
_UNFINISHED: Final = ".copying"
_CANNOT_SHARE: Final = (
    errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS,
)  # fmt: skip
_CHUNK_BYTES: Final = 16 << 20
_MODE: Final = 0o600


def share(source: str, target: str, freeze: str = "") -> bool:
    """Copy a file by sharing its blocks; False when this file system cannot.

    `freeze` is a mount point of the file system inside the file, held still for the moment of the
    copy, so that the copy is as after a clean unmount. A target that exists already is done.
    """
    if os.path.exists(target):
        return True
    with contextlib.ExitStack() as opened:
        reading = _open(opened, source, os.O_RDONLY)
        writing = _open(opened, target + _UNFINISHED, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        if freeze:
            _hold_still(opened, freeze)
        else:
            os.fsync(reading)
        try:
            fcntl.ioctl(writing, FICLONE, reading)
        except OSError as error:
            if error.errno not in _CANNOT_SHARE:
                raise
            os.unlink(target + _UNFINISHED)
            return False
        os.fsync(writing)
    _put_in_place(target)
    return True


def copy(source: str, target: str) -> None:
    """Copy a file that nobody uses, holes left out. A target that exists already is done."""
    if os.path.exists(target):
        return
    with contextlib.ExitStack() as opened:
        reading = _open(opened, source, os.O_RDONLY)
        writing = _open(opened, target + _UNFINISHED, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        size = os.fstat(reading).st_size
        os.ftruncate(writing, size)
        at = 0
        while at < size:
            start = _seek(reading, at, os.SEEK_DATA)
            if start is None:
                break
            end = _seek(reading, start, os.SEEK_HOLE)
            _copy_range(reading, writing, start, size if end is None else end)
            at = size if end is None else end
        os.fsync(writing)
    _put_in_place(target)


def thaw(mount_point: str) -> bool:
    """Let a frozen file system go on; False when it was not frozen."""
    fd = os.open(mount_point, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, FITHAW, 0)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return False
        raise
    finally:
        os.close(fd)
    return True


def _hold_still(opened: contextlib.ExitStack, mount_point: str) -> None:
    fd = _open(opened, mount_point, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.ioctl(fd, FIFREEZE, 0)
    opened.callback(fcntl.ioctl, fd, FITHAW, 0)


def _open(opened: contextlib.ExitStack, path: str, flags: int) -> int:
    fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, _MODE)
    opened.callback(os.close, fd)
    return fd


def _seek(fd: int, at: int, whence: int) -> int | None:
    try:
        return os.lseek(fd, at, whence)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return None
        raise


def _copy_range(reading: int, writing: int, start: int, end: int) -> None:
    at = start
    while at < end:
        data = os.pread(reading, min(_CHUNK_BYTES, end - at), at)
        if not data:
            return
        at += os.pwrite(writing, data, at)


def _put_in_place(target: str) -> None:
    os.rename(target + _UNFINISHED, target)
    directory = os.open(os.path.dirname(target), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
