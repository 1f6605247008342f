"""Fill a store in etcd from a backup, or from the objects of a store of another kind.

(1) The store is marked as unfinished: servers that run end, and none starts. (2) What was there is
removed. (3) Every object is written, each at a revision of its own. (4) The offset is set, so that
every revision is greater than any that a client may remember: they are told that theirs is too old,
and list again. (5) The mark is taken away. Interrupted anywhere, it is begun again from (1).
"""

import asyncio

import msgspec

from volagent.objects.backup import Snapshot
from volagent.store import etcd_wire as wire
from volagent.store.contract import NotEmpty, StoreError
from volagent.store.etcd_client import EtcdClient
from volagent.store.etcd_layout import FORMAT_VERSION, Facts, Layout, Marks, frame

AT_ONCE = 32


async def fill(client: EtcdClient, layout: Layout, snapshot: Snapshot, *, replace: bool) -> None:
    """Do it. Raises `NotEmpty` unless `replace`, `Unreachable`, `StoreError`."""
    before = await _read_facts(client, layout)
    if before is not None and before.whole and not replace and await _has_objects(client, layout):
        raise NotEmpty(f"etcd holds a store under /{layout.prefix}/ already")
    # (1)
    offset = before.offset if before is not None else 0
    await _put(client, layout.facts, msgspec.json.encode(Facts(FORMAT_VERSION, offset, False)))
    # (2)
    for prefix in (layout.objects + b"/", layout.keys + b"/", layout.leader):
        request = {"key": wire.text(prefix), "range_end": wire.text(wire.end_of(prefix))}
        await client.insist("kv/deleterange", request, wire.Done)
    # (3)
    answer = await client.read(wire.read(layout.facts))
    began_at = answer.header.revision
    await _write_all(client, layout, snapshot)
    for name, value in snapshot.shared.items():
        await _put(client, layout.shared_key(name), value)
    # (4) and (5)
    offset = max(offset, snapshot.resume_after - began_at)
    await _put(client, layout.facts, msgspec.json.encode(Facts(FORMAT_VERSION, offset)))


async def _write_all(client: EtcdClient, layout: Layout, snapshot: Snapshot) -> None:
    marks = Marks()
    left = iter(snapshot.objects)

    async def work() -> None:
        for key, value in left:
            # Only if it is not there: an attempt that comes late must not undo a later change.
            place = layout.object_key(key)
            change = [wire.put(place, frame(marks.draw(), value))]
            request = wire.txn([wire.is_at(place, 0)], change, [])
            await client.insist("kv/txn", request, wire.Txn)

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(work())


async def _put(client: EtcdClient, key: bytes, value: bytes) -> None:
    await client.insist("kv/txn", wire.txn([], [wire.put(key, value)], []), wire.Txn)


async def _read_facts(client: EtcdClient, layout: Layout) -> Facts | None:
    found = await client.read(wire.read(layout.facts))
    if not found.kvs:
        return None
    try:
        return msgspec.json.decode(found.kvs[0].value, type=Facts)
    except msgspec.MsgspecError as error:
        raise StoreError(f"{layout.facts.decode()} in etcd is no volagent store's") from error


async def _has_objects(client: EtcdClient, layout: Layout) -> bool:
    start = layout.objects + b"/"
    return bool((await client.read(wire.read(start, wire.end_of(start), limit=1))).kvs)
