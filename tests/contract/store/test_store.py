"""What every store promises: see `volagent/store/contract.py`."""

import asyncio
from contextlib import aclosing

import pytest

from volagent.store.contract import Compacted, FutureRevision, KeyExists, Mismatch


async def take(changes, count):
    """The next changes of a watch, batches joined."""
    taken = []
    async for batch in changes:
        taken += batch
        if len(taken) >= count:
            return taken
    raise AssertionError("the watch ended")


async def test_get_answers_none_when_the_key_is_not_there(store):
    assert await store.get("/things/a") is None


async def test_create_is_readable_with_its_revision_when_it_returns(store):
    revision = await store.create("/things/a", b"1")

    stored = await store.get("/things/a")
    assert (stored.value, stored.create_revision, stored.mod_revision) == (b"1", revision, revision)
    assert store.revision == revision


async def test_create_fails_when_the_key_exists(store):
    await store.create("/things/a", b"1")

    with pytest.raises(KeyExists):
        await store.create("/things/a", b"2")
    assert (await store.get("/things/a")).value == b"1"


async def test_exactly_one_create_wins_when_many_run_at_once(store):
    results = await asyncio.gather(
        *(store.create("/things/a", str(n).encode()) for n in range(20)), return_exceptions=True
    )

    won = [n for n, result in enumerate(results) if isinstance(result, int)]
    assert len(won) == 1
    assert all(isinstance(r, KeyExists) for n, r in enumerate(results) if n != won[0])
    assert (await store.get("/things/a")).value == str(won[0]).encode()


async def test_create_depends_on_another_object_when_it_is_given(store):
    first = await store.create("/spaces/a", b"1")
    space = await store.get("/spaces/a")
    await store.create("/things/a/1", b"", beside=space)
    await store.update("/spaces/a", b"ending", first)

    with pytest.raises(Mismatch):
        await store.create("/things/a/2", b"", beside=space)
    space = await store.get("/spaces/a")
    await store.delete("/spaces/a", space.mod_revision)
    with pytest.raises(Mismatch):
        await store.create("/things/a/2", b"", beside=space)
    assert await store.get("/things/a/2") is None


async def test_update_keeps_the_create_revision_and_moves_the_other(store):
    created = await store.create("/things/a", b"1")
    updated = await store.update("/things/a", b"2", created)

    stored = await store.get("/things/a")
    assert updated > created
    assert (stored.value, stored.create_revision, stored.mod_revision) == (b"2", created, updated)


@pytest.mark.parametrize("verb", ["update", "delete"])
async def test_write_fails_and_changes_nothing_when_the_revision_is_stale(store, verb):
    first = await store.create("/things/a", b"1")
    second = await store.update("/things/a", b"2", first)

    with pytest.raises(Mismatch):
        await (
            store.update("/things/a", b"3", first)
            if verb == "update"
            else store.delete("/things/a", first)
        )
    assert (await store.get("/things/a")).mod_revision == second


@pytest.mark.parametrize("verb", ["update", "delete"])
async def test_write_fails_when_the_key_is_not_there(store, verb):
    with pytest.raises(Mismatch):
        await (
            store.update("/things/a", b"1", 1) if verb == "update" else store.delete("/things/a", 1)
        )


async def test_exactly_one_update_wins_when_many_name_the_same_revision(store):
    revision = await store.create("/things/a", b"")
    results = await asyncio.gather(
        *(store.update("/things/a", str(n).encode(), revision) for n in range(20)),
        return_exceptions=True,
    )

    assert sum(isinstance(result, int) for result in results) == 1
    assert sum(isinstance(result, Mismatch) for result in results) == 19


async def test_counter_loses_no_step_when_many_increment_it_with_retries(store):
    await store.create("/things/counter", b"0")

    async def increment():
        while True:
            stored = await store.get("/things/counter")
            try:
                await store.update(
                    "/things/counter", str(int(stored.value) + 1).encode(), stored.mod_revision
                )
            except Mismatch:
                continue
            return

    await asyncio.gather(*(increment() for _ in range(30)))

    assert (await store.get("/things/counter")).value == b"30"


async def test_key_has_a_new_life_when_it_is_created_after_a_delete(store):
    first = await store.create("/things/a", b"1")
    deleted = await store.delete("/things/a", first)
    second = await store.create("/things/a", b"2")

    assert first < deleted < second
    assert (await store.get("/things/a")).create_revision == second


async def test_revisions_grow_by_every_write_of_any_key(store):
    revisions = [await store.create(f"/things/{n}", b"") for n in range(3)]
    revisions.append(await store.create("/others/x", b""))
    revisions.append(await store.delete("/things/1", revisions[1]))

    assert revisions == sorted(set(revisions))


