"""A store in memory: passes the store contract's suite, has no thread and no disk.

It outlives the agents of a simulation, as a database on disk would.
"""

import asyncio
from bisect import bisect_left, bisect_right, insort

from volagent.store.contract import (
    Change,
    Compacted,
    FutureRevision,
    KeyExists,
    Mismatch,
    Stored,
)

LAST = "\U0010ffff"
"""Sorts behind whatever a key goes on with."""


class MemoryStore:
    def __init__(self):
        self._values: dict[str, Stored] = {}
        self._keys: list[str] = []
        """Sorted: lists are asked for all the time."""
        self._log: list[Change] = []
        self._revision = 0
        self._awaited: dict[str, asyncio.Event] = {}
        """Prefix → the next change below it; who watches another one sleeps on."""
        self._closed = False

    @property
    def revision(self) -> int:
        return self._revision

    @property
    def history(self) -> tuple[Change, ...]:
        return tuple(self._log)

    async def get(self, key: str) -> Stored | None:
        return self._values.get(key)

    async def list(self, prefix: str, *, at_revision: int = 0, start_after: str = ""):
        if at_revision > self._revision:
            raise FutureRevision(str(at_revision))
        values, keys = self._values, self._keys
        if at_revision:
            values = dict(values)
            for change in reversed(self._log):
                if change.revision <= at_revision:
                    break
                if change.previous is None:
                    values.pop(change.key, None)
                else:
                    values[change.key] = change.previous
            keys = sorted(values)
        first = max(bisect_left(keys, prefix), bisect_right(keys, start_after))
        last = bisect_left(keys, prefix + LAST, first)
        return [values[key] for key in keys[first:last]], at_revision or self._revision

    async def create(self, key: str, value: bytes, *, beside: Stored | None = None) -> int:
        if beside is not None and self._values.get(beside.key) != beside:
            raise Mismatch(beside.key)
        if key in self._values:
            raise KeyExists(key)
        revision = self._revision + 1
        return self._apply(key, None, Stored(key, value, revision, revision))

    async def update(self, key: str, value: bytes, expected_revision: int) -> int:
        old = self._current(key, expected_revision)
        return self._apply(key, old, Stored(key, value, old.create_revision, self._revision + 1))

    async def delete(self, key: str, expected_revision: int) -> int:
        return self._apply(key, self._current(key, expected_revision), None)

    def _current(self, key: str, expected_revision: int) -> Stored:
        old = self._values.get(key)
        if old is None or old.mod_revision != expected_revision:
            raise Mismatch(key)
        return old

    def _apply(self, key: str, old: Stored | None, new: Stored | None) -> int:
        self._revision += 1
        if new is None:
            del self._values[key]
            del self._keys[bisect_left(self._keys, key)]
        else:
            self._values[key] = new
            if old is None:
                insort(self._keys, key)
        self._log.append(Change(key, self._revision, old, new))
        for prefix in [each for each in self._awaited if key.startswith(each)]:
            self._awaited.pop(prefix).set()
        return self._revision

    async def watch(self, prefix: str, after_revision: int, *, idle_s: float | None = None):
        if after_revision > self._revision:
            raise FutureRevision(str(after_revision))
        if self._log and after_revision < self._log[0].revision - 1:
            raise Compacted(str(after_revision))
        seen = after_revision
        while True:
            start = bisect_right(self._log, seen, key=lambda change: change.revision)
            batch = [c for c in self._log[start:] if c.key.startswith(prefix)]
            seen = self._revision
            if batch:
                yield batch
                continue
            changed = self._awaited.setdefault(prefix, asyncio.Event())
            try:
                async with asyncio.timeout(idle_s):
                    await changed.wait()
            except TimeoutError:
                yield []

    async def wait_broken(self) -> None:
        await asyncio.Event().wait()

    async def close(self) -> None:
        self._closed = True
