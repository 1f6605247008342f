"""`fsGroup`: giving a volume's files to a group, by the kubelet's rules.

chgrp, then `mode |= 0660`, on directories 02110 as well; the owner stays; symbolic links are
skipped and mounts inside are not entered. The volume's users may change it while we walk, so each
file is opened first (O_PATH, one name, no link, no crossing) and changed through that very
descriptor. Only what differs is changed, and the root comes last: a walk that was interrupted is
not mistaken for a finished one by `OnRootMismatch`. Blocks as long as the file system does.
"""

import errno
import os
import stat
from typing import Final

from volagent.host import libc, paths
from volagent.host.contract import OwnershipPolicy
from volagent.host.errors import HostError

_FILE_BITS: Final = 0o660
_DIRECTORY_BITS: Final = 0o2770
_OWNER_STAYS: Final = -1
_DEPTH_MAX: Final = 400
"""Directories open at once; a tree nested deeper is an error, not half done in silence."""
_ONE = libc.OpenHow(
    flags=os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC,
    resolve=libc.RESOLVE_NO_XDEV | libc.RESOLVE_BENEATH,
)
_LISTING: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class TooLarge(Exception):
    """The tree has more entries than the caller wants to wait for; nothing was changed."""


def give_to_group(
    path: str, gid: int, policy: OwnershipPolicy, *, entries_max: int | None = None
) -> int:
    """Apply `fsGroup` to a tree; returns how many files were changed.

    With `entries_max`, a larger tree raises `TooLarge` before anything is changed. Raises
    `Absent`, `HostError`.
    """
    root = paths.open_listing(path)
    try:
        found = os.fstat(root)
        if policy is OwnershipPolicy.ON_ROOT_MISMATCH and _matches(found, gid):
            return 0
        if entries_max is not None:
            _refuse_large(root, entries_max)
        changed = _walk(root, gid, path)
        return changed + _change(root, found, gid)
    except OSError as error:
        raise HostError("fsGroup", path, error.errno or 0) from error
    finally:
        os.close(root)


def _matches(found: os.stat_result, gid: int) -> bool:
    return found.st_gid == gid and bool(found.st_mode & stat.S_ISGID)


def _refuse_large(root: int, most: int) -> None:
    with os.scandir(root) as entries:
        for entry in entries:
            most -= 1
            if most < 0 or entry.is_dir(follow_symlinks=False):
                raise TooLarge


def _walk(root: int, gid: int, path: str) -> int:
    """Change all that is below the root; each open directory with the names still to look at."""
    listing = os.open(".", _LISTING, dir_fd=root)
    stack = [(listing, os.listdir(listing))]
    changed = 0
    try:
        while stack:
            directory, names = stack[-1]
            if not names:
                os.close(stack.pop()[0])
                continue
            fd = _open_one(directory, names.pop())
            if fd < 0:
                continue
            try:
                found = os.fstat(fd)
                if stat.S_ISLNK(found.st_mode):
                    continue
                changed += _change(fd, found, gid)
                if stat.S_ISDIR(found.st_mode):
                    if len(stack) >= _DEPTH_MAX:
                        detail = f"nested deeper than {_DEPTH_MAX} directories"
                        raise HostError("fsGroup", path, errno.ENAMETOOLONG, detail)
                    below = os.open(".", _LISTING, dir_fd=fd)
                    stack.append((below, []))
                    stack[-1][1].extend(os.listdir(below))
            finally:
                os.close(fd)
        return changed
    finally:
        for directory, _ in stack:
            os.close(directory)


def _open_one(directory: int, name: str) -> int:
    """One entry; -1 for a mount, which is not entered, and for what has just been removed."""
    try:
        return libc.openat2(directory, os.fsencode(name), _ONE)
    except OSError as error:
        if error.errno in (errno.EXDEV, errno.ENOENT):
            return -1
        raise


def _change(fd: int, found: os.stat_result, gid: int) -> int:
    """Give one file to the group; 1 when anything had to be changed."""
    before = stat.S_IMODE(found.st_mode)
    wanted = before | (_DIRECTORY_BITS if stat.S_ISDIR(found.st_mode) else _FILE_BITS)
    if found.st_gid == gid and before == wanted:
        return 0
    # An O_PATH descriptor cannot be changed directly before Linux 6.6 (fchmodat2).
    path = f"/proc/self/fd/{fd}"
    if found.st_gid != gid:
        os.chown(path, _OWNER_STAYS, gid)
    # Even an unchanged mode is set again: chown has taken setuid and setgid bits away.
    os.chmod(path, wanted)
    return 1