async def test_list_is_sorted_and_keeps_to_its_prefix(store):
    for key in ("/things/b/1", "/things/a/2", "/thingsome/a", "/things/a/1", "/thing/a"):
        await store.create(key, key.encode())

    items, revision = await store.list("/things/")
    assert [item.key for item in items] == ["/things/a/1", "/things/a/2", "/things/b/1"]
    assert revision == store.revision
    items, _ = await store.list("/things/a/")
    assert [item.key for item in items] == ["/things/a/1", "/things/a/2"]


async def test_list_leaves_out_what_comes_before_its_start(store):
    for name in "abcd":
        await store.create(f"/things/{name}", b"")

    items, _ = await store.list("/things/", start_after="/things/b")

    assert [item.key for item in items] == ["/things/c", "/things/d"]


async def test_list_shows_the_past_when_a_revision_is_asked_for(store):
    a = await store.create("/things/a", b"1")
    b = await store.create("/things/b", b"1")
    then = store.revision
    await store.update("/things/a", b"2", a)
    await store.delete("/things/b", b)
    await store.create("/things/c", b"1")
    await store.create("/others/x", b"1")

    items, revision = await store.list("/things/", at_revision=then)

    assert [(item.key, item.value) for item in items] == [("/things/a", b"1"), ("/things/b", b"1")]
    assert revision == then


async def test_list_refuses_a_revision_that_is_yet_to_come(store):
    with pytest.raises(FutureRevision):
        await store.list("/things/", at_revision=store.revision + 1)


async def test_watch_sends_every_change_in_order_with_what_was_there_before(store):
    start = store.revision
    created = await store.create("/things/a", b"1")
    updated = await store.update("/things/a", b"2", created)
    deleted = await store.delete("/things/a", updated)

    async with aclosing(store.watch("/things/", start)) as changes:
        create, update, delete = await take(changes, 3)

    assert (create.revision, update.revision, delete.revision) == (created, updated, deleted)
    assert (create.previous, create.current.value) == (None, b"1")
    assert (update.previous.value, update.current.value) == (b"1", b"2")
    assert (delete.previous.value, delete.current) == (b"2", None)


async def test_watch_sends_nothing_of_other_prefixes_or_of_before(store):
    await store.create("/things/ns/a", b"")
    start = store.revision
    await store.create("/others/ns/b", b"")
    await store.create("/things/other/c", b"")
    await store.create("/things/ns/d", b"")

    async with aclosing(store.watch("/things/ns/", start)) as changes:
        (change,) = await take(changes, 1)

    assert change.key == "/things/ns/d"


async def test_watchers_each_get_everything_while_writes_go_on(store):
    start = store.revision

    async def follow():
        async with aclosing(store.watch("/things/", start)) as changes:
            return [change.key for change in await take(changes, 50)]

    followers = asyncio.gather(*(follow() for _ in range(5)))
    keys = [f"/things/{n:02}" for n in range(50)]
    await asyncio.gather(*(store.create(key, b"") for key in keys))

    seen = await followers
    assert all(sorted(one) == keys for one in seen)
    assert all(one == seen[0] for one in seen)


async def test_watch_resumes_without_loss_when_it_starts_at_a_revision_of_the_middle(store):
    revisions = [await store.create(f"/things/{n}", b"") for n in range(5)]

    async with aclosing(store.watch("/things/", revisions[2])) as changes:
        rest = await take(changes, 2)

    assert [change.revision for change in rest] == revisions[3:]


async def test_watch_says_that_it_is_idle_when_asked_to(store):
    async with aclosing(store.watch("/things/", store.revision, idle_s=0.001)) as changes:
        assert list(await anext(changes)) == []
        await store.create("/things/a", b"")
        assert len(await take(changes, 1)) == 1


async def test_watch_refuses_a_revision_that_is_yet_to_come(store):
    with pytest.raises(FutureRevision):
        await anext(store.watch("/things/", store.revision + 1))


async def test_watch_is_refused_when_its_revision_is_forgotten(durable):
    start = durable.store.revision
    await durable.forget_old_changes()

    with pytest.raises(Compacted):
        await anext(durable.store.watch("/things/", start))
    with pytest.raises(Compacted):
        await durable.store.list("/things/", at_revision=start)


async def test_slow_watcher_is_cut_off_and_nobody_waits_for_it(durable):
    store = durable.store
    await store.create("/things/first", b"")
    async with aclosing(store.watch("/things/", store.revision - 1)) as slow:
        assert len(await anext(slow)) == 1
        await durable.forget_old_changes()

        with pytest.raises(Compacted):
            await anext(slow)


async def test_other_resources_are_remembered_when_one_is_busy(durable):
    store = durable.store
    start = store.revision
    await store.create("/others/quiet", b"")
    await durable.forget_old_changes()

    async with aclosing(store.watch("/others/", start)) as changes:
        assert [change.key for change in await take(changes, 1)] == ["/others/quiet"]


async def test_write_still_happens_when_its_caller_goes_away(store):
    task = asyncio.ensure_future(store.create("/things/a", b"1"))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])

    await store.create("/things/b", b"")  # commits after, or together with, the first
    with pytest.raises(KeyExists):
        await store.create("/things/a", b"2")
