"""System calls that Python's `os` lacks: one small function each, errors as `OSError`.

Never to be imported outside `volagent.host`, and never to decide anything: callers classify the
errno. Prototypes are fixed here, at import, on function objects of our own (`libc["name"]` makes a
fresh one; the attribute `libc.name` is shared with everybody who loads libc). `errno` is ctypes'
thread-local copy, read right after the call in the same thread. Every call lets go of the
interpreter lock, so no buffer is shared between calls. Descriptors are made close-on-exec.

System call numbers from 424 on are the same on every architecture that we run on.
"""

import ctypes
import os
from ctypes import (
    POINTER,
    Structure,
    byref,
    c_char_p,
    c_int,
    c_long,
    c_uint,
    c_uint16,
    c_uint32,
    c_uint64,
    c_ulong,
    c_void_p,
    create_string_buffer,
    sizeof,
)
from typing import Any, Final

AT_FDCWD: Final = -100
AT_SYMLINK_NOFOLLOW: Final = 0x100
AT_NO_AUTOMOUNT: Final = 0x800
AT_EMPTY_PATH: Final = 0x1000
AT_STATX_DONT_SYNC: Final = 0x4000
AT_RECURSIVE: Final = 0x8000

RESOLVE_NO_XDEV: Final = 0x01
RESOLVE_NO_MAGICLINKS: Final = 0x02
RESOLVE_NO_SYMLINKS: Final = 0x04
RESOLVE_BENEATH: Final = 0x08
RESOLVE_CACHED: Final = 0x20  # Linux 5.12

OPEN_TREE_CLONE: Final = 1
MOVE_MOUNT_F_EMPTY_PATH: Final = 0x04

FSCONFIG_SET_FLAG: Final = 0
FSCONFIG_SET_STRING: Final = 1
FSCONFIG_CMD_CREATE: Final = 6

MOUNT_ATTR_RDONLY: Final = 0x01
MOUNT_ATTR_NOSUID: Final = 0x02
MOUNT_ATTR_NODEV: Final = 0x04
MOUNT_ATTR_NOEXEC: Final = 0x08
MOUNT_ATTR_NOATIME: Final = 0x10
MOUNT_ATTR_STRICTATIME: Final = 0x20
MOUNT_ATTR_ATIME_MASK: Final = 0x70
"""All access-time modes; relatime is zero in this field."""
MOUNT_ATTR_NODIRATIME: Final = 0x80
MOUNT_ATTR_IDMAP: Final = 0x100000
MOUNT_ATTR_NOSYMFOLLOW: Final = 0x200000

MS_UNBINDABLE: Final = 1 << 17
MS_PRIVATE: Final = 1 << 18
MS_SLAVE: Final = 1 << 19
MS_SHARED: Final = 1 << 20
MS_REC: Final = 0x4000

MNT_FORCE: Final = 1
MNT_DETACH: Final = 2
UMOUNT_NOFOLLOW: Final = 8

STATX_MNT_ID: Final = 0x1000
STATX_MNT_ID_UNIQUE: Final = 0x4000
STATX_TYPE: Final = 0x01
STATX_ATTR_MOUNT_ROOT: Final = 0x2000

LSMT_ROOT: Final = 0xFFFFFFFFFFFFFFFF
LISTMOUNT_REVERSE: Final = 1

FAN_CLOEXEC: Final = 0x01
FAN_NONBLOCK: Final = 0x02
FAN_REPORT_MNT: Final = 0x4000
FAN_MARK_ADD: Final = 0x01
IN_MOVED_FROM: Final = 0x40
IN_MOVED_TO: Final = 0x80
IN_CREATE: Final = 0x100
IN_DELETE: Final = 0x200
IN_DELETE_SELF: Final = 0x400
IN_ONLYDIR: Final = 0x01000000
FAN_MARK_MNTNS: Final = 0x110
FAN_MNT_ATTACH: Final = 0x01000000
FAN_MNT_DETACH: Final = 0x02000000
FAN_Q_OVERFLOW: Final = 0x4000
FAN_EVENT_INFO_TYPE_MNT: Final = 7

CLONE_NEWNS: Final = 0x00020000


class OpenHow(Structure):
    """`struct open_how` of openat2; immutable after construction, so one may be shared."""

    _fields_ = (("flags", c_uint64), ("mode", c_uint64), ("resolve", c_uint64))


class MountAttr(Structure):
    """`struct mount_attr` of mount_setattr."""

    _fields_ = (
        ("attr_set", c_uint64),
        ("attr_clr", c_uint64),
        ("propagation", c_uint64),
        ("userns_fd", c_uint64),
    )


