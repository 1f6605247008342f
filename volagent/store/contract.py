"""What a store of objects must do, whatever keeps them: keys, revisions, compare-and-swap, watch.

Keys are `/<resource>/<namespace>/<name>` (`/<resource>/<name>` without a namespace), values are
bytes. One integer, the revision, numbers all writes of all keys in order. Rules that every
implementation keeps (`tests/contract/store`):

- A write is durable before its coroutine returns, and visible to readers and watchers only then.
- A write names the revision it replaces; when the key has moved on it fails and changes nothing.
- A write whose coroutine is cancelled may still happen.
- Watchers get every change after their revision once, in order. One that cannot keep up is cut
  off with `Compacted`; nobody waits for it.
- A write that may have happened is never reported as one that did not: `Uncertain`.
- A read sees every write that was acknowledged before it began, by whichever process.
- After `Broken` nothing is accepted any more: what was not acknowledged may or may not be there,
  and only a new start tells. Whoever composes the daemon awaits `wait_broken` and goes down.

Everything here is for one event loop's thread.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

import msgspec


class StoreError(Exception):
    """The store refused or failed."""


class KeyExists(StoreError):
    """A create found the key taken."""


class Mismatch(StoreError):
    """A write named a revision that is not the key's current one: read again and decide anew."""


class Compacted(StoreError):
    """The revision is older than what is remembered: list and watch from there."""


class FutureRevision(StoreError):
    """The revision has not been reached yet."""


class NoSpace(StoreError):
    """The disk is full; the write did not happen, and later ones may."""


class Unreachable(StoreError):
    """Whatever keeps the objects does not answer; nothing was written, and later it may answer."""


class Uncertain(StoreError):
    """A write got no answer in its time: it may have happened, or still happen. Read again."""


class Deposed(StoreError):
    """A write for the leader alone, of one who leads no more; nothing was written."""


class Broken(StoreError):
    """A commit failed in a way that leaves its outcome open: the process must start anew."""


class Corrupt(StoreError):
    """What is on disk is no store of ours, damaged, or of a newer version."""


class NotEmpty(StoreError):
    """What is to be filled holds a store already."""


class AlreadyRunning(StoreError):
    """Another process has the state directory."""


class Stored(msgspec.Struct, frozen=True, gc=False):
    """One key's value. `create_revision` identifies this life of the key."""

    key: str
    value: bytes
    create_revision: int
    mod_revision: int


class Change(msgspec.Struct, frozen=True, gc=False):
    """One write: `previous` is None for a create, `current` for a delete."""

    key: str
    revision: int
    previous: Stored | None
    current: Stored | None


class Store(Protocol):
    """Keys with values, under one revision."""

    @property
    def revision(self) -> int:
        """The revision of the last write that is visible."""

    async def get(self, key: str) -> Stored | None:
        """A key's value, or None."""

    async def list(
        self, prefix: str, *, at_revision: int = 0, start_after: str = ""
    ) -> tuple[list[Stored], int]:
        """Values under a prefix, sorted by key, and the revision they are of.

        `prefix` holds at least the whole first part (`/pods/`). `at_revision` 0 is the latest; an
        older one raises `Compacted` when it is no longer remembered, one to come
        `FutureRevision`. Keys up to `start_after` are left out.
        """

    async def create(self, key: str, value: bytes, *, beside: Stored | None = None) -> int:
        """Store under a new key; the write's revision. Raises `KeyExists`, and as `update`.

        `beside` is another object that this depends on: `Mismatch` when it has changed or is gone.
        """

    async def update(self, key: str, value: bytes, expected_revision: int) -> int:
        """Replace exactly that revision.

        Raises `Mismatch`, `NoSpace`, `Unreachable`, `Uncertain`, `Broken`.
        """

    async def delete(self, key: str, expected_revision: int) -> int:
        """Delete exactly that revision. Raises as `update`."""

    def watch(
        self, prefix: str, after_revision: int, *, idle_s: float | None = None
    ) -> AsyncIterator[Sequence[Change]]:
        """Changes under a prefix, as batches in order; close the iterator to stop.

        An empty batch, sent after `idle_s` without a change, says that everything up to
        `revision` was delivered. Raises `Compacted`, `FutureRevision`, `Broken`.
        """

    async def wait_broken(self) -> None:
        """Wait until the store is broken, then raise `Broken`."""

    async def close(self) -> None:
        """Finish the writes under way and let go. Idempotent."""
