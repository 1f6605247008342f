"""What an etcd needs now and then: old revisions dropped, unused pages given back. By the leader.

Revisions older than about ten minutes are dropped, so that a server that was cut off for that long
still gets just what it has missed. A member whose file is mostly unused pages is defragmented, one
at a time, the one that leads last: it answers nothing meanwhile, and clients ask another.
"""

import asyncio

from volagent.observe.logs import get_logger
from volagent.store import etcd_wire as wire
from volagent.store.contract import Compacted, StoreError
from volagent.store.etcd_client import EtcdClient

PERIOD_S = 300.0
"""Revisions from before the period before the last are dropped so often."""
WASTE_BYTES = 64 * 2**20
WASTE_SHARE = 0.5
"""A member is defragmented when so much of its file, and such a share of it, is unused."""
DEFRAGMENT_S = 120.0


class Upkeep:
    """Runs while this server leads."""

    def __init__(self, client: EtcdClient) -> None:
        self._client = client
        self._log = get_logger("store")
        self._before = 0

    async def run(self) -> None:
        """Keep etcd small, for ever."""
        while True:
            try:
                await self.compact()
                await self.defragment()
            except StoreError as error:
                self._log.warning("upkeep of etcd interrupted", error=str(error))
            await asyncio.sleep(PERIOD_S)

    async def compact(self) -> None:
        """Drop what is older than the last time this was called."""
        now = (await self._client.read(wire.read(b"\0", limit=1))).header.revision
        before, self._before = self._before, now
        if before:
            try:
                request = {"revision": str(before), "physical": False}
                await self._client.attempt("kv/compaction", request, wire.Done)
            except Compacted:
                return  # somebody else was faster: etcd's own compaction, another user of it

    async def defragment(self, waste_bytes: int = WASTE_BYTES) -> None:
        """Have the members that waste much give it back, one after the other."""
        states: list[tuple[bool, str]] = []
        for endpoint in self._client.endpoints:
            status = await self._client.attempt("maintenance/status", {}, wire.Status, at=endpoint)
            wasted = status.db_bytes - status.used_bytes
            if wasted > waste_bytes and wasted > status.db_bytes * WASTE_SHARE:
                states.append((status.leader == status.header.member_id, endpoint))
        for _, endpoint in sorted(states):
            await self._client.attempt(
                "maintenance/defragment", {}, wire.Done, at=endpoint, within_s=DEFRAGMENT_S
            )
            self._log.info("etcd member defragmented", endpoint=endpoint)
