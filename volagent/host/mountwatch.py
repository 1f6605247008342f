"""Who mounts and unmounts, told by the kernel: fanotify mount events, else poll on mountinfo.

`watch_mount_table` chooses. Both deliver on the event loop's own thread, never lose a change, and
never touch a mounted file system. fanotify (Linux 6.15) says which mount came or went; a queue that
overflowed is made good by comparing tables. poll only says *that* something changed: the table is
read again, at most once per pause, and compared; mounts that came and went within a pause are not
seen at all. One watch has one owner, who closes it.
"""

import asyncio
import os
import select
import struct
from collections.abc import Callable, Iterator
from typing import Final

from volagent.host import libc
from volagent.host.contract import Closeable, MountChanges, MountId
from volagent.host.mounttable import TableReader

_EVENTS: Final = libc.FAN_MNT_ATTACH | libc.FAN_MNT_DETACH
_READ_BYTES: Final = 1 << 16

# struct fanotify_event_metadata: event_len, vers, reserved, metadata_len, mask, fd, pid
_METADATA: Final = struct.Struct("=IBBHQii")
# struct fanotify_event_info_mnt: info_type, pad, len, (padding), mnt_id
_INFO_MNT: Final = struct.Struct("=BBH4xQ")

OnChange = Callable[[MountChanges], None]


def watch_mount_table(table: TableReader, on_change: OnChange) -> Closeable:
    """The best watch that this kernel offers.

    fanotify speaks of unique ids only, so a table of small ids is polled. Where fanotify has them
    but refuses (a limit on its groups is reached), polling does, and misses only moves.
    """
    if table.id_mask == libc.STATX_MNT_ID_UNIQUE:
        try:
            return FanotifyWatch(table, on_change)
        except OSError:
            pass
    return PollWatch(table, on_change)


def parse_events(data: bytes) -> Iterator[tuple[int, MountId | None]]:
    """What a fanotify group of mount marks reads: event mask and mount id, in their order."""
    position = 0
    while position < len(data):
        length, _, _, metadata_length, mask, _, _ = _METADATA.unpack_from(data, position)
        mount_id = None
        if length >= metadata_length + _INFO_MNT.size:
            kind, _, _, value = _INFO_MNT.unpack_from(data, position + metadata_length)
            if kind == libc.FAN_EVENT_INFO_TYPE_MNT:
                mount_id = MountId(value)
        yield mask, mount_id
        position += length


class FanotifyWatch:
    """Mount events of this namespace. Raises `OSError` at once where the kernel has none."""

    def __init__(self, table: TableReader, on_change: OnChange) -> None:
        self._table = table
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        self._fd = libc.fanotify_init(libc.FAN_REPORT_MNT | libc.FAN_CLOEXEC | libc.FAN_NONBLOCK)
        try:
            namespace = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
            try:
                libc.fanotify_mark_namespace(self._fd, _EVENTS, namespace)
            finally:
                os.close(namespace)
            # Read after the mark was set: what comes in between is in the table or in the queue.
            self._known = set(table.read_identities())
            self._loop.add_reader(self._fd, self._read)
        except BaseException:
            os.close(self._fd)
            raise

    def _read(self) -> None:
        try:
            data = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return
        attached: set[MountId] = set()
        detached: set[MountId] = set()
        overflowed = False
        for mask, mount_id in parse_events(data):
            if mask & libc.FAN_Q_OVERFLOW or mount_id is None:
                overflowed = True
            elif mask & libc.FAN_MNT_ATTACH:
                attached.add(mount_id)
                detached.discard(mount_id)
            else:
                # A mount that is moved is detached and attached; the last event tells its state.
                detached.add(mount_id)
                attached.discard(mount_id)
        if overflowed:
            self._resynchronise(attached, detached)
        self._known |= attached
        self._known -= detached
        if attached or detached:
            self._on_change(MountChanges(frozenset(attached), frozenset(detached)))

    def _resynchronise(self, attached: set[MountId], detached: set[MountId]) -> None:
        """Replace what the events of this reading say by the difference of the tables."""
        now = self._table.read_identities().keys()
        moved = attached & now
        attached.clear()
        attached |= (now - self._known) | moved
        detached.clear()
        detached |= self._known - now

    def close(self) -> None:
        """Stop watching; idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self._loop.remove_reader(fd)
            os.close(fd)


class PollWatch:
    """Change notices of /proc/self/mountinfo, answered by reading the table again.

    An epoll descriptor stands between mountinfo and the event loop: mountinfo is always readable,
    and only POLLPRI tells of a change.
    """

    PAUSE_S: Final = 0.010
    """At least this long between two readings of the table ..."""
    PAUSE_PER_READING: Final = 4.0
    """... and this many times what the last one took: large tables must not eat the thread."""

    def __init__(self, table: TableReader, on_change: OnChange) -> None:
        self._table = table
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        self._not_before = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._fd = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._epoll = select.epoll(flags=select.EPOLL_CLOEXEC)
            try:
                self._epoll.register(self._fd, select.EPOLLPRI)
                self._known = table.read_identities()
                self._loop.add_reader(self._epoll.fileno(), self._notice)
            except BaseException:
                self._epoll.close()
                raise
        except BaseException:
            os.close(self._fd)
            raise

    def _notice(self) -> None:
        self._epoll.poll(0)  # taking the notice clears it, for later changes to raise it again
        if self._timer is None:
            now = self._loop.time()
            if now >= self._not_before:
                self._compare()
            else:
                self._timer = self._loop.call_at(self._not_before, self._compare)

    def _compare(self) -> None:
        self._timer = None
        started = self._loop.time()
        before, self._known = self._known, self._table.read_identities()
        ended = self._loop.time()
        self._not_before = ended + max(self.PAUSE_S, self.PAUSE_PER_READING * (ended - started))
        now = self._known
        attached = {mount for mount, identity in now.items() if before.get(mount) != identity}
        detached = {mount for mount, identity in before.items() if now.get(mount) != identity}
        if attached or detached:
            self._on_change(MountChanges(frozenset(attached), frozenset(detached)))

    def close(self) -> None:
        """Stop watching; idempotent."""
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()
        os.close(fd)
