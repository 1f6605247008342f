"""A server's copy of what etcd holds, fed by one watch: what its readers and watchers see.

The watch is of etcd's whole key space, so that the copy's position is comparable with the revision
in any of etcd's answers: `settle` asks for that (a linearizable read; readers that come meanwhile
share the next one) and waits until the copy has come so far. An etcd that others write to as well
costs their traffic and nothing else.

A watch that breaks goes on at the last revision, with another member. When etcd has dropped the
changes in between (compaction), everything is read again, and this server's watchers are told that
they have missed something. A watch that says nothing although etcd has moved on is given up. An
etcd that has gone *back* was restored from a copy: nothing here can be trusted then (`Broken`).
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec

from volagent.aio.tasks import Background
from volagent.observe.logs import get_logger
from volagent.store import etcd_wire as wire
from volagent.store.contract import (
    Broken,
    Change,
    Compacted,
    Corrupt,
    Stored,
    StoreError,
    Uncertain,
    Unreachable,
)
from volagent.store.etcd_client import RETRY, EtcdClient, Silent
from volagent.store.etcd_layout import FORMAT_VERSION, Facts, Layout, unframe
from volagent.store.log import Bell
from volagent.store.visible import Visible

PAGE = 1000
"""Objects of one read when everything is read."""
STALE_S = 1.0
"""A watch that is behind a known revision for so long is given up."""
SETTLE_S = 10.0
"""So long a read waits for the copy to be up to date."""
LOOK_S = 2.0
"""Without a change for so long, the copy's position is compared with etcd's."""

_log = get_logger("store")


class Mirror:
    """The copy. `load` first, then `start`."""

    def __init__(self, client: EtcdClient, layout: Layout) -> None:
        self._client = client
        self._layout = layout
        self._background = Background(self._fail)
        self._facts = Facts(FORMAT_VERSION)
        self._cluster_id = 0
        self._moved = Bell()
        self._asking: asyncio.Future[int] | None = None
        self._limit: asyncio.Timeout | None = None
        self.visible = Visible((), 0)
        self.at = 0
        """etcd's revision up to which everything is visible."""
        self.waiting: dict[bytes, asyncio.Future[int]] = {}
        """Writes by their marks; each is answered when it is seen."""
        self.gaps = 0
        """How often changes were missed, and with them perhaps the mark of a write."""
        self.leader: wire.KeyValue | None = None
        """Who runs the controllers."""
        self.broken: Broken | None = None

    @property
    def offset(self) -> int:
        """What is added to etcd's revisions."""
        return self._facts.offset

    async def load(self) -> None:
        """Read everything at one revision. Raises `Corrupt`, `Unreachable`, `StoreError`."""
        self._facts = await self._read_facts()
        objects, revision = await self._read_all()
        self.visible = Visible(objects, revision + self.offset)

    def start(self) -> None:
        """Begin to follow."""
        self._background.start("etcd watch", self._follow())
        self._background.start("etcd look", self._look())

    async def stop(self) -> None:
        """End following."""
        await self._background.stop()

    async def settle(self) -> None:
        """Wait until everything is visible that was acknowledged before. Raises `Unreachable`."""
        if self._asking is None:
            self._asking = asyncio.get_running_loop().create_future()
            self._background.start("etcd position", self._ask_position(self._asking))
        try:
            async with asyncio.timeout(SETTLE_S):
                await self.reach(await asyncio.shield(self._asking))
        except TimeoutError as error:
            raise Unreachable("etcd answers, and does not tell what has changed") from error

    async def reach(self, revision: int) -> None:
        """Wait until etcd's revision is visible; a watch that does not get there is begun anew."""
        while self.at < revision:
            self.refuse_broken()
            at = self.at
            if not await self._moved.wait(STALE_S) and self.at == at:
                self._cut_watch()

    async def wait_moved(self, at_most_s: float | None = None) -> None:
        """Wait for the next change of anything, or for the store to break."""
        await self._moved.wait(at_most_s)

    def _cut_watch(self) -> None:
        if self._limit is not None and not self._limit.expired():
            self._limit.reschedule(0)

    def refuse_broken(self) -> None:
        """Raises `Broken`."""
        if self.broken is not None:
            raise Broken(str(self.broken))

    def break_off(self, why: str) -> None:
        """Nothing can be trusted any more: everybody who waits is told."""
        if self.broken is None:
            self.broken = Broken(why)
            self.visible.break_off(self.broken)
            for done in self.waiting.values():
                if not done.done():
                    done.set_exception(Uncertain(f"{why}; the write may have happened"))
            self._moved.ring()

    def _fail(self, error: BaseException) -> None:
        self.break_off(f"{type(error).__name__}: {error}")

    # -- reading everything ------------------------------------------------------------------

    async def _read_facts(self) -> Facts:
        key = self._layout.facts
        found = await self._client.read(wire.read(key))
        if not found.kvs:
            fresh = wire.put(key, msgspec.json.encode(Facts(FORMAT_VERSION)))
            request = wire.txn([wire.is_at(key, 0)], [fresh], [])
            await self._client.insist("kv/txn", request, wire.Txn)
            found = await self._client.read(wire.read(key))
        try:
            facts = msgspec.json.decode(found.kvs[0].value, type=Facts)
        except (msgspec.MsgspecError, IndexError) as error:
            raise Corrupt(f"{key.decode()} in etcd is no volagent store's: choose another"
                          ' "store.prefix"') from error  # fmt: skip
        if facts.format != FORMAT_VERSION:
            raise Corrupt(f"the store in etcd has format {facts.format}, this volagent reads"
                          f" {FORMAT_VERSION}")  # fmt: skip
        if not facts.whole:
            raise Corrupt("a restore into etcd was interrupted: run it again")
        return facts

    async def _read_all(self) -> tuple[list[Stored], int]:
        while True:
            try:
                return await self._read_at_once()
            except Compacted:
                continue  # it took so long that its revision was dropped

    async def _read_at_once(self) -> tuple[list[Stored], int]:
        layout, objects, revision = self._layout, list[Stored](), 0
        start, end = layout.objects + b"/", wire.end_of(layout.objects + b"/")
        more = True
        while more:
            page = await self._client.read(wire.read(start, end, limit=PAGE, revision=revision))
            revision = revision or page.header.revision
            self._cluster_id = page.header.cluster_id
            objects += [self._stored(kv) for kv in page.kvs]
            more = page.more
            if more:
                start = page.kvs[-1].key + b"\0"
        leader = await self._client.read(wire.read(layout.leader, revision=revision))
        self.leader = leader.kvs[0] if leader.kvs else None
        self.at = revision
        return objects, revision

    def _stored(self, kv: wire.KeyValue) -> Stored:
        key = kv.key[len(self._layout.objects) :].decode()
        _, document = unframe(kv.value)
        return Stored(key, document, kv.create_revision + self.offset,
                      kv.mod_revision + self.offset)  # fmt: skip

    # -- following ---------------------------------------------------------------------------

    async def _follow(self) -> None:
        failures = 0
        while True:
            at = self.at
            try:
                await self._watch_or_begin_anew()
            except (Silent, Unreachable) as error:
                if failures == 0:
                    _log.warning("watch of etcd interrupted", error=str(error))
            failures = 0 if self.at > at else failures + 1
            await asyncio.sleep(RETRY.delay_s(failures, 0.5) if failures else 0)

    async def _watch_or_begin_anew(self) -> None:
        try:
            await self._watch()
        except Compacted:
            await self._begin_anew()

    async def _watch(self) -> None:
        """Follow until the watch ends, or is cut because it has stopped telling."""
        request = {"create_request": {
            "key": wire.text(b"\0"), "range_end": wire.text(b"\0"),
            "start_revision": self.at + 1,
        }}  # fmt: skip
        endpoint = self._client.endpoint
        lines = self._client.stream("watch", request, wire.WatchLine)
        try:
            async with asyncio.timeout(None) as self._limit, aclosing(lines):
                await self._read_lines(lines)
        except TimeoutError:
            self._client.leave(endpoint)
            raise Silent(f"{endpoint}: the watch has stopped telling") from None
        finally:
            self._limit = None

    async def _read_lines(self, lines: AsyncGenerator[wire.WatchLine]) -> None:
        async for line in lines:
            if line.error is not None:
                raise Silent(line.error.message or line.error.error)
            told = line.result
            if told is None:
                continue
            if told.header.cluster_id != self._cluster_id:
                raise Broken("another etcd cluster answers: was it restored?")
            if told.compact_revision:
                raise Compacted(f"etcd remembers from {told.compact_revision} on")
            if told.canceled:
                raise StoreError(f"etcd refused the watch: {told.cancel_reason}")
            self._take(told.events)

    async def _begin_anew(self) -> None:
        _log.warning("changes missed: etcd was compacted", after=self.at)
        objects, revision = await self._read_all()
        self.gaps += 1
        self.visible.replace(objects, revision + self.offset)
        self._moved.ring()

    def _take(self, events: tuple[wire.Event, ...]) -> None:
        if not events:
            return
        layout, changes, seen = self._layout, list[Change](), dict[bytes, int]()
        latest: dict[str, Stored | None] = {}
        for event in events:
            kv = event.kv
            if kv.key.startswith(layout.objects):
                change, mark = self._change_of(event, latest)
                if change is not None:
                    changes.append(change)
                    seen[mark] = kv.mod_revision
            elif kv.key == layout.deleted:
                seen[kv.value] = kv.mod_revision
            elif kv.key == layout.leader:
                self.leader = kv if event.type == "PUT" else None
            elif kv.key == layout.facts:
                raise Broken("the store in etcd is filled anew from a backup")
        touched = self.visible.apply(changes)
        self.at = events[-1].kv.mod_revision
        self.visible.revision = self.at + self.offset
        # Writers are resumed before watchers: they can then hand the latter what they have decoded.
        for mark, revision in seen.items():
            done = self.waiting.get(mark)
            if done is not None and not done.done():
                done.set_result(revision + self.offset)
        self._moved.ring()
        for log in touched:
            log.bell.ring()

    def _change_of(
        self, event: wire.Event, latest: dict[str, Stored | None]
    ) -> tuple[Change | None, bytes]:
        """The change, and the mark of its write (of a delete it is told beside)."""
        kv = event.kv
        key = kv.key[len(self._layout.objects) :].decode()
        previous = latest[key] if key in latest else self.visible.get(key)
        current = self._stored(kv) if event.type == "PUT" else None
        latest[key] = current
        if previous is None and current is None:
            return None, b""
        mark = unframe(kv.value)[0] if current is not None else b""
        return Change(key, kv.mod_revision + self.offset, previous, current), mark

    # -- where etcd is -----------------------------------------------------------------------

    async def _ask_position(self, asked: asyncio.Future[int]) -> None:
        await asyncio.sleep(0)  # what else this round of the loop reads shares the answer
        self._asking = None
        at = self.at
        outcome: StoreError = Unreachable("the store is closed")
        try:
            header = (await self._client.read(wire.read(self._layout.facts))).header
            if header.revision >= at and header.cluster_id == self._cluster_id:
                asked.set_result(header.revision)
                return
            outcome = Broken(f"etcd has gone back from revision {at} to {header.revision}:"
                             " was it restored?")  # fmt: skip
            self.break_off(str(outcome))
        except StoreError as error:
            outcome = error
        finally:
            if not asked.done():
                asked.set_exception(outcome)
                asked.exception()  # nobody may be left who waits

    async def _look(self) -> None:
        """Find out about a watch that is silently dead, also when nobody reads or writes."""
        while True:
            if not await self._moved.wait(LOOK_S):
                try:
                    await self.settle()
                except Broken:
                    return
                except StoreError as error:
                    _log.warning("etcd does not answer", error=str(error))
