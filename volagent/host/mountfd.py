"""Mounts by descriptor: made detached, given their attributes, then attached in one step.

So nobody ever sees a half-configured mount: a read-only bind is read-only from its first moment.
Every function either returns a descriptor that the caller owns, or leaves nothing behind. The
descriptor of a mount must be closed before the mount can be unmounted. Stateless; what may take
long (`open_device_mount`) belongs into the pool.
"""

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass

from volagent.host import libc, paths
from volagent.host.contract import BindOptions, MountId, Propagation, TmpfsOptions
from volagent.host.errors import Absent, HostError, Unsupported
from volagent.host.mount_options import parse_bind_options, split_options

_CLONE = libc.OPEN_TREE_CLONE
_PRIVATE = libc.MountAttr(propagation=libc.MS_PRIVATE)
_SLAVE = libc.MountAttr(propagation=libc.MS_SLAVE)
_SHARED = libc.MountAttr(propagation=libc.MS_SHARED)
_TMPFS_ATTRIBUTES = libc.MOUNT_ATTR_NOSUID | libc.MOUNT_ATTR_NODEV
_TMPFS_DEFAULT_MODE = 0o1777
_LOG_BYTES = 4096
_OF_DESCRIPTOR = libc.AT_EMPTY_PATH | libc.AT_STATX_DONT_SYNC
_OF_NAME = libc.AT_SYMLINK_NOFOLLOW | libc.AT_NO_AUTOMOUNT | libc.AT_STATX_DONT_SYNC


@dataclass(frozen=True, slots=True)
class Attaching:
    """How, and for whom, a mount is attached."""

    target: str
    id_mask: int
    """Which of the two kinds of mount ids `statx` is asked for."""
    propagation: Propagation = Propagation.PRIVATE
    recursive: bool = False


def open_tmpfs(options: TmpfsOptions, target: str) -> int:
    """A detached tmpfs, or hugetlbfs, as asked for."""
    huge = options.huge_page_bytes is not None
    call = "mount hugetlbfs" if huge else "mount tmpfs"
    context = -1
    try:
        context = libc.fsopen(b"hugetlbfs" if huge else b"tmpfs")
        # Not `none`: what mount tables show, and what people grep for, is as with a kubelet.
        source = b"nodev" if huge else b"tmpfs"
        libc.fsconfig(context, libc.FSCONFIG_SET_STRING, b"source", source)
        if huge or options.mode != _TMPFS_DEFAULT_MODE:
            libc.fsconfig(context, libc.FSCONFIG_SET_STRING, b"mode", b"%o" % options.mode)
        if options.size_bytes is not None:
            libc.fsconfig(context, libc.FSCONFIG_SET_STRING, b"size", b"%d" % options.size_bytes)
        if options.uid:
            libc.fsconfig(context, libc.FSCONFIG_SET_STRING, b"uid", b"%d" % options.uid)
        if options.gid:
            libc.fsconfig(context, libc.FSCONFIG_SET_STRING, b"gid", b"%d" % options.gid)
        if huge:
            page = b"%d" % (options.huge_page_bytes or 0)
            libc.fsconfig(context, libc.FSCONFIG_SET_STRING, b"pagesize", page)
        elif options.no_swap:
            _ask_for_no_swap(context)
        libc.fsconfig(context, libc.FSCONFIG_CMD_CREATE, None, None)
        return libc.fsmount(context, _TMPFS_ATTRIBUTES)
    except OSError as error:
        raise _explain(call, target, error, context) from error
    finally:
        if context >= 0:
            os.close(context)


def _ask_for_no_swap(context: int) -> None:
    try:
        libc.fsconfig(context, libc.FSCONFIG_SET_FLAG, b"noswap", None)
    except OSError as error:
        if error.errno != errno.EINVAL:  # EINVAL: older than Linux 6.4, goes without
            raise


def clone_tree(directory: int, source: bytes, options: BindOptions, subject: str) -> int:
    """A detached copy of what is mounted at a path, or behind a descriptor (empty path).

    Links in `source` are followed. Raises `Absent` when there is no such path.
    """
    flags = _CLONE | (libc.AT_RECURSIVE if options.recursive else 0)
    try:
        tree = libc.open_tree(directory, source, flags if source else flags | libc.AT_EMPTY_PATH)
    except OSError as error:
        code = error.errno or 0
        kind = Absent if code in (errno.ENOENT, errno.ENOTDIR) else HostError
        raise kind("open_tree", subject, code) from error
    try:
        _set_bind_attributes(tree, options, subject)
    except BaseException:
        os.close(tree)
        raise
    return tree


