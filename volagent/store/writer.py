"""The one thread that commits: everything that queued during a commit goes into the next.

The loop's thread hands over lists of rows; the writer joins what has queued, commits it as one
transaction, and answers with one call into the loop per transaction, in order. It never touches
what the loop's thread owns. After `Broken` it commits nothing more and answers everything with
that error.
"""

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from volagent.store.contract import Broken, StoreError
from volagent.store.database import Database, Row

QUIET_S = 0.05
"""After so long without a write the WAL may be folded in."""
FOLD_BYTES = 4 * 2**20
"""Fold the WAL in at the next quiet moment from this size on,"""
FOLD_NOW_BYTES = 64 * 2**20
"""and without waiting for one from this size on."""


class HasRow(Protocol):
    """Something that knows the row it writes."""

    @property
    def row(self) -> Row:
        """The row."""


W = TypeVar("W", bound=HasRow)
Answer = Callable[[Sequence[W], StoreError | None], None]


class Writer(Generic[W]):
    """Owns the database once `start` was called, until `stop` has returned."""

    def __init__(self, database: Database, answer: Answer[W]) -> None:
        self._database = database
        self._answer = answer
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[list[W] | None] = queue.SimpleQueue()
        self._stopped = asyncio.Event()
        self._broken: Broken | None = None
        # A daemon thread: an interpreter that goes down for another reason must not wait for it.
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)

    def start(self) -> None:
        """Begin to take writes."""
        self._thread.start()

    def submit(self, writes: list[W]) -> None:
        """Have these committed, in order, after all submitted before. The list is given away."""
        self._queue.put(writes)

    async def stop(self) -> None:
        """Commit what was submitted, close the file and end."""
        self._queue.put(None)
        await self._stopped.wait()
        self._thread.join()

    def _run(self) -> None:
        more = True
        while more:
            batch, more = self._take()
            if batch:
                self._call_loop(self._answer, batch, self._commit(batch))
        self._database.close()
        self._call_loop(self._stopped.set)

    def _take(self) -> tuple[list[W], bool]:
        """The next batch, and whether more may come."""
        try:
            first = self._queue.get_nowait()
        except queue.Empty:
            first = self._wait()
        if first is None:
            return [], False
        batch = first
        try:
            while True:
                further = self._queue.get_nowait()
                if further is None:
                    return batch, False
                batch += further
        except queue.Empty:
            return batch, True

    def _wait(self) -> list[W] | None:
        grown_bytes = self._database.untidy_bytes if self._broken is None else 0
        if grown_bytes < FOLD_BYTES:
            return self._queue.get()
        try:
            return self._queue.get(timeout=QUIET_S)
        except queue.Empty:
            self._tidy()
            return self._queue.get()

    def _commit(self, batch: list[W]) -> StoreError | None:
        if self._broken is not None:
            return self._broken
        try:
            self._database.commit([write.row for write in batch])
        except Broken as error:
            self._broken = error
            return error
        except StoreError as error:
            return error
        if self._database.untidy_bytes >= FOLD_NOW_BYTES:
            self._tidy()
        return None

    def _tidy(self) -> None:
        try:
            self._database.tidy()
        except Broken as error:
            self._broken = error
            self._call_loop(self._answer, [], error)

    def _call_loop(self, call: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:
            return  # the loop was closed without `stop`: there is nobody left to tell
