"""The recent changes of one resource, shared by all its watchers.

A watcher is only a position in this log, so that a slow one costs nothing and a lost one is found
out by its position having been dropped. For one event loop's thread; nothing here waits except on
a `Bell`.
"""

import asyncio
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from operator import attrgetter

from volagent.store.contract import Change, Compacted, Stored

_revision_of = attrgetter("revision")


class Bell:
    """Wakes everybody who waits for it."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []

    def ring(self) -> None:
        """Wake all who wait now."""
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            for future in waiting:
                if not future.done():
                    future.set_result(None)

    async def wait(self, at_most_s: float | None = None) -> bool:
        """Wait for the next ring; False when the time is over first."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            if at_most_s is None:
                await future
            else:
                async with asyncio.timeout(at_most_s):
                    await future
        except TimeoutError:
            return False
        finally:
            # A ring may come between the cancellation and this: then it is taken out already.
            if future.cancelled() and future in self._waiting:
                self._waiting.remove(future)
        return True


class ChangeLog:
    """Changes in order of their revisions, the oldest dropped first.

    Positions count changes since the log was made; `dropped` is the position of the first change
    that is still here, and `floor` the revision up to which changes are gone.
    """

    __slots__ = ("_changes", "bell", "dropped", "floor", "size_bytes")

    def __init__(self, floor: int) -> None:
        self._changes: list[Change] = []
        self.bell = Bell()
        self.dropped = 0
        self.floor = floor
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._changes)

    def append(self, change: Change) -> None:
        """Add the newest change."""
        self._changes.append(change)
        self.size_bytes += _size_bytes(change)

    def position_after(self, revision: int) -> int:
        """Where a watcher that knows this revision goes on. Raises `Compacted`."""
        if revision < self.floor:
            raise Compacted(f"revision {revision} is older than {self.floor}")
        return self.dropped + bisect_right(self._changes, revision, key=_revision_of)

    def read(self, position: int) -> Sequence[Change]:
        """Everything from a position on. Raises `Compacted` when some of it was dropped."""
        if position < self.dropped:
            raise Compacted(f"the watcher was too slow: {self.dropped - position} changes missed")
        return self._changes[position - self.dropped :]

    def undo_to(self, revision: int) -> dict[str, Stored | None]:
        """What the keys changed since a revision held at it. Raises `Compacted`."""
        held: dict[str, Stored | None] = {}
        for change in self._backwards(self.position_after(revision)):
            held[change.key] = change.previous
        return held

    def drop(self, count: int) -> None:
        """Forget the oldest changes."""
        gone = self._changes[:count]
        if gone:
            del self._changes[:count]
            self.dropped += len(gone)
            self.floor = gone[-1].revision
            self.size_bytes -= sum(map(_size_bytes, gone))

    def forget(self, revision: int) -> None:
        """Remember nothing up to a revision: every watcher is cut off, also one that knew all."""
        self.dropped += len(self._changes) + 1
        self._changes.clear()
        self.floor = revision
        self.size_bytes = 0
        self.bell.ring()

    def _backwards(self, position: int) -> Iterator[Change]:
        for index in range(len(self._changes) - 1, position - self.dropped - 1, -1):
            yield self._changes[index]


def _size_bytes(change: Change) -> int:
    # The previous value is the current one of an earlier change, so each is counted once; the
    # constant stands for the objects around it.
    stored = change.current or change.previous
    assert stored is not None
    return len(stored.value) + 300
