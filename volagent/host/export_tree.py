"""The directories of volumes on an export: made, moved and removed below its root's descriptor.

No path is walked by the kernel's ordinary rules: each directory is opened beneath the root without
links, and never through another mount, so nothing that somebody plants in the export leads out of
it. A directory is known by its inode (an NFS server's file id), which a rename keeps. Nothing here
decides whose a directory is (`exports.py`). Standard library only; errors are `OSError`.
"""

import contextlib
import errno
import os
import secrets
import stat
import time
from dataclasses import dataclass
from typing import Final

from volagent.host.export_records import NEW, Records, enter

PARENT_MODE: Final = 0o755
"""Of directories on the way to a volume: anybody may pass, as through the export's root."""
_UNFINISHED_MODE: Final = 0o700
_DEPTH_MAX: Final = 64
_RETRIES_MAX: Final = 5
"""A parent may be removed by another volume's deletion just when it is entered."""
_NO_CHANGE: Final = -1


@dataclass(frozen=True, slots=True)
class Ownership:
    """What a new directory gets; None leaves what the server gave."""

    mode: int
    uid: int | None = None
    gid: int | None = None
    made_up: bool = False
    """The group was chosen by us: a server that refuses it only means that there is none."""


def split(path: str) -> tuple[str, str]:
    """Parent ("" for the root) and last component of a path below the root."""
    parent, _, name = path.rpartition("/")
    return parent, name


def open_below(root: int, path: str) -> int:
    """A directory below the root; "" is the root itself. The caller closes it."""
    return enter(root, path or ".")


def find_inode(root: int, path: str) -> int:
    """The inode of whatever is at a path, a link itself included; 0 when nothing is there."""
    parent, name = split(path)
    try:
        directory = open_below(root, parent)
    except FileNotFoundError:
        return 0
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False).st_ino
    except FileNotFoundError:
        return 0
    finally:
        os.close(directory)


def prepare_new(records: Records, name: str, ownership: Ownership) -> tuple[int, bool]:
    """Make a volume's directory where only we are, with its owner and mode.

    Its inode, and whether it has the ownership asked for (False: the server refused a group of our
    own choice). Raises `OSError`.
    """
    directory = records.folder(NEW)
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, _UNFINISHED_MODE, dir_fd=directory)
    fd = enter(directory, name)
    try:
        uid = _NO_CHANGE if ownership.uid is None else ownership.uid
        gid = _NO_CHANGE if ownership.gid is None else ownership.gid
        given = True
        if (uid, gid) != (_NO_CHANGE, _NO_CHANGE):
            try:
                os.fchown(fd, uid, gid)
            except PermissionError:
                if not ownership.made_up:
                    raise
                given = False
        os.fchmod(fd, ownership.mode)
        os.fsync(fd)
        os.fsync(directory)
        return os.fstat(fd).st_ino, given
    finally:
        os.close(fd)


def drop_new(records: Records, name: str) -> bool:
    """Remove a directory that has not reached its place; whether there was one."""
    try:
        os.rmdir(name, dir_fd=records.folder(NEW))
    except FileNotFoundError:
        return False
    return True


def place(root: int, source: tuple[int, str], path: str, records: Records) -> None:
    """Rename a directory to a path where nothing is, making the directories on the way.

    Raises `FileExistsError` when something is there.
    """
    parent, name = split(path)
    for _ in range(_RETRIES_MAX):
        try:
            directory = _make_parents(root, parent, records)
        except FileNotFoundError:
            continue
        try:
            _refuse_existing(directory, name)
            os.rename(source[1], name, src_dir_fd=source[0], dst_dir_fd=directory)
            os.fsync(directory)
            os.fsync(source[0])
            return
        except FileNotFoundError:
            # The source is checked by our caller: so the parent was removed under us.
            continue
        finally:
            os.close(directory)
    raise OSError(errno.EAGAIN, "its parent directory keeps disappearing", path)


