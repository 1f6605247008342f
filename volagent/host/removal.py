"""Deleting a directory with its contents, without ever touching what is mounted inside.

Every step is one name below a descriptor, opened with RESOLVE_NO_XDEV, NO_SYMLINKS and BENEATH: a
mount (a bind of the same file system too) and a link are never entered, whatever is swapped under
us. The kernel itself refuses to delete a mount point. `Removal` renames the directory aside first,
so that its name is free at once and an interrupted removal is found again by its new name.

At most `_DEPTH_MAX` descriptors are open: what is nested deeper is moved up to the top first.
"""

import errno
import os
import secrets
from typing import Final

from volagent.host import libc, paths
from volagent.host.errors import Absent, Busy, HostError
from volagent.host.mountinfo import unescape

_ENTER = libc.OpenHow(
    flags=os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC,
    resolve=libc.RESOLVE_NO_XDEV | libc.RESOLVE_NO_SYMLINKS | libc.RESOLVE_BENEATH,
)
_DEPTH_MAX: Final = 64
_FIELDS_BEFORE_MOUNT_POINT: Final = 4
_MARK: Final = ".removing-"
_NAME_PART_MAX: Final = 200
"""So much of a name is kept in the name aside, which must fit into 255 bytes."""


def open_same_mount(directory: int, name: str) -> int:
    """A directory that can be listed, on the same mount as its parent. Raises `OSError`."""
    return libc.openat2(directory, os.fsencode(name), _ENTER)


def remove_below(directory: int, name: str) -> None:
    """Delete all that is in `directory/name`. Raises `OSError`: EXDEV or EBUSY at a mount."""
    top = open_same_mount(directory, name)
    try:
        _empty(top)
    finally:
        os.close(top)


def _empty(top: int) -> None:
    """Depth first: `stack` holds the open directories, each with the names still to enter."""
    stack: list[tuple[int, list[str]]] = [(top, _unlink_files(top))]
    entered: list[str] = []
    try:
        while True:
            directory, names = stack[-1]
            if names:
                name = names.pop()
                if len(stack) < _DEPTH_MAX:
                    below = open_same_mount(directory, name)
                    stack.append((below, []))
                    entered.append(name)
                    stack[-1][1].extend(_unlink_files(below))
                else:
                    aside = f"{_MARK}{secrets.token_hex(8)}"
                    os.rename(name, aside, src_dir_fd=directory, dst_dir_fd=top)
                    stack[0][1].append(aside)
            elif entered:
                os.close(stack.pop()[0])
                os.rmdir(entered.pop(), dir_fd=stack[-1][0])
            else:
                return
    finally:
        for directory, _ in stack[1:]:
            os.close(directory)


def _unlink_files(directory: int) -> list[str]:
    """Unlink what is no directory, remove directories that are empty; the names of the others."""
    others = []
    with os.scandir(directory) as entries:
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.name, dir_fd=directory)
                continue
            try:
                os.rmdir(entry.name, dir_fd=directory)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                others.append(entry.name)
    return others


def remove_if_small(path: str, *, entries_max: int) -> bool:
    """Remove a directory with at most so many entries at once; False when it has more.

    Raises `Busy`, before anything is touched, when a directory inside is a mount point.
    """
    try:
        directory, name = paths.open_parent(path)
    except Absent:
        return True
    try:
        try:
            os.rmdir(name, dir_fd=directory)
            return True
        except FileNotFoundError:
            return not find_leftovers(directory, name)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        if _count(directory, name, entries_max) > entries_max:
            return False
        _remove_aside(directory, name)
        return True
    except OSError as error:
        raise _explain(path, error) from error
    finally:
        os.close(directory)


def _count(directory: int, name: str, most: int) -> int:
    """How many entries are in a directory and below it; counting stops beyond `most`."""
    fd = open_same_mount(directory, name)
    try:
        with os.scandir(fd) as entries:
            listed = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        count = len(listed)
        for below, is_directory in listed:
            if count > most:
                return count
            if is_directory:
                count += _count(fd, below, most - count)
        return count
    finally:
        os.close(fd)


def remove_large(path: str) -> None:
    """Remove a directory of any size, and what interrupted removals of it have left.

    Raises `Busy`, before anything is touched, when the mount table has something below it.
    """
    try:
        directory, name = paths.open_parent(path)
    except Absent:
        return
    try:
        _refuse_mounts_below(path)
        try:
            _remove_aside(directory, name)
        except FileNotFoundError:
            pass  # only leftovers are there
        for leftover in find_leftovers(directory, name):
            remove_below(directory, leftover)
            os.rmdir(leftover, dir_fd=directory)
    except OSError as error:
        raise _explain(path, error) from error
    finally:
        os.close(directory)


def _remove_aside(directory: int, name: str) -> None:
    aside = f"{_prefix(name)}{secrets.token_hex(4)}"
    os.rename(name, aside, src_dir_fd=directory, dst_dir_fd=directory)
    try:
        remove_below(directory, aside)
        os.rmdir(aside, dir_fd=directory)
    except OSError as error:
        if error.errno in (errno.EXDEV, errno.EBUSY):
            # Whoever knows the mount inside knows it by the old name.
            os.rename(aside, name, src_dir_fd=directory, dst_dir_fd=directory)
        raise


def _prefix(name: str) -> str:
    return f".{name[:_NAME_PART_MAX]}{_MARK}"


def find_leftovers(directory: int, name: str | None = None) -> list[str]:
    """Directories that interrupted removals have left behind: all, or those of one name."""
    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    try:
        names = os.listdir(fd)
    finally:
        os.close(fd)
    if name is not None:
        prefix = _prefix(name)
        return [found for found in names if found.startswith(prefix)]
    return [found for found in names if found.startswith(".") and _MARK in found]


def finish_removals(parent: str) -> int:
    """Finish what interrupted removals have left in a directory; returns how many there were.

    Raises `Busy` at a mount, `HostError`.
    """
    try:
        directory = paths.open_directory(parent)
    except Absent:
        return 0
    try:
        leftovers = find_leftovers(directory)
        for name in leftovers:
            remove_below(directory, name)
            os.rmdir(name, dir_fd=directory)
        return len(leftovers)
    except OSError as error:
        raise _explain(parent, error) from error
    finally:
        os.close(directory)


def _refuse_mounts_below(path: str) -> None:
    """Ask the table as text: parsing thousands of mounts would hold the interpreter lock."""
    with open("/proc/self/mountinfo", "rb", buffering=1 << 20) as file:
        table = file.read()
    escaped = paths.encode(path)
    for character in b"\\ \t\n":
        escaped = escaped.replace(b"%c" % character, b"\\%03o" % character)
    needle = b" %s" % escaped
    start = table.find(needle)
    while start >= 0:
        end = start + len(needle)
        line = table.rfind(b"\n", 0, start) + 1
        is_mount_point = table.count(b" ", line, start) == _FIELDS_BEFORE_MOUNT_POINT
        if is_mount_point and table[end : end + 1] in (b" ", b"/"):
            mount_point = unescape(table[start + 1 : table.index(b" ", end)])
            raise Busy("remove", path, errno.EBUSY, f"{mount_point} is mounted")
        start = table.find(needle, end)


def _explain(path: str, error: OSError) -> HostError:
    code = error.errno or 0
    if code in (errno.EXDEV, errno.EBUSY):
        return Busy("remove", path, errno.EBUSY, "something is mounted inside")
    return HostError("remove", path, code)
