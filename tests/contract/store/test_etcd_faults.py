"""The etcd store when answers are lost, watches break, and etcd forgets or goes back."""

import asyncio
import shutil
from contextlib import aclosing

import pytest

from tests.contract.store.lossy_etcd import LossyEtcd
from tests.etcd_server import EtcdCluster
from volagent.store import etcd_wire as wire
from volagent.store.contract import (
    Broken,
    Compacted,
    Corrupt,
    Deposed,
    KeyExists,
    Mismatch,
    Uncertain,
    Unreachable,
)
from volagent.store.etcd import open_etcd_store
from volagent.store.etcd_election import Election, LeadersStore
from volagent.store.etcd_upkeep import Upkeep


@pytest.fixture
async def lossy(etcd):
    async with LossyEtcd(etcd.endpoints[0]) as between:
        yield between


@pytest.fixture
async def store(lossy, prefix):
    opened = await open_etcd_store([lossy.url], prefix)
    yield opened
    await opened.close()


@pytest.fixture
async def other(etcd, prefix):
    """Another server's store of the same objects."""
    opened = await open_etcd_store(etcd.endpoints, prefix)
    yield opened
    await opened.close()


async def test_write_whose_answer_is_lost_has_happened_once(store, lossy):
    lossy.lost_answers = 2
    created = await store.create("/things/a", b"1")
    lossy.lost_answers = 2
    updated = await store.update("/things/a", b"2", created)
    assert (await store.get("/things/a")).mod_revision == updated
    lossy.lost_answers = 2
    deleted = await store.delete("/things/a", updated)

    async with aclosing(store.watch("/things/", created - 1)) as changes:
        told = [change.revision for change in await anext(changes)]
    assert told == [created, updated, deleted]


async def test_write_that_never_arrived_is_sent_again(store, lossy):
    lossy.lost_requests = 3
    revision = await store.create("/things/a", b"1")

    assert (await store.get("/things/a")).mod_revision == revision


@pytest.mark.parametrize("verb", ["update", "delete"])
async def test_write_whose_answer_is_lost_counts_also_when_another_follows(
    store, other, lossy, verb
):
    """The second attempt is refused, and yet the first has happened."""
    created = await other.create("/things/a", b"1")
    await store.get("/things/a")

    async def overwrite():
        stored = await other.get("/things/a")
        if stored is None:
            await other.create("/things/a", b"other")
        else:
            await other.update("/things/a", b"other", stored.mod_revision)
        lossy.watching = True

    lossy.cut_watches()  # or it would be acknowledged by what the watch tells
    lossy.between, lossy.lost_answers = overwrite, 1
    if verb == "update":
        revision = await store.update("/things/a", b"2", created)
    else:
        revision = await store.delete("/things/a", created)

    now = await store.get("/things/a")
    assert created < revision < now.mod_revision
    assert now.value == b"other"


async def test_two_deletes_of_one_revision_are_won_by_one_also_when_the_answer_is_lost(
    store, other, lossy
):
    created = await store.create("/things/a", b"1")
    lossy.lost_requests = 1
    won = [
        isinstance(result, int)
        for result in await asyncio.gather(
            store.delete("/things/a", created), other.delete("/things/a", created),
            return_exceptions=True,
        )
    ]  # fmt: skip
    assert sorted(won) == [False, True]


async def test_write_fails_when_another_won_while_it_was_lost(store, other, lossy):
    created = await store.create("/things/a", b"1")
    lossy.lost_requests = 1
    taken = asyncio.ensure_future(store.update("/things/a", b"2", created))
    await other.update("/things/a", b"3", created)
    results = await asyncio.gather(taken, return_exceptions=True)

    assert isinstance(results[0], Mismatch)
    with pytest.raises(KeyExists):
        await store.create("/things/a", b"4")


async def test_write_is_uncertain_when_no_answer_comes_before_the_store_closes(store, other, lossy):
    lossy.cut_watches()
    lossy.lost_answers = 1000
    write = asyncio.ensure_future(store.create("/things/a", b"1"))
    while lossy.lost_answers == 1000:
        await asyncio.sleep(0.01)
    await store.close()

    with pytest.raises(Uncertain):
        await write
    assert (await other.get("/things/a")).value == b"1"