class Statx(Structure):
    """`struct statx`, as far as it is used here."""

    _fields_ = (
        ("mask", c_uint32),
        ("blksize", c_uint32),
        ("attributes", c_uint64),
        ("nlink", c_uint32),
        ("uid", c_uint32),
        ("gid", c_uint32),
        ("mode", c_uint16),
        ("_pad", c_uint16),
        ("inode", c_uint64),
        ("_between", c_uint64 * 11),
        ("rdev_major", c_uint32),
        ("rdev_minor", c_uint32),
        ("dev_major", c_uint32),
        ("dev_minor", c_uint32),
        ("mount_id", c_uint64),
        ("_rest", c_uint64 * 13),
    )


class MountIdRequest(Structure):
    """`struct mnt_id_req` (version 0) of statmount and listmount."""

    _fields_ = (
        ("size", c_uint32),
        ("spare", c_uint32),
        ("mount_id", c_uint64),
        ("param", c_uint64),
    )


_NR_OPEN_TREE: Final = 428
_NR_MOVE_MOUNT: Final = 429
_NR_FSOPEN: Final = 430
_NR_FSCONFIG: Final = 431
_NR_FSMOUNT: Final = 432
_NR_OPENAT2: Final = 437
_NR_MOUNT_SETATTR: Final = 442
_NR_QUOTACTL_FD: Final = 443
_NR_STATMOUNT: Final = 457
_NR_LISTMOUNT: Final = 458

_CLOEXEC: Final = 1  # FSOPEN_CLOEXEC and FSMOUNT_CLOEXEC
_OPEN_HOW_SIZE: Final = sizeof(OpenHow)
_MOUNT_ATTR_SIZE: Final = sizeof(MountAttr)
_MNT_ID_REQ_SIZE: Final = sizeof(MountIdRequest)

_libc = ctypes.CDLL(None, use_errno=True)


def _prototype(name: str, result: Any, *arguments: Any) -> Any:
    function = _libc[name]
    function.restype = result
    function.argtypes = arguments
    return function


_open_tree = _prototype("syscall", c_long, c_long, c_int, c_char_p, c_uint)
_move_mount = _prototype("syscall", c_long, c_long, c_int, c_char_p, c_int, c_char_p, c_uint)
_fsopen = _prototype("syscall", c_long, c_long, c_char_p, c_uint)
_fsconfig = _prototype("syscall", c_long, c_long, c_int, c_uint, c_char_p, c_char_p, c_int)
_fsmount = _prototype("syscall", c_long, c_long, c_int, c_uint, c_uint)
_openat2 = _prototype("syscall", c_long, c_long, c_int, c_char_p, c_void_p, c_ulong)
_mount_setattr = _prototype("syscall", c_long, c_long, c_int, c_char_p, c_uint, c_void_p, c_ulong)
_statmount = _prototype("syscall", c_long, c_long, c_void_p, c_void_p, c_ulong, c_uint)
_listmount = _prototype("syscall", c_long, c_long, c_void_p, c_void_p, c_ulong, c_uint)
_umount2 = _prototype("umount2", c_int, c_char_p, c_int)
_mount = _prototype("mount", c_int, c_char_p, c_char_p, c_char_p, c_ulong, c_char_p)
_statx = _prototype("statx", c_int, c_int, c_char_p, c_int, c_uint, POINTER(Statx))
_unshare = _prototype("unshare", c_int, c_int)
_fanotify_init = _prototype("fanotify_init", c_int, c_uint, c_uint)
_inotify_init1 = _prototype("inotify_init1", c_int, c_int)
_inotify_add_watch = _prototype("inotify_add_watch", c_int, c_int, c_char_p, c_uint32)
_quotactl_fd = _prototype("syscall", c_long, c_long, c_uint, c_uint, c_uint, c_void_p)
_quotactl = _prototype("quotactl", c_int, c_int, c_char_p, c_int, c_void_p)
_fanotify_mark = _prototype("fanotify_mark", c_int, c_int, c_uint, c_uint64, c_int, c_char_p)


def _last_error() -> OSError:
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code))


def openat2(directory: int, path: bytes, how: OpenHow) -> int:
    """Open by the rules of `how`; returns a descriptor. Linux 5.6."""
    fd: int = _openat2(_NR_OPENAT2, directory, path, byref(how), _OPEN_HOW_SIZE)
    if fd < 0:
        raise _last_error()
    return fd


def open_tree(directory: int, path: bytes, flags: int) -> int:
    """A descriptor of a mount, or with OPEN_TREE_CLONE of a detached copy. Linux 5.2."""
    fd: int = _open_tree(_NR_OPEN_TREE, directory, path, flags | os.O_CLOEXEC)
    if fd < 0:
        raise _last_error()
    return fd


