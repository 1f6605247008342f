"""Directories and files: `Trees` on a real kernel.

What is below the agent's own directories is reached by descriptors without following links; only
`inspect` follows them, on a path that a user has named. Small things are done at once, on the
caller's thread; a tree that may hold anything is counted first and, when it is large, removed in
the pool. `set_ownership` changes small trees on local file systems at once and hands the others to
a child process that can be killed. Nothing is cached.
"""

import errno
import os
import stat
from typing import Final

from volagent.host import directories, libc, ownership, paths, removal
from volagent.host.contract import FileKind, OwnershipPolicy, Payload
from volagent.host.errors import Absent, Busy, HostError, NotEmpty
from volagent.host.mounttable import TableReader, find_file_system
from volagent.host.payload import PayloadWriter
from volagent.host.process import Helpers

_SMALL_TREE_ENTRIES: Final = 50
"""As many as are removed or changed on the loop's own thread: well under a millisecond."""
_LINK_ASIDE: Final = ".link-"
_CACHED: Final = libc.OpenHow(flags=os.O_PATH | os.O_CLOEXEC, resolve=libc.RESOLVE_CACHED)

_KINDS: Final = (
    (stat.S_ISDIR, FileKind.DIRECTORY),
    (stat.S_ISREG, FileKind.FILE),
    (stat.S_ISSOCK, FileKind.SOCKET),
    (stat.S_ISBLK, FileKind.BLOCK_DEVICE),
    (stat.S_ISCHR, FileKind.CHARACTER_DEVICE),
    (stat.S_ISFIFO, FileKind.FIFO),
)


