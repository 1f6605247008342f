"""What of a store can be seen: the committed objects, and the recent changes of each resource.

Readers and watchers never wait for a disk or a network: objects are bytes in a dict, changes one
log per resource that all its watchers share, so that all see them in the same order. Whoever owns
this applies changes in the order of their revisions, only once they are durable.

For one event loop's thread.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import AsyncIterator, Iterable, Sequence

from volagent.store.contract import Broken, Change, FutureRevision, Stored
from volagent.store.log import ChangeLog

LOG_CHANGES = 10_000
"""So many changes of one resource are remembered for watchers,"""
LOG_BYTES = 32 * 2**20
"""and so many bytes of all resources together."""


class Visible:
    """Objects and changes up to `revision`."""

    def __init__(self, objects: Iterable[Stored], revision: int) -> None:
        self._objects = {stored.key: stored for stored in objects}
        self._keys = sorted(self._objects)
        self._first_revision = revision
        self._logs: dict[str, ChangeLog] = {}
        self._broken: Broken | None = None
        self.revision = revision
        """The revision of the last write that is visible."""

    def get(self, key: str) -> Stored | None:
        """A key's value, or None."""
        return self._objects.get(key)

    def list(self, prefix: str, at_revision: int, start_after: str) -> tuple[list[Stored], int]:
        """Values under a prefix: see the contract. Raises `Compacted`, `FutureRevision`."""
        self.refuse_future(at_revision)
        first = bisect_left(self._keys, prefix)
        if start_after:
            first = max(first, bisect_right(self._keys, start_after))
        last = bisect_left(self._keys, prefix[:-1] + chr(ord(prefix[-1]) + 1))
        if at_revision in (0, self.revision):
            objects = self._objects
            return [objects[key] for key in self._keys[first:last]], self.revision
        held = self._log_of(prefix).undo_to(at_revision)
        keys = set(self._keys[first:last]).union(
            key for key in held if key.startswith(prefix) and key > start_after
        )
        found: list[Stored] = []
        for key in sorted(keys):
            stored = held[key] if key in held else self._objects[key]
            if stored is not None:
                found.append(stored)
        return found, at_revision

    async def watch(
        self, prefix: str, after_revision: int, idle_s: float | None
    ) -> AsyncIterator[Sequence[Change]]:
        """Changes under a prefix, as batches in order: see the contract."""
        self.refuse_future(after_revision)
        log = self._log_of(prefix)
        whole = prefix.count("/") == 2 and prefix.endswith("/")
        position = log.position_after(after_revision)
        while self._broken is None:
            changes = log.read(position)
            position += len(changes)
            if changes and not whole:
                changes = [change for change in changes if change.key.startswith(prefix)]
            if changes:
                yield changes
            elif not await log.bell.wait(idle_s):
                yield ()
        raise self._broken

    def apply(self, changes: Sequence[Change]) -> set[ChangeLog]:
        """Make changes visible, without waking anybody; the logs whose bells are to be rung."""
        touched = {self._apply(change) for change in changes}
        self._trim()
        if changes:
            self.revision = changes[-1].revision
        return touched

    def replace(self, objects: Iterable[Stored], revision: int) -> None:
        """Begin anew with these objects: every watcher is told that it has missed something."""
        self._objects = {stored.key: stored for stored in objects}
        self._keys = sorted(self._objects)
        self._first_revision = self.revision = revision
        for log in self._logs.values():
            log.forget(revision)

    def break_off(self, error: Broken) -> None:
        """End every watch with this error."""
        self._broken = error
        for log in self._logs.values():
            log.bell.ring()

    def refuse_future(self, revision: int) -> None:
        """Raises `FutureRevision` when the revision has not been reached."""
        if revision > self.revision:
            raise FutureRevision(f"{revision} is after {self.revision}")

    def _apply(self, change: Change) -> ChangeLog:
        key = change.key
        if change.current is None:
            del self._objects[key]
            del self._keys[bisect_left(self._keys, key)]
        else:
            if change.previous is None:
                insort(self._keys, key)
            self._objects[key] = change.current
        log = self._log_of(key)
        log.append(change)
        return log

    def _trim(self) -> None:
        logs = self._logs.values()
        for log in logs:
            if len(log) > LOG_CHANGES:
                log.drop(len(log) - LOG_CHANGES + LOG_CHANGES // 8)
        while sum(log.size_bytes for log in logs) > LOG_BYTES:
            largest = max(logs, key=lambda log: log.size_bytes)
            largest.drop(len(largest) // 8 + 1)

    def _log_of(self, key_or_prefix: str) -> ChangeLog:
        resource = key_or_prefix[1 : key_or_prefix.index("/", 1)]
        log = self._logs.get(resource)
        if log is None:
            log = self._logs[resource] = ChangeLog(self._first_revision)
        return log