def move_mount(mount: int, directory: int, name: bytes) -> None:
    """Attach a detached mount at `directory/name`; a link there is not followed. Linux 5.2."""
    if _move_mount(_NR_MOVE_MOUNT, mount, b"", directory, name, MOVE_MOUNT_F_EMPTY_PATH) < 0:
        raise _last_error()


def fsopen(fs_type: bytes) -> int:
    """A context in which a file system of this type is configured. Linux 5.2."""
    fd: int = _fsopen(_NR_FSOPEN, fs_type, _CLOEXEC)
    if fd < 0:
        raise _last_error()
    return fd


def fsconfig(context: int, command: int, key: bytes | None, value: bytes | None) -> None:
    """Set a parameter of a file system context, or create the superblock. Linux 5.2."""
    if _fsconfig(_NR_FSCONFIG, context, command, key, value, 0) < 0:
        raise _last_error()


def fsmount(context: int, attributes: int) -> int:
    """A detached mount of the superblock that a context has made. Linux 5.2."""
    fd: int = _fsmount(_NR_FSMOUNT, context, _CLOEXEC, attributes)
    if fd < 0:
        raise _last_error()
    return fd


def mount_setattr(mount: int, flags: int, attr: MountAttr) -> None:
    """Change the attributes of the mount behind a descriptor. Linux 5.12."""
    flags |= AT_EMPTY_PATH
    if _mount_setattr(_NR_MOUNT_SETATTR, mount, b"", flags, byref(attr), _MOUNT_ATTR_SIZE) < 0:
        raise _last_error()


def umount2(path: bytes, flags: int) -> None:
    """Detach the topmost mount at a path."""
    if _umount2(path, flags) < 0:
        raise _last_error()


def make_mounts_private() -> None:
    """Stop every mount of this namespace from telling others about its changes."""
    if _mount(None, b"/", None, MS_REC | MS_PRIVATE, None) < 0:
        raise _last_error()


def statx(directory: int, path: bytes, flags: int, mask: int) -> Statx:
    """File status with mount id. With AT_STATX_DONT_SYNC a network file system is not asked."""
    buffer = Statx()
    if _statx(directory, path, flags, mask, buffer) < 0:
        raise _last_error()
    return buffer


def statmount(mount_id: int, mask: int, size: int) -> bytes:
    """The raw `struct statmount` with its strings. Linux 6.8. EOVERFLOW: ask with more room."""
    request = MountIdRequest(_MNT_ID_REQ_SIZE, 0, mount_id, mask)
    buffer = create_string_buffer(size)
    if _statmount(_NR_STATMOUNT, byref(request), buffer, size, 0) < 0:
        raise _last_error()
    return buffer.raw


def listmount(parent: int, after: int, count: int, flags: int) -> list[int]:
    """Up to `count` unique ids of the mounts below one (LSMT_ROOT: all). Linux 6.8."""
    request = MountIdRequest(_MNT_ID_REQ_SIZE, 0, parent, after)
    buffer = (c_uint64 * count)()
    found = _listmount(_NR_LISTMOUNT, byref(request), buffer, count, flags)
    if found < 0:
        raise _last_error()
    return buffer[:found]


def fanotify_init(flags: int) -> int:
    """A notification group."""
    fd: int = _fanotify_init(flags, 0)
    if fd < 0:
        raise _last_error()
    return fd


def fanotify_mark_namespace(group: int, mask: int, namespace: int) -> None:
    """Ask for the mount events of the mount namespace behind a descriptor. Linux 6.15."""
    flags = FAN_MARK_ADD | FAN_MARK_MNTNS
    if _fanotify_mark(group, flags, mask, namespace, None) < 0:
        raise _last_error()


def unshare(flags: int) -> None:
    """Give the calling thread namespaces of its own."""
    if _unshare(flags) < 0:
        raise _last_error()


def inotify_init() -> int:
    """A queue of file events, not blocking."""
    fd: int = _inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if fd < 0:
        raise _last_error()
    return fd


def inotify_add_watch(queue: int, path: bytes, mask: int) -> None:
    """Ask for events of the file or directory at a path."""
    if _inotify_add_watch(queue, path, mask) < 0:
        raise _last_error()


def quotactl_fd(fd: int, command: int, identity: int, buffer: bytearray) -> None:
    """Ask about, or change, the quotas of the file system of a descriptor. Linux 5.14."""
    argument = (ctypes.c_char * len(buffer)).from_buffer(buffer)
    if _quotactl_fd(_NR_QUOTACTL_FD, fd, command, identity, byref(argument)) < 0:
        raise _last_error()


def quotactl(command: int, device: bytes, identity: int, buffer: bytearray) -> None:
    """The same by the file system's block device."""
    argument = (ctypes.c_char * len(buffer)).from_buffer(buffer)
    if _quotactl(ctypes.c_int(command).value, device, identity, byref(argument)) < 0:
        raise _last_error()
