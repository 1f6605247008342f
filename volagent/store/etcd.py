"""The store of several servers: objects in etcd, a copy of them in each server.

A write is one transaction of etcd's, conditional on the key's revision. It is acknowledged when
etcd has it durably on most members *and* it is visible in this server's copy, which is the same
moment for its watchers. When etcd's answer is lost (a member died, no quorum), the same transaction
is sent again, to another member: its condition lets it happen once at most, and its mark tells in
the changes whether it has. Only when nobody answers in time is the outcome `Uncertain`.

Reads wait until the copy has reached etcd's current revision, so that a read at any server sees
what was acknowledged by any other. A key has at most one write of this server under way.

For one event loop's thread. Why etcd's JSON gateway: docs/adr/0010.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from volagent.aio.tasks import Background
from volagent.store import etcd_wire as wire
from volagent.store.contract import (
    Broken,
    Change,
    Deposed,
    KeyExists,
    Mismatch,
    Stored,
    StoreError,
    Uncertain,
    Unreachable,
)
from volagent.store.etcd_client import RETRY, EtcdClient, Silent, Unsent
from volagent.store.etcd_layout import Layout, Marks, frame
from volagent.store.etcd_mirror import Mirror
from volagent.store.log import Bell

WRITE_S = 10.0
"""So long a write without an answer is asked about."""
CLOSE_S = 3.0
"""What a closing store gives the writes under way."""
ANY = 0
"""No guard: the write does not depend on who leads."""


@dataclass(slots=True)
class _Write:
    """One write under way."""

    key: str
    request: wire.Request
    done: asyncio.Future[int]
    lost: type[StoreError]
    """What it means when its condition does not hold."""
    guarded: bool
    beside: Stored | None
    gaps: int
    sent: bool = False
    """Whether an attempt may have happened without an answer."""


class EtcdStore:
    """A `Store` in etcd; use `open_etcd_store`."""

    def __init__(self, client: EtcdClient, layout: Layout, mirror: Mirror) -> None:
        self.client = client
        self.layout = layout
        self.mirror = mirror
        self._marks = Marks()
        self._under_way: set[str] = set()
        self._settled = Bell()
        self._background = Background(lambda error: mirror.break_off(repr(error)))
        self._closed = False

    @property
    def revision(self) -> int:
        """The revision of the last write that is visible."""
        return self.mirror.visible.revision

    async def get(self, key: str) -> Stored | None:
        """A key's value, or None."""
        await self.mirror.settle()
        return self.mirror.visible.get(key)

    async def list(
        self, prefix: str, *, at_revision: int = 0, start_after: str = ""
    ) -> tuple[list[Stored], int]:
        """Values under a prefix, sorted by key: see the contract."""
        if at_revision == 0 or at_revision > self.revision:
            await self.mirror.settle()
        return self.mirror.visible.list(prefix, at_revision, start_after)

    async def watch(
        self, prefix: str, after_revision: int, *, idle_s: float | None = None
    ) -> AsyncIterator[Sequence[Change]]:
        """Changes under a prefix, as batches in order: see the contract."""
        if after_revision > self.revision:
            await self.mirror.settle()
        async for batch in self.mirror.visible.watch(prefix, after_revision, idle_s):
            yield batch

    async def create(
        self, key: str, value: bytes, *, beside: Stored | None = None, guard: int = ANY
    ) -> int:
        """Store under a new key. `guard`, here and below, is an `Election`'s: `Deposed` if it is
        over."""
        await self._take_turn(key)
        place, mark = self.layout.object_key(key), self._marks.draw()
        change = [wire.put(place, frame(mark, value))]
        return await self._write(key, mark, 0, change, lost=KeyExists, guard=guard, beside=beside)

    async def update(
        self, key: str, value: bytes, expected_revision: int, *, guard: int = ANY
    ) -> int:
        """Replace exactly that revision."""
        await self._take_turn(key)
        at = self._expect(key, expected_revision)
        place, mark = self.layout.object_key(key), self._marks.draw()
        return await self._write(
            key, mark, at, [wire.put(place, frame(mark, value))], lost=Mismatch, guard=guard
        )

    async def delete(self, key: str, expected_revision: int, *, guard: int = ANY) -> int:
        """Delete exactly that revision."""
        await self._take_turn(key)
        at = self._expect(key, expected_revision)
        mark = self._marks.draw()
        change = [wire.remove(self.layout.object_key(key)), wire.put(self.layout.deleted, mark)]
        return await self._write(key, mark, at, change, lost=Mismatch, guard=guard)

    async def wait_broken(self) -> None:
        """Wait until the store is broken, then raise `Broken`."""
        while self.mirror.broken is None:
            await self.mirror.wait_moved()
        self.mirror.refuse_broken()

    async def close(self) -> None:
        """Finish the writes under way, if etcd answers, and let go. Idempotent."""
        if self._closed:
            return
        self._closed = True
        try:
            async with asyncio.timeout(CLOSE_S):
                while self._under_way:
                    await self._settled.wait()
        except TimeoutError:
            pass  # whoever waits for them is told that they are uncertain
        self.mirror.break_off("the store is closed")
        await self._background.stop()
        await self.mirror.stop()
        await self.client.close()

    # -- writing -----------------------------------------------------------------------------

    async def _take_turn(self, key: str) -> None:
        while key in self._under_way:
            await self._settled.wait()
        self.mirror.refuse_broken()
        if self._closed:
            raise Broken("the store is closed")

    def _expect(self, key: str, revision: int) -> int:
        """etcd's revision of the one that is to be replaced, unless it is known to be gone."""
        stored = self.mirror.visible.get(key)
        known = stored.mod_revision if stored is not None else 0
        if revision <= self.revision and known != revision:
            raise Mismatch(key)
        at = revision - self.mirror.offset
        if at <= 0:
            raise Mismatch(key)
        return at

    async def _write(
        self, key: str, mark: bytes, at: int, change: Sequence[wire.Request],
        *, lost: type[StoreError], guard: int, beside: Stored | None = None,
    ) -> int:  # fmt: skip
        conditions = [wire.is_at(self.layout.object_key(key), at)]
        if guard:
            conditions.append(wire.is_life(self.layout.leader, guard))
        if beside is not None:
            place = self.layout.object_key(beside.key)
            conditions.append(wire.is_at(place, beside.mod_revision - self.mirror.offset))
        look = [{"request_range": wire.read(self.layout.leader)}]
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        request = wire.txn(conditions, change, look)
        write = _Write(key, request, done, lost, bool(guard), beside, self.mirror.gaps)
        self._under_way.add(key)
        self.mirror.waiting[mark] = done
        # In a task of its own: a caller that goes away does not take the write with it.
        self._background.start("etcd write", self._carry_out(write, mark, guard))
        return await asyncio.shield(done)

    async def _carry_out(self, write: _Write, mark: bytes, guard: int) -> None:
        done = write.done
        try:
            async with asyncio.timeout(WRITE_S):
                await self._insist(write, guard)
        except TimeoutError:
            self._answer(write, self._say_silent(write))
        except StoreError as error:
            self._answer(write, Uncertain(str(error)) if write.sent else error)
        finally:
            del self.mirror.waiting[mark]
            self._under_way.discard(write.key)
            self._answer(write, Uncertain(f"{write.key}: the store was closed"))
            done.exception()  # its caller may have gone
            self._settled.ring()

    async def _insist(self, write: _Write, guard: int) -> None:
        """Send it until it is answered, or seen among the changes."""
        failures = 0
        while not write.done.done():
            try:
                answer = await self.client.attempt("kv/txn", write.request, wire.Txn)
            except Silent as silence:
                write.sent = write.sent or not isinstance(silence, Unsent)
                failures += 1
                await asyncio.sleep(RETRY.delay_s(failures, 0.5))
                continue
            revision = answer.header.revision
            if answer.succeeded:
                await self._show(write, revision)
                return
            # Had it happened in an attempt before, its mark would be among the changes up to here.
            await self.mirror.reach(revision)
            if write.sent and write.gaps != self.mirror.gaps:
                self._answer(write, Uncertain(f"{write.key}: changes were missed meanwhile"))
            self._answer(write, self._say_lost(write, answer, guard))

    async def _show(self, write: _Write, revision: int) -> None:
        """It has happened; its caller is told when it is visible, or cannot be made so in time."""
        try:
            await self.mirror.reach(revision)
        finally:
            if not write.done.done():
                write.done.set_result(revision + self.mirror.offset)

    def _say_lost(self, write: _Write, answer: wire.Txn, guard: int) -> StoreError:
        if write.guarded:
            found = answer.responses[0].response_range if answer.responses else None
            kvs = found.kvs if found is not None else ()
            if not kvs or kvs[0].create_revision != guard:
                return Deposed("another server leads by now")
        # Up to the refusal everything is visible, or more: so this is what it was refused for.
        if write.beside is not None and self.mirror.visible.get(write.beside.key) != write.beside:
            return Mismatch(write.beside.key)
        return write.lost(write.key)

    def _say_silent(self, write: _Write) -> StoreError:
        if write.sent:
            return Uncertain(f"etcd did not answer within {WRITE_S:.0f} s: {write.key} may have"
                             " been written, or not")  # fmt: skip
        return Unreachable("no member of etcd can be reached")

    def _answer(self, write: _Write, error: StoreError) -> None:
        if not write.done.done():
            write.done.set_exception(error)


async def open_etcd_store(
    endpoints: Sequence[str], prefix: str, tls: ssl.SSLContext | None = None
) -> EtcdStore:
    """Read everything, and begin to follow. Raises `Unreachable`, `Corrupt`, `StoreError`."""
    client, layout = EtcdClient(endpoints, tls), Layout(prefix)
    mirror = Mirror(client, layout)
    try:
        await mirror.load()
    except BaseException:
        await client.close()
        raise
    mirror.start()
    return EtcdStore(client, layout, mirror)