def _set_bind_attributes(tree: int, options: BindOptions, subject: str) -> None:
    """Attributes, and no peers: else what is mounted below the source would appear here too."""
    attr_set, attr_clear = (
        parse_bind_options(options.options, subject) if options.options else (0, 0)
    )
    if options.read_only or options.recursive_read_only:
        attr_set |= libc.MOUNT_ATTR_RDONLY
        attr_clear &= ~libc.MOUNT_ATTR_RDONLY
    try:
        if options.recursive:
            if options.recursive_read_only:
                everywhere = libc.MountAttr(attr_set=libc.MOUNT_ATTR_RDONLY)
                libc.mount_setattr(tree, libc.AT_RECURSIVE, everywhere)
            libc.mount_setattr(tree, libc.AT_RECURSIVE, _cut_off(options.propagation))
            if not attr_set | attr_clear:
                return
        propagation = _cut_off(options.propagation).propagation
        libc.mount_setattr(tree, 0, libc.MountAttr(attr_set, attr_clear, propagation, 0))
    except OSError as error:
        raise HostError("mount_setattr", subject, error.errno or 0) from error


def open_device_mount(
    device: str, fs_type: str, options: Sequence[str], read_only: bool, target: str
) -> int:
    """A detached mount of the file system on a block device. May take long (journal replay).

    The error carries the kernel's own words where the file system has any. Raises `Unsupported`
    when this kernel has no such file system.
    """
    split = split_options(options, read_only=read_only)
    call = f"mount -t {fs_type} {device}"
    try:
        context = libc.fsopen(fs_type.encode())
    except OSError as error:
        if error.errno == errno.ENODEV:
            detail = f"this kernel has no file system of type {fs_type!r}"
            raise Unsupported(call, target, errno.ENODEV, detail) from error
        raise HostError(call, target, error.errno or 0) from error
    try:
        libc.fsconfig(context, libc.FSCONFIG_SET_STRING, b"source", paths.encode(device))
        for name, value in split.parameters:
            if value is None:
                libc.fsconfig(context, libc.FSCONFIG_SET_FLAG, os.fsencode(name), None)
            else:
                key = os.fsencode(name)
                libc.fsconfig(context, libc.FSCONFIG_SET_STRING, key, os.fsencode(value))
        libc.fsconfig(context, libc.FSCONFIG_CMD_CREATE, None, None)
        return libc.fsmount(context, split.attributes)
    except OSError as error:
        raise _explain(call, target, error, context) from error
    finally:
        os.close(context)


def _explain(call: str, target: str, error: OSError, context: int) -> HostError:
    detail = "; ".join(_read_log(context)) if context >= 0 else ""
    return HostError(call, target, error.errno or 0, detail)


def _read_log(context: int) -> list[str]:
    """What the kernel says about a failure: lines such as `e ext4: Unknown parameter 'x'`."""
    lines: list[str] = []
    try:
        while True:
            line = os.read(context, _LOG_BYTES).decode(errors="replace").strip()
            lines.append(line[2:] if line[:2] in ("e ", "w ", "i ") else line)
    except OSError:  # ENODATA: that was all
        return lines


def attach(mount: int, how: Attaching) -> MountId:
    """Attach a detached mount at a path of ours, and verify that it is what is seen there.

    A mount that is attached below a shared one becomes shared itself, whatever it was before, so
    its propagation is set once more (mount_setattr cannot do it earlier).
    """
    recursive = libc.AT_RECURSIVE if how.recursive else 0
    directory, last = paths.open_parent(how.target)
    name = os.fsencode(last)
    call = "move_mount"
    try:
        libc.move_mount(mount, directory, name)
        call = "mount_setattr"
        libc.mount_setattr(mount, recursive, _cut_off(how.propagation))
        if how.propagation is Propagation.SHARED:
            libc.mount_setattr(mount, recursive, _SHARED)
        call = "statx"
        made = libc.statx(mount, b"", _OF_DESCRIPTOR, how.id_mask).mount_id
        seen = libc.statx(directory, name, _OF_NAME, how.id_mask).mount_id
    except OSError as error:
        raise HostError(call, how.target, error.errno or 0) from error
    finally:
        os.close(directory)
    if made != seen:
        raise HostError("statx", how.target, 0, f"mount {seen} is seen there, {made} was mounted")
    return MountId(made)


def _cut_off(propagation: Propagation) -> libc.MountAttr:
    """What separates a mount from the peers that it was cloned from or attached among."""
    return _SLAVE if propagation is Propagation.SLAVE else _PRIVATE
