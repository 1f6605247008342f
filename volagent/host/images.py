"""Image files: made whole or not at all, made larger, and marked while they are being formatted.

A new image gets its name only when it has its size and both are on disk, so a power cut leaves no
half image behind. Nothing here ever makes an image smaller or writes into one. What blocks belongs
into the pool. Stateless.
"""

import errno
import os
import stat
from typing import Final

from volagent.host import loop, paths
from volagent.host.errors import Absent, HostError

NEW_IMAGE_MODE: Final = 0o600
_ASIDE_SUFFIX: Final = ".volagent-new"
_MARK: Final = "trusted.volagent.formatting"
"""Extended attribute of an image whose formatting was begun and not seen to its end. `trusted`,
because tmpfs has no `user` attributes before Linux 6.6."""


def create(path: str, *, size_bytes: int) -> bool:
    """Make a sparse image when there is none; True when it was made now. Raises `HostError`."""
    parent, name = paths.split(path)
    try:
        directory = os.open(paths.encode(parent), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise paths.explain_failure("open", parent, error) from error
    try:
        found = _look(directory, name)
        if found is not None:
            if not stat.S_ISREG(found.st_mode):
                raise HostError("create", path, errno.EEXIST, "not a regular file")
            return False
        return _make(directory, name, size_bytes)
    except OSError as error:
        raise HostError("create", path, error.errno or 0) from error
    finally:
        os.close(directory)


def _make(directory: int, name: str, size_bytes: int) -> bool:
    aside = f".{name}{_ASIDE_SUFFIX}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(aside, flags, NEW_IMAGE_MODE, dir_fd=directory)
        try:
            os.ftruncate(fd, size_bytes)
            os.fsync(fd)
        finally:
            os.close(fd)
        try:
            os.link(aside, name, src_dir_fd=directory, dst_dir_fd=directory)  # never replaces
        except FileExistsError:
            return False
        os.unlink(aside, dir_fd=directory)
        os.fsync(directory)
        return True
    except OSError:
        _remove_quietly(directory, aside)
        raise


def _remove_quietly(directory: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=directory)
    except OSError:
        return


def _look(directory: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory)
    except FileNotFoundError:
        return None


def grow(path: str, *, size_bytes: int) -> bool:
    """Make an image at least this large; True when it was grown. Raises `Absent`, `HostError`."""
    try:
        fd = os.open(paths.encode(path), os.O_WRONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise Absent("open", path, error.errno or 0) from error
    except OSError as error:
        raise HostError("open", path, error.errno or 0) from error
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise HostError("grow", path, errno.EINVAL, "not a regular file")
        if found.st_size >= size_bytes:
            return False
        os.ftruncate(fd, size_bytes)
        os.fsync(fd)
        return True
    except OSError as error:
        raise HostError("grow", path, error.errno or 0) from error
    finally:
        os.close(fd)


def mark_formatting(device: str) -> None:
    """Note on the image behind a loop device, durably, that it is blank and is being formatted.

    Without a place for the note (no loop device, no such attributes) there is none: a format that
    is interrupted then needs a person.
    """
    path = loop.find_backing_file(device)
    if path is None:
        return
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        os.setxattr(fd, _MARK, b"1")
        os.fsync(fd)
    except OSError:
        return
    finally:
        os.close(fd)


def is_marked(device: str) -> bool:
    """Whether the image behind a loop device was being formatted when everything stopped."""
    path = loop.find_backing_file(device)
    if path is None:
        return False
    try:
        return os.getxattr(path, _MARK) == b"1"
    except OSError:
        return False


def unmark_formatting(device: str) -> None:
    """Remove the note: the image has a whole file system now."""
    path = loop.find_backing_file(device)
    if path is None:
        return
    try:
        os.removexattr(path, _MARK)
    except OSError:
        return
