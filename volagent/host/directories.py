"""Directories and placeholder files of the agent's own skeleton, made by descriptor.

Modes are exact: what the umask or a setgid parent does to a new directory is put right at once.
No link is followed on the way (`paths.py`). Nothing here deletes contents. Stateless.
"""

import errno
import os
import stat
from typing import Final

from volagent.host import paths
from volagent.host.errors import HostError

PARENT_MODE: Final = 0o750
"""The mode of directories that are made on the way."""
_STEP: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_CHANGE: Final = -1
UNFINISHED_MODE: Final = 0o1700
"""Of a directory between mkdir and the chmod that gives it its own mode: a combination that nobody
asks for, so that whoever was killed in between is noticed and the directory is finished."""
_MADE_AT_ONCE: Final = 0o755
"""Modes within these bits need no chmod under the usual umask."""


def make_directory(path: str, *, mode: int, gid: int | None = None) -> bool:
    """Make a directory and its missing parents; True when it was made now."""
    parent, name = paths.split(path)
    fd = open_or_make(parent)
    try:
        return make_directory_at(fd, name, mode, gid, path)
    finally:
        os.close(fd)


def open_or_make(path: str) -> int:
    """A descriptor (O_PATH) of a directory, which is made with its parents when it is missing."""
    fd = paths.try_open_directory(path)
    if fd >= 0:
        return fd
    parent, name = paths.split(path)
    above = open_or_make(parent)
    try:
        make_directory_at(above, name, PARENT_MODE, None, path)
        return os.open(name, _STEP, dir_fd=above)
    except OSError as error:
        raise paths.explain_failure("openat", path, error) from error
    finally:
        os.close(above)


def make_directory_at(directory: int, name: str, mode: int, gid: int | None, path: str) -> bool:
    """Make one directory below a descriptor; an existing directory stays as it is."""
    at_once = gid is None and not mode & ~_MADE_AT_ONCE
    new = True
    try:
        os.mkdir(name, mode if at_once else UNFINISHED_MODE, dir_fd=directory)
    except FileExistsError as error:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if not stat.S_ISDIR(found.st_mode):
            raise HostError("mkdir", path, errno.ENOTDIR, "something else is there") from error
        if stat.S_IMODE(found.st_mode) != UNFINISHED_MODE:
            return False
        new = False
    except OSError as error:
        raise HostError("mkdir", path, error.errno or 0) from error
    made = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if gid is not None and made.st_gid != gid:
        os.chown(name, _NO_CHANGE, gid, dir_fd=directory, follow_symlinks=False)
    # Compared rather than always set: the umask only rarely takes anything away, and mkdir itself
    # drops the setgid bit, which a setgid parent in turn adds.
    if stat.S_IMODE(made.st_mode) != mode:
        os.chmod(name, mode, dir_fd=directory)
    return new


def make_file_at(directory: int, name: str, mode: int, path: str) -> bool:
    """Make an empty file below a descriptor; an existing file stays as it is."""
    try:
        fd = os.open(name, _NEW_FILE, mode, dir_fd=directory)
    except FileExistsError as error:
        if stat.S_ISREG(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            return False
        raise HostError("open", path, errno.EEXIST, "something else is there") from error
    except OSError as error:
        raise HostError("open", path, error.errno or 0) from error
    try:
        os.fchmod(fd, mode)
    finally:
        os.close(fd)
    return True
