"""Paths below the agent's own directories, opened without following a symbolic link.

The agent's directories (root, state, run) must be given as canonical paths: a link anywhere in a
path handed to this module is an attack or a mistake, and raises `Escapes`. Nothing here creates or
changes anything; every descriptor is O_PATH, close-on-exec, and belongs to the caller. Stateless,
so any thread may call.
"""

import errno
import os

from volagent.host import libc
from volagent.host.errors import Absent, Escapes, HostError

_DIRECTORY = libc.OpenHow(
    flags=os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, resolve=libc.RESOLVE_NO_SYMLINKS
)
_ANYTHING = libc.OpenHow(flags=os.O_PATH | os.O_CLOEXEC, resolve=libc.RESOLVE_NO_SYMLINKS)
_LISTING = libc.OpenHow(
    flags=os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, resolve=libc.RESOLVE_NO_SYMLINKS
)


def encode(path: str) -> bytes:
    """The bytes of a path. A NUL would cut it short in the kernel, so it raises `HostError`."""
    encoded = os.fsencode(path)
    if b"\0" in encoded:
        raise HostError("open", repr(path), errno.EINVAL, "a path cannot contain NUL")
    return encoded


def explain_failure(call: str, path: str, error: OSError) -> HostError:
    """The error of a path walk, named by what it means to the caller."""
    code = error.errno or 0
    if code == errno.ENOENT:
        return Absent(call, path, code)
    if code == errno.ELOOP:
        return Escapes(call, path, code, "a symbolic link is in the way")
    return HostError(call, path, code)


def open_directory(path: str) -> int:
    """A descriptor to walk from. Raises `Absent`, `Escapes`, `HostError` (ENOTDIR, ...)."""
    try:
        return libc.openat2(libc.AT_FDCWD, encode(path), _DIRECTORY)
    except OSError as error:
        raise explain_failure("openat2", path, error) from error


def try_open_directory(path: str) -> int:
    """As `open_directory`, but -1 when it is missing: for a walk that makes what is missing."""
    try:
        return libc.openat2(libc.AT_FDCWD, encode(path), _DIRECTORY)
    except FileNotFoundError:
        return -1
    except OSError as error:
        raise explain_failure("openat2", path, error) from error


def open_listing(path: str) -> int:
    """A descriptor of a directory that can be listed. Raises as `open_directory`."""
    try:
        return libc.openat2(libc.AT_FDCWD, encode(path), _LISTING)
    except OSError as error:
        raise explain_failure("openat2", path, error) from error


def open_anything(path: str) -> int:
    """A descriptor of whatever is there, a link excepted. Raises as `open_directory`."""
    try:
        return libc.openat2(libc.AT_FDCWD, encode(path), _ANYTHING)
    except OSError as error:
        raise explain_failure("openat2", path, error) from error


def split(path: str) -> tuple[str, str]:
    """Parent and last name of an absolute path; `HostError` for `/` and for names like `..`."""
    parent, _, name = path.rpartition("/")
    if not name or name == "." or name == ".." or path[0] != "/":
        raise HostError("open", path, errno.EINVAL, "not an absolute path with a last name")
    return parent or "/", name


def open_parent(path: str) -> tuple[int, str]:
    """The directory in which a path's last name stands, and that name."""
    parent, name = split(path)
    return open_directory(parent), name


def follow_parent(path: str) -> tuple[int, str]:
    """As `open_parent` for a path that a user has named: links on the way are followed."""
    parent, name = split(path)
    return follow_directory(parent), name


def follow_directory(path: str) -> int:
    """As `open_directory` for a path that a user has named: links are followed."""
    try:
        return os.open(encode(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise explain_failure("open", path, error) from error
