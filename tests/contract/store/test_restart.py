"""What a store still knows after it was closed and opened again."""

import pytest

from volagent.store.contract import Compacted


async def test_everything_is_there_again_after_a_restart(durable):
    a = await durable.store.create("/things/a", b"1")
    b = await durable.store.create("/things/b", b"1")
    c = await durable.store.create("/things/c", b"1")
    a = await durable.store.update("/things/a", b"2", a)
    await durable.store.delete("/things/b", b)
    before, revision = await durable.store.list("/things/")

    store = await durable.reopen()

    assert await store.list("/things/") == (before, revision)
    assert await store.get("/things/b") is None
    assert {item.key: item.mod_revision for item in before} == {"/things/a": a, "/things/c": c}


async def test_revisions_go_on_after_a_restart_even_when_the_last_write_was_a_delete(durable):
    created = await durable.store.create("/things/a", b"1")
    deleted = await durable.store.delete("/things/a", created)

    for _ in range(2):
        store = await durable.reopen()
        assert store.revision == deleted
    assert await store.create("/things/b", b"") > deleted


async def test_deleted_key_can_be_created_again_after_a_restart(durable):
    created = await durable.store.create("/things/a", b"1")
    await durable.store.delete("/things/a", created)
    store = await durable.reopen()

    again = await store.create("/things/a", b"2")
    store = await durable.reopen()

    assert (await store.get("/things/a")).create_revision == again


async def test_watch_goes_on_at_the_last_revision_after_a_restart(durable):
    await durable.store.create("/things/a", b"1")
    store = await durable.reopen()
    revision = store.revision
    await store.create("/things/b", b"1")

    changes = store.watch("/things/", revision)
    assert [change.key for change in await anext(changes)] == ["/things/b"]
    await changes.aclose()


async def test_watch_from_before_a_restart_is_refused(durable):
    start = durable.store.revision
    await durable.store.create("/things/a", b"1")
    store = await durable.reopen()

    with pytest.raises(Compacted):
        await anext(store.watch("/things/", start))
