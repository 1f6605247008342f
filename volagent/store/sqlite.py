"""The store of a single server: everything in memory, every write in one SQLite file first.

Readers and watchers never touch the disk: they see the committed objects as bytes in a dict, and
the recent changes in one log per resource. A write (1) is judged on the event loop against the
committed state, (2) waits for the writer thread's next commit together with all others, (3) becomes
visible, is acknowledged, and wakes the watchers, in this order, in one call per commit. A key has
at most one write under way; a second one waits until the first is settled and is judged then, so
that a failed commit has no followers to undo.

For one event loop's thread. The number of writes under way is bounded by the callers, each of
which waits for its own.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from volagent.store.contract import (
    Broken,
    Change,
    KeyExists,
    Mismatch,
    Stored,
    StoreError,
)
from volagent.store.database import Database, Row, open_database
from volagent.store.lock import DirectoryLock
from volagent.store.log import Bell
from volagent.store.visible import Visible
from volagent.store.writer import Writer


class _Write:
    """One write under way; `current` is None for a delete."""

    __slots__ = ("current", "done", "key", "previous", "revision")

    def __init__(
        self, key: str, revision: int, previous: Stored | None, current: Stored | None
    ) -> None:
        self.key = key
        self.revision = revision
        self.previous = previous
        self.current = current
        self.done: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    @property
    def row(self) -> Row:
        """The row that makes it durable."""
        if self.current is not None:
            return (self.current.create_revision, self.revision, self.key, self.current.value)
        assert self.previous is not None
        return (self.previous.create_revision, self.revision, self.key, None)


class SqliteStore:
    """A `Store` in `<directory>/objects.db`; use `open_store`."""

    def __init__(self, directory: Path, lock: DirectoryLock, database: Database) -> None:
        objects, revision = database.load()
        self.directory = directory
        self._lock = lock
        self._visible = Visible(objects, revision)
        self._given_revision = revision
        self._under_way: dict[str, _Write] = {}
        self._collected: list[_Write] = []
        self._settled = Bell()
        self._broken: Broken | None = None
        self._closed = False
        self._writer = Writer[_Write](database, self._finish)
        self._writer.start()

    @property
    def revision(self) -> int:
        """The revision of the last write that is visible."""
        return self._visible.revision

    async def get(self, key: str) -> Stored | None:
        """A key's value, or None."""
        return self._visible.get(key)

    async def list(
        self, prefix: str, *, at_revision: int = 0, start_after: str = ""
    ) -> tuple[list[Stored], int]:
        """Values under a prefix, sorted by key: see the contract."""
        return self._visible.list(prefix, at_revision, start_after)

    async def create(self, key: str, value: bytes, *, beside: Stored | None = None) -> int:
        """Store under a new key."""
        while key in self._under_way:
            await self._settled.wait()
        if beside is not None and self._visible.get(beside.key) != beside:
            raise Mismatch(beside.key)
        if self._visible.get(key) is not None:
            raise KeyExists(key)
        revision = self._next_revision()
        return await self._write(key, revision, None, Stored(key, value, revision, revision))

    async def update(self, key: str, value: bytes, expected_revision: int) -> int:
        """Replace exactly that revision."""
        previous = await self._expect(key, expected_revision)
        revision = self._next_revision()
        current = Stored(key, value, previous.create_revision, revision)
        return await self._write(key, revision, previous, current)

    async def delete(self, key: str, expected_revision: int) -> int:
        """Delete exactly that revision."""
        previous = await self._expect(key, expected_revision)
        return await self._write(key, self._next_revision(), previous, None)

    def watch(
        self, prefix: str, after_revision: int, *, idle_s: float | None = None
    ) -> AsyncIterator[Sequence[Change]]:
        """Changes under a prefix, as batches in order: see the contract."""
        return self._visible.watch(prefix, after_revision, idle_s)

    async def wait_broken(self) -> None:
        """Wait until the store is broken, then raise `Broken`."""
        while self._broken is None:
            await self._settled.wait()
        raise self._broken

    async def close(self) -> None:
        """Finish the writes under way, fold the WAL in, and let the directory go. Idempotent."""
        if not self._closed:
            self._closed = True
            self._hand_over()
            await self._writer.stop()
            self._lock.release()

    async def _expect(self, key: str, revision: int) -> Stored:
        while key in self._under_way:
            await self._settled.wait()
        stored = self._visible.get(key)
        if stored is None or stored.mod_revision != revision:
            raise Mismatch(key)
        return stored

    async def _write(
        self, key: str, revision: int, previous: Stored | None, current: Stored | None
    ) -> int:
        write = _Write(key, revision, previous, current)
        self._under_way[key] = write
        if not self._collected:
            # What else this round of the loop writes goes along.
            asyncio.get_running_loop().call_soon(self._hand_over)
        self._collected.append(write)
        return await write.done

    def _hand_over(self) -> None:
        if self._collected:
            collected, self._collected = self._collected, []
            self._writer.submit(collected)

    def _finish(self, writes: Sequence[_Write], error: StoreError | None) -> None:
        """Make a commit's writes visible, or fail them all."""
        for write in writes:
            del self._under_way[write.key]
        if error is not None:
            self._fail(writes, error)
            return
        touched = self._visible.apply(
            [Change(write.key, write.revision, write.previous, write.current) for write in writes]
        )
        # Writers are resumed before watchers: they can then hand the latter what they have decoded.
        for write in writes:
            if not write.done.done():
                write.done.set_result(write.revision)
        self._settled.ring()
        for log in touched:
            log.bell.ring()

    def _fail(self, writes: Sequence[_Write], error: StoreError) -> None:
        for write in writes:
            if not write.done.done():
                write.done.set_exception(type(error)(str(error)))
        if isinstance(error, Broken) and self._broken is None:
            self._broken = error
            self._visible.break_off(error)
        self._settled.ring()

    def _next_revision(self) -> int:
        if self._broken is not None:
            raise Broken(str(self._broken))
        if self._closed:
            raise Broken("the store is closed")
        self._given_revision += 1
        return self._given_revision


def open_store(directory: Path) -> SqliteStore:
    """Open the store in a state directory, making both when absent (mode 0700 and 0600).

    To be called in a running event loop. Raises `AlreadyRunning`, `Corrupt`, `OSError`.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = DirectoryLock(directory)
    try:
        return SqliteStore(directory, lock, open_database(directory))
    except BaseException:
        lock.release()
        raise