async def test_each_server_reads_what_any_other_was_acknowledged(store, other):
    revision = await store.create("/things/a", b"0")
    for number in range(1, 20):
        writer, reader = (store, other) if number % 2 else (other, store)
        revision = await writer.update("/things/a", str(number).encode(), revision)
        assert (await reader.get("/things/a")).value == str(number).encode()
        items, at = await reader.list("/things/")
        assert [item.mod_revision for item in items] == [revision]
        assert at >= revision


async def test_watch_goes_on_without_loss_when_its_connection_breaks(store, other, lossy):
    start = store.revision
    async with aclosing(store.watch("/things/", start)) as changes:
        first = await other.create("/things/a", b"")
        assert [change.revision for change in await anext(changes)] == [first]
        lossy.cut_watches()
        missed = [await other.create(f"/things/{n}", b"") for n in range(5)]
        lossy.watching = True
        seen = []
        while len(seen) < 5:
            seen += [change.revision for change in await anext(changes)]
    assert seen == missed


async def test_watchers_are_told_when_etcd_has_forgotten_what_they_missed(store, other, lossy):
    async with aclosing(store.watch("/things/", store.revision)) as changes:
        await other.create("/things/a", b"")
        await anext(changes)
        lossy.cut_watches()
        await other.create("/things/b", b"")
        last = await other.create("/things/c", b"")
        request = {"revision": str(last), "physical": True}
        await other.client.attempt("kv/compaction", request, wire.Done)
        lossy.watching = True
        with pytest.raises(Compacted):
            await anext(changes)
    items, _ = await store.list("/things/")
    assert [item.key for item in items] == ["/things/a", "/things/b", "/things/c"]


async def test_reading_says_that_etcd_does_not_answer(prefix):
    with pytest.raises(Unreachable):
        await open_etcd_store(["http://127.0.0.1:1"], prefix)


async def test_foreign_data_under_the_prefix_is_refused(etcd, prefix, other):
    change = [wire.put(other.layout.facts.replace(prefix.encode(), b"x" + prefix.encode()), b"?")]
    await other.client.attempt("kv/txn", wire.txn([], change, []), wire.Txn)

    with pytest.raises(Corrupt, match="choose another"):
        await open_etcd_store(etcd.endpoints, "x" + prefix)


async def test_store_is_broken_when_etcd_has_gone_back(tmp_path, prefix):
    cluster = EtcdCluster(tmp_path)
    cluster.start()
    store = await open_etcd_store(cluster.endpoints, prefix)
    for number in range(5):
        await store.create(f"/things/{number}", b"")
    cluster.stop()
    shutil.rmtree(tmp_path / "m0/data")
    cluster.start()
    try:
        with pytest.raises(Broken, match="restored"):
            await store.wait_broken()
        with pytest.raises(Broken):
            await store.create("/things/a", b"")
    finally:
        await store.close()
        cluster.stop()


async def test_leaders_writes_are_refused_by_etcd_once_another_leads(store, other):
    first, second = Election(store, "first"), Election(other, "second")
    await first.win()
    mine = LeadersStore(store, first)
    revision = await mine.create("/things/a", b"1")
    guard = first.guard
    with pytest.raises(Deposed):
        await LeadersStore(other, second).create("/things/b", b"")
    await first.resign()
    await second.win()

    with pytest.raises(Deposed):
        await store.update("/things/a", b"2", revision, guard=guard)
    with pytest.raises(Deposed):
        await mine.update("/things/a", b"2", revision)
    theirs = LeadersStore(other, second)
    assert await theirs.update("/things/a", b"3", revision) > revision
    assert second.leader == "second"
    await second.resign()


async def test_leader_is_deposed_when_its_lease_is_gone(store, other):
    election = Election(store, "first")
    await election.win()
    held = store.mirror.leader
    await other.client.attempt("lease/revoke", {"ID": str(election._lease)}, wire.Done)

    with pytest.raises(Deposed):
        await election.keep()
    assert held is not None
    await election.resign()


async def test_old_revisions_are_dropped_and_members_defragmented(store):
    revision = await store.create("/things/a", b"x" * 100_000)
    first = revision
    for _ in range(20):
        revision = await store.update("/things/a", b"x" * 100_000, revision)
    upkeep = Upkeep(store.client)
    await upkeep.compact()
    await upkeep.compact()
    await upkeep.defragment(waste_bytes=0)

    with pytest.raises(Compacted):
        await store.client.attempt(
            "kv/range", wire.read(store.layout.object_key("/things/a"), revision=first), wire.Range
        )
    assert (await store.get("/things/a")).mod_revision == revision
