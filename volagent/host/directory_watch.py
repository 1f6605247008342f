"""Tells that entries of a directory came or went, by inotify.

Only *that* something changed is told; whoever is told looks. For directories on local file systems:
a change made by another machine is not seen. One watch has one owner, who closes it.
"""

import asyncio
import os
from collections.abc import Callable
from typing import Final

from volagent.host import libc, paths
from volagent.host.contract import Closeable, MountChanges, Mounts
from volagent.host.paths import explain_failure

_EVENTS: Final = (
    libc.IN_CREATE | libc.IN_DELETE | libc.IN_MOVED_FROM | libc.IN_MOVED_TO
    | libc.IN_DELETE_SELF | libc.IN_ONLYDIR
)  # fmt: skip
_READ_BYTES: Final = 1 << 14


class DirectoryWatch:
    """Watches one directory from its making until `close`."""

    def __init__(self, path: str, on_change: Callable[[], None]) -> None:
        """Calls `on_change` on the loop's thread. Raises `Absent`, `HostError`."""
        self._on_change = on_change
        self._fd = libc.inotify_init()
        try:
            libc.inotify_add_watch(self._fd, paths.encode(path), _EVENTS)
        except OSError as error:
            os.close(self._fd)
            raise explain_failure("inotify_add_watch", path, error) from error
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._fd, self._read)

    def close(self) -> None:
        """Stop watching; idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self._loop.remove_reader(fd)
            os.close(fd)

    def _read(self) -> None:
        try:
            os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return
        self._on_change()


class LocalWatches:
    """How a part hears of changes of this VM: of its mounts, and of its directories' entries."""

    def __init__(self, mounts: Mounts) -> None:
        self._mounts = mounts

    def watch_mounts(self, on_change: Callable[[MountChanges], None]) -> Closeable:
        """Call when mounts come and go."""
        return self._mounts.watch_mounts(on_change)

    def watch_directory(self, path: str, on_change: Callable[[], None]) -> Closeable:
        """Call when a directory's entries come and go. Raises `Absent`, `HostError`."""
        return DirectoryWatch(path, on_change)