def take(root: int, path: str, target: tuple[int, str]) -> None:
    """Rename the directory at a path into a directory of ours, where nothing is."""
    parent, name = split(path)
    directory = open_below(root, parent)
    try:
        _refuse_existing(*target)
        os.rename(name, target[1], src_dir_fd=directory, dst_dir_fd=target[0])
        os.fsync(target[0])
        os.fsync(directory)
    finally:
        os.close(directory)


def remove_empty_parents(root: int, path: str, records: Records) -> None:
    """Remove the directories above a path that were made for volumes and are empty now."""
    parent, _ = split(path)
    while parent:
        above, name = split(parent)
        if not records.is_parent(parent):
            return
        try:
            directory = open_below(root, above)
        except FileNotFoundError:
            records.forget_parent(parent)
            parent = above
            continue
        try:
            os.rmdir(name, dir_fd=directory)
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                return
            raise
        finally:
            os.close(directory)
        records.forget_parent(parent)
        parent = above


def remove_until(directory: int, name: str, deadline_s: float) -> bool:
    """Delete a directory with its contents; False when the (monotonic) deadline came first.

    Links are unlinked, never followed. Raises `OSError`: EXDEV at a mount, EBUSY when files that
    are still in use come back under other names, as an NFS client keeps them.
    """
    while True:
        try:
            top = enter(directory, name)
        except FileNotFoundError:
            return True
        try:
            removed = _empty(top, top, deadline_s, 0)
        finally:
            os.close(top)
        if removed is None:
            return False
        try:
            os.rmdir(name, dir_fd=directory)
            os.fsync(directory)
        except FileNotFoundError:
            return True
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            if not removed:
                raise OSError(errno.EBUSY, "files in it are still in use", name) from error
        else:
            return True


def _empty(directory: int, top: int, deadline_s: float, depth: int) -> int | None:
    """Remove what is in a directory; how many entries went, None when the time was over."""
    removed, below = 0, []
    with os.scandir(directory) as entries:
        for entry in entries:
            if time.monotonic() >= deadline_s:
                return None
            if entry.is_dir(follow_symlinks=False):
                below.append(entry.name)
                continue
            with contextlib.suppress(FileNotFoundError):
                os.unlink(entry.name, dir_fd=directory)
                # A file that is in use does not go: the client renames it to .nfs....
                removed += not entry.name.startswith(".nfs")
    for name in below:
        if depth >= _DEPTH_MAX:  # what is nested deeper is moved up: so few descriptors are open
            aside = f".deep-{secrets.token_hex(8)}"
            os.rename(name, aside, src_dir_fd=directory, dst_dir_fd=top)
            removed += 1
            continue
        try:
            inner = enter(directory, name)
        except FileNotFoundError:
            continue
        try:
            count = _empty(inner, top, deadline_s, depth + 1)
        finally:
            os.close(inner)
        if count is None:
            return None
        removed += count + _remove_directory(directory, name)
    return removed


def _remove_directory(directory: int, name: str) -> int:
    try:
        os.rmdir(name, dir_fd=directory)
    except FileNotFoundError:
        return 0
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return 0  # a round that removes nothing at all is an error
    return 1


def _make_parents(root: int, path: str, records: Records) -> int:
    """A descriptor of a directory below the root; what is missing on the way is made."""
    directory = open_below(root, "")
    walked = ""
    for name in path.split("/") if path else ():
        walked = f"{walked}/{name}" if walked else name
        try:
            below = _enter_or_make(directory, name, walked, records)
        finally:
            os.close(directory)
        directory = below
    return directory


def _enter_or_make(directory: int, name: str, walked: str, records: Records) -> int:
    try:
        return enter(directory, name)
    except FileNotFoundError:
        records.note_parent(walked)
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, PARENT_MODE, dir_fd=directory)
        os.fsync(directory)
    return enter(directory, name)


def _refuse_existing(directory: int, name: str) -> None:
    """`rename` would replace an empty directory without a word."""
    try:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return
    kind = "a directory" if stat.S_ISDIR(found.st_mode) else "something"
    raise FileExistsError(errno.EEXIST, f"{kind} is there already", name)
