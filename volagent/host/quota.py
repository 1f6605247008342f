"""Limits for directories: project quotas of ext4 and xfs, by ioctl and quotactl.

A directory is given a project number that everything below it inherits, and the number a limit in
blocks. The kernel enforces it (EDQUOT is shown as ENOSPC by most tools, and `df` inside shows the
limit as the size), on file systems that are mounted with `prjquota`; `find_obstacle` says why not
elsewhere. The caller keeps the numbers apart (`export_quota.py`).

Blocks for microseconds. Standard library only: this may run in a helper process. Errors are
`OSError`. Sources: quotactl(2), ioctl_xfs_fsgetxattr(2), linux/dqblk_xfs.h.
"""

import errno
import fcntl
import os
import stat
import struct
from dataclasses import dataclass
from typing import Final

from volagent.host import libc

_FS_IOC_FSGETXATTR: Final = 0x801C581F
_FS_IOC_FSSETXATTR: Final = 0x401C5820
_XATTR: Final = struct.Struct("=5I8x")
"""`struct fsxattr`: flags, extent size, number of extents, project, copy-on-write extent size."""
_PROJECT_INHERIT: Final = 0x200

_PROJECT_QUOTA: Final = 2
_GET_QUOTA: Final = 0x800007
_SET_QUOTA: Final = 0x800008
_GET_STATE: Final = 0x5808  # Q_XGETQSTATV, which ext4 answers too
_ACCOUNTED: Final = 1 << 4
_ENFORCED: Final = 1 << 5
_STATE: Final = struct.Struct("=bxH")
_STATE_BYTES: Final = 160
_STATE_VERSION: Final = 1
_QUOTA: Final = struct.Struct("=8QI4x")
"""`struct if_dqblk`: hard and soft limit in KiB, used bytes; the same of inodes; times; valid."""
_LIMITS_VALID: Final = 1  # QIF_BLIMITS
_KIB: Final = 1024
_NO_QUOTAS: Final = (
    errno.ESRCH, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY,
    errno.ENOTBLK, errno.ENODEV, errno.ENOENT,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Limit:
    """What a project may use and does."""

    hard_bytes: int
    """0: no limit."""
    used_bytes: int
    inodes: int

    @property
    def idle(self) -> bool:
        """Nobody uses the number."""
        return not (self.hard_bytes or self.used_bytes or self.inodes)


def find_obstacle(fd: int) -> str:
    """Why directories below a descriptor cannot be limited, for a person; "" when they can."""
    try:
        flags, project = _read_attributes(fd)
    except OSError as error:
        return f"the file system has no project quotas ({error.strerror})"
    if flags & _PROJECT_INHERIT:
        return f"the directory belongs to project {project} itself, whose limit holds"
    state = bytearray(_STATE_BYTES)
    _STATE.pack_into(state, 0, _STATE_VERSION, 0)
    try:
        _ask(fd, _GET_STATE, 0, state)
    except OSError as error:
        if error.errno in _NO_QUOTAS:
            return "the file system is not mounted with project quotas (prjquota)"
        return f"project quotas cannot be read ({error.strerror})"
    _, on = _STATE.unpack_from(state)
    if on & _ACCOUNTED and on & _ENFORCED:
        return ""
    if on & _ACCOUNTED:
        return "the file system counts project quotas without enforcing them (mount with prjquota)"
    return "the file system is not mounted with project quotas (prjquota)"


def read_limit(fd: int, project: int) -> Limit:
    """What a project has on the file system of a descriptor."""
    buffer = bytearray(_QUOTA.size)
    try:
        _ask(fd, _GET_QUOTA, project, buffer)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESRCH):  # xfs: never heard of
            return Limit(0, 0, 0)
        raise
    hard, _, used, _, _, inodes, *_ = _QUOTA.unpack(buffer)
    return Limit(hard * _KIB, used, inodes)


def set_limit(fd: int, project: int, hard_bytes: int) -> None:
    """Limit a project; 0 takes the limit away. Verified: raises `OSError` when it did not take."""
    blocks = -(-hard_bytes // _KIB)
    buffer = bytearray(_QUOTA.pack(blocks, 0, 0, 0, 0, 0, 0, 0, _LIMITS_VALID))
    _ask(fd, _SET_QUOTA, project, buffer)
    if read_limit(fd, project).hard_bytes != blocks * _KIB:
        raise OSError(errno.EIO, f"the limit of project {project} was not taken")


def join_project(fd: int, project: int) -> None:
    """Make an empty directory a project's, with all that will be made below it."""
    fields = list(_XATTR.unpack(fcntl.ioctl(fd, _FS_IOC_FSGETXATTR, bytes(_XATTR.size))))
    wanted = (fields[0] | _PROJECT_INHERIT, project)
    if (fields[0], fields[3]) != wanted:
        fields[0], fields[3] = wanted
        fcntl.ioctl(fd, _FS_IOC_FSSETXATTR, _XATTR.pack(*fields))
    if _read_attributes(fd) != wanted:
        raise OSError(errno.EIO, f"the directory did not join project {project}")


def _read_attributes(fd: int) -> tuple[int, int]:
    """Flags and project of a file."""
    fields = _XATTR.unpack(fcntl.ioctl(fd, _FS_IOC_FSGETXATTR, bytes(_XATTR.size)))
    return fields[0], fields[3]


def _ask(fd: int, command: int, project: int, buffer: bytearray) -> None:
    full = command << 8 | _PROJECT_QUOTA
    try:
        libc.quotactl_fd(fd, full, project, buffer)
    except OSError as error:
        if error.errno != errno.ENOSYS:  # before Linux 5.14
            raise
        libc.quotactl(full, _find_device(fd), project, buffer)


def _find_device(fd: int) -> bytes:
    """The node of the block device that a file system is on."""
    number = os.fstat(fd).st_dev
    path = f"/dev/block/{os.major(number)}:{os.minor(number)}"
    found = os.stat(path)
    if not stat.S_ISBLK(found.st_mode) or found.st_rdev != number:
        raise OSError(errno.ENOTBLK, os.strerror(errno.ENOTBLK), path)
    return os.fsencode(path)