class RealTrees:
    """`Trees` on this machine."""

    def __init__(self, *, helpers: Helpers, reader: TableReader, payloads: PayloadWriter) -> None:
        self._helpers = helpers
        self._reader = reader
        self._payloads = payloads

    def ensure_dir(
        self, path: str, *, mode: int, gid: int | None = None, follow_links: bool = False
    ) -> bool:
        """Make a directory and its missing parents; True when it was made now."""
        if not follow_links:
            return directories.make_directory(path, mode=mode, gid=gid)
        directory, name = paths.follow_parent(path)
        try:
            return directories.make_directory_at(directory, name, mode, gid, path)
        finally:
            os.close(directory)

    def remove_dir(self, path: str) -> None:
        """`rmdir`; a missing one is fine."""
        try:
            directory, name = paths.open_parent(path)
        except Absent:
            return
        try:
            os.rmdir(name, dir_fd=directory)
        except FileNotFoundError:
            return
        except OSError as error:
            code = error.errno or 0
            if code in (errno.ENOTEMPTY, errno.EEXIST):
                raise NotEmpty("rmdir", path, code) from error
            if code == errno.EBUSY:
                raise Busy("rmdir", path, code, "a mount stands on it") from error
            raise HostError("rmdir", path, code) from error
        finally:
            os.close(directory)

    def list_dir(self, path: str) -> list[str]:
        """Names in a directory of ours, sorted; empty when it is missing."""
        try:
            directory = paths.open_listing(path)
        except Absent:
            return []
        try:
            return sorted(os.listdir(directory))
        except OSError as error:
            raise HostError("readdir", path, error.errno or 0) from error
        finally:
            os.close(directory)

    def inspect(self, path: str) -> FileKind | None:
        """What a user's path leads to, links followed, or None."""
        try:
            mode = os.stat(paths.encode(path)).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise HostError("stat", path, error.errno or 0) from error
        return _kind_of(mode, path)

    async def inspect_slowly(self, path: str, *, backend: str, timeout_s: float) -> FileKind | None:
        """What a user's path leads to: from the kernel's cache, else asked by a child process."""
        try:
            mode = _find_cached_mode(path)
        except BlockingIOError:
            answer = await self._helpers.call(
                "probe_path", {"path": path}, backend=backend, timeout_s=timeout_s
            )
            mode = answer.get("mode")
        except OSError as error:
            raise HostError("stat", path, error.errno or 0) from error
        return None if mode is None else _kind_of(mode, path)

    def ensure_file(self, path: str, *, mode: int, follow_links: bool = False) -> bool:
        """Make an empty file when it is missing; True when it was made now."""
        directory, name = paths.follow_parent(path) if follow_links else paths.open_parent(path)
        try:
            return directories.make_file_at(directory, name, mode, path)
        finally:
            os.close(directory)

    def ensure_link(self, path: str, destination: str) -> None:
        """Make or replace a symbolic link atomically."""
        parent, name = paths.split(path)
        directory = directories.open_or_make(parent)
        try:
            if _read_link(directory, name) == destination:
                return
            # One name per link is enough: a leftover of an interrupted call is replaced.
            aside = f"{_LINK_ASIDE}{name}"
            try:
                os.symlink(destination, aside, dir_fd=directory)
            except FileExistsError:
                os.unlink(aside, dir_fd=directory)
                os.symlink(destination, aside, dir_fd=directory)
            os.rename(aside, name, src_dir_fd=directory, dst_dir_fd=directory)
        except OSError as error:
            raise HostError("symlink", path, error.errno or 0) from error
        finally:
            os.close(directory)

    def remove_file(self, path: str) -> None:
        """Remove a link or an empty file; a missing one is fine. Raises `NotEmpty`, `Busy`."""
        try:
            directory, name = paths.open_parent(path)
        except Absent:
            return
        try:
            found = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if stat.S_ISREG(found.st_mode) and found.st_size:
                raise NotEmpty("unlink", path, 0, f"it holds {found.st_size} bytes")
            os.unlink(name, dir_fd=directory)
        except FileNotFoundError:
            return
        except OSError as error:
            code = error.errno or 0
            if code == errno.EBUSY:
                raise Busy("unlink", path, code, "a mount stands on it") from error
            raise HostError("unlink", path, code) from error
        finally:
            os.close(directory)

    def write_payload(self, target: str, payload: Payload, *, gid: int | None) -> None:
        """Make the directory show exactly this payload, by one atomic rename."""
        self._payloads.write(target, payload, gid=gid)

    def read_payload_fingerprint(self, target: str) -> str | None:
        """The fingerprint of what a finished `write_payload` of this boot left there."""
        return self._payloads.read_fingerprint(target)

    async def remove_tree(self, path: str) -> None:
        """Delete a directory with contents, on its own mount only."""
        if not removal.remove_if_small(path, entries_max=_SMALL_TREE_ENTRIES):
            await self._helpers.run_in_pool(removal.remove_large, path)

    async def finish_removals(self, parent: str) -> int:
        """Finish what interrupted calls of `remove_tree` left in a directory."""
        return await self._helpers.run_in_pool(removal.finish_removals, parent)

    async def set_ownership(
        self, path: str, *, gid: int, policy: OwnershipPolicy, timeout_s: float
    ) -> int:
        """Apply `fsGroup`; returns how many files were changed."""
        directory = paths.open_directory(path)
        try:
            device, local = find_file_system(directory, self._reader)
        except OSError as error:
            raise HostError("statx", path, error.errno or 0) from error
        finally:
            os.close(directory)
        if local:
            try:
                return ownership.give_to_group(path, gid, policy, entries_max=_SMALL_TREE_ENTRIES)
            except ownership.TooLarge:
                pass
        arguments = {"path": path, "gid": gid, "policy": policy.value}
        answer = await self._helpers.call(
            "set_ownership", arguments, backend=f"device {device}", timeout_s=timeout_s
        )
        return int(answer["changed"])


def _find_cached_mode(path: str) -> int | None:
    """The type bits of what a path leads to, None when it is missing.

    Raises `BlockingIOError` instead of waiting for a disk or a server, `OSError`.
    """
    try:
        fd = libc.openat2(libc.AT_FDCWD, paths.encode(path), _CACHED)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        flags = libc.AT_EMPTY_PATH | libc.AT_STATX_DONT_SYNC
        mode: int = libc.statx(fd, b"", flags, libc.STATX_TYPE).mode
        return mode
    finally:
        os.close(fd)


def _kind_of(mode: int, path: str) -> FileKind:
    for is_kind, kind in _KINDS:
        if is_kind(mode):
            return kind
    raise HostError("stat", path, 0, f"unknown file type {stat.S_IFMT(mode):o}")


def _read_link(directory: int, name: str) -> str | None:
    try:
        return os.readlink(name, dir_fd=directory)
    except OSError:
        return None
