"""Which server runs the controllers: one key in etcd, under a lease that its holder renews.

(1) A server takes the key when nobody has it. (2) It renews the lease, and counts from the moment
the last successful renewal was *sent*, on a clock that goes on while the machine sleeps; etcd
counts from when it came, which is later. (3) Without a renewal it is deposed after `STOP_S`, and
ends its process. (4) One that cannot even do that in time, because it hangs or was frozen, is ended
at `END_S` by a thread that does nothing else, before etcd lets another server take the key at
`LEASE_S`. (5) Whatever a controller writes names this life of the key as a condition (`guard`), so
that etcd itself refuses a write of a deposed leader that was on its way.
"""

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from volagent.observe.logs import get_logger
from volagent.store import etcd_wire as wire
from volagent.store.contract import Change, Deposed, Stored, StoreError
from volagent.store.etcd import EtcdStore
from volagent.store.etcd_client import Absent
from volagent.store.etcd_layout import Marks

LEASE_S = 8
"""After so long without a renewal another server may lead."""
STOP_S = 5.5
"""After so long the controllers are stopped,"""
END_S = 7.0
"""and after so long the process ends, whatever it does."""
RENEW_S = 1.0
RENEWAL_TIMEOUT_S = 1.5
LOOK_S = 2.0
EXIT_STATUS = 70
"""Of a process that was ended because it could not stop leading in time."""

_log = get_logger("election")


def _now_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Election:
    """One server's part in it."""

    def __init__(self, store: EtcdStore, name: str) -> None:
        """`name` is for people: who leads."""
        self._store = store
        self._name = name
        self._lease = 0
        self._renewed_s = 0.0
        self._end: threading.Thread | None = None
        self.guard = 0
        """The revision by which etcd knows this leadership; 0: this server does not lead."""

    @property
    def leader(self) -> str:
        """Who leads, as far as is known here."""
        held = self._store.mirror.leader
        return held.value.partition(b"\n")[2].decode(errors="replace") if held else ""

    async def win(self) -> None:
        """Wait until this server leads."""
        mirror = self._store.mirror
        while not self.guard:
            try:
                if mirror.leader is None:
                    await self._run_for_it()
                else:
                    await mirror.wait_moved(LOOK_S)
            except StoreError as error:
                mirror.refuse_broken()
                _log.warning("election interrupted", error=str(error))
                await asyncio.sleep(RENEW_S)
        self._end = threading.Thread(target=self._end_in_time, name="leader's end", daemon=True)
        self._end.start()
        _log.info("leading", server=self._name)

    async def keep(self) -> None:
        """Renew for ever. Raises `Deposed`."""
        while True:
            sent_s = _now_s()
            try:
                async with asyncio.timeout(RENEWAL_TIMEOUT_S):
                    await self._renew()
                self._renewed_s = sent_s
            except Absent as error:
                raise self._depose("its lease is over") from error
            except (StoreError, TimeoutError) as error:
                _log.warning("leadership not renewed", error=str(error) or "no answer in time")
            held = self._store.mirror.leader
            if held is None or held.create_revision != self.guard:
                raise self._depose("another server leads")
            left_s = self._renewed_s + STOP_S - _now_s()
            if left_s <= 0:
                raise self._depose(f"etcd did not renew its lease for {STOP_S} s")
            await asyncio.sleep(min(RENEW_S, left_s))

    async def resign(self) -> None:
        """Let another server lead at once: everything that leads has ended here."""
        if not self._lease:
            return
        lease, self._lease, self.guard = self._lease, 0, 0
        try:
            request = {"ID": str(lease)}
            await self._store.client.attempt("lease/revoke", request, wire.Done)
        except StoreError as error:
            _log.warning("leadership not given back", error=str(error), others_wait_s=LEASE_S)

    async def _run_for_it(self) -> None:
        client, key = self._store.client, self._store.layout.leader
        sent_s = _now_s()
        lease = await client.attempt("lease/grant", {"TTL": LEASE_S}, wire.Lease)
        mark = Marks().draw()
        value = mark + b"\n" + self._name.encode()
        request = wire.txn([wire.is_at(key, 0)], [wire.put(key, value, lease.id)], [])
        await client.insist("kv/txn", request, wire.Txn)
        found = await client.read(wire.read(key))
        await self._store.mirror.reach(found.header.revision)
        if found.kvs and found.kvs[0].value == value:
            self._lease, self._renewed_s = lease.id, sent_s
            self.guard = found.kvs[0].create_revision
        else:
            await client.attempt("lease/revoke", {"ID": str(lease.id)}, wire.Done)

    async def _renew(self) -> None:
        request = {"ID": str(self._lease)}
        line = await self._store.client.attempt("lease/keepalive", request, wire.LeaseLine)
        if line.result is None or line.result.ttl_s <= 0:
            raise Absent("the lease is over")

    def _depose(self, why: str) -> Deposed:
        self.guard = 0
        _log.error("leading no more", server=self._name, reason=why)
        return Deposed(f"this server leads no more: {why}")

    def _end_in_time(self) -> None:
        while self._lease:
            left_s = self._renewed_s + END_S - _now_s()
            if left_s <= 0:
                os._exit(EXIT_STATUS)
            time.sleep(min(left_s, RENEW_S))


@dataclass(frozen=True, slots=True)
class LeadersStore:
    """A `Store` whose writes etcd accepts only while this server leads; for the controllers."""

    store: EtcdStore
    election: Election

    @property
    def revision(self) -> int:
        """The revision of the last write that is visible."""
        return self.store.revision

    async def get(self, key: str) -> Stored | None:
        """A key's value, or None."""
        return await self.store.get(key)

    async def list(
        self, prefix: str, *, at_revision: int = 0, start_after: str = ""
    ) -> tuple[list[Stored], int]:
        """Values under a prefix."""
        return await self.store.list(prefix, at_revision=at_revision, start_after=start_after)

    async def create(self, key: str, value: bytes, *, beside: Stored | None = None) -> int:
        """Store under a new key. Raises `Deposed`, and as the store."""
        return await self.store.create(key, value, beside=beside, guard=self._guard())

    async def update(self, key: str, value: bytes, expected_revision: int) -> int:
        """Replace exactly that revision. Raises `Deposed`, and as the store."""
        return await self.store.update(key, value, expected_revision, guard=self._guard())

    async def delete(self, key: str, expected_revision: int) -> int:
        """Delete exactly that revision. Raises `Deposed`, and as the store."""
        return await self.store.delete(key, expected_revision, guard=self._guard())

    def watch(
        self, prefix: str, after_revision: int, *, idle_s: float | None = None
    ) -> AsyncIterator[Sequence[Change]]:
        """Changes under a prefix."""
        return self.store.watch(prefix, after_revision, idle_s=idle_s)

    async def wait_broken(self) -> None:
        """Wait until the store is broken, then raise `Broken`."""
        await self.store.wait_broken()

    async def close(self) -> None:
        """Whoever opened the store closes it."""

    def _guard(self) -> int:
        if not self.election.guard:
            raise Deposed("this server does not lead")
        return self.election.guard
