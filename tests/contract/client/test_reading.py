"""List and watch, as every client gives them."""

import asyncio
from contextlib import aclosing

import pytest

from tests.contract.client.documents import config_map, namespace, pod, with_meta
from volagent.client.contract import (
    CONFIG_MAPS,
    NAMESPACES,
    NODES,
    PODS,
    BadRequest,
    Selection,
    Timeout,
)


async def take(changes, count):
    taken = []
    async for batch in changes:
        taken += batch
        if len(taken) >= count:
            return taken
    raise AssertionError("the watch ended")


def names(documents):
    return [document["metadata"]["name"] for document in documents]


async def fill(client, count=5):
    for number in range(count):
        document = with_meta(config_map(f"c{number}"), labels={"parity": "eo"[number % 2]})
        await client.create(CONFIG_MAPS, document, "default")


async def test_list_is_sorted_and_of_one_revision(client):
    await fill(client)

    listing = await client.list(CONFIG_MAPS, Selection("default"))

    assert names(listing.items) == [f"c{n}" for n in range(5)]
    assert listing.resource_version == listing.items[-1]["metadata"]["resourceVersion"]


async def test_list_keeps_to_its_namespace_and_spans_all_without_one(client):
    await client.create(NAMESPACES, namespace("other"))
    await client.create(CONFIG_MAPS, config_map("a"), "default")
    await client.create(CONFIG_MAPS, config_map("b"), "other")

    assert names((await client.list(CONFIG_MAPS, Selection("other"))).items) == ["b"]
    assert names((await client.list(CONFIG_MAPS)).items) == ["a", "b"]


@pytest.mark.parametrize(
    ("selector", "found"),
    [("parity=e", "c0 c2 c4"), ("parity!=e", "c1 c3"), ("parity in (o,x)", "c1 c3"),
     ("!parity", ""), ("parity,parity notin (o)", "c0 c2 c4")],
)  # fmt: skip
async def test_list_selects_by_labels(client, selector, found):
    await fill(client)

    listing = await client.list(CONFIG_MAPS, Selection("default", label_selector=selector))

    assert names(listing.items) == found.split()


async def test_list_selects_by_fields(client):
    await client.create(PODS, pod("here"), "default")
    await client.create(PODS, pod("there", nodeName="vm-2"), "default")

    for selector, found in (
        ("spec.nodeName=vm-2", ["there"]),
        ("spec.nodeName!=vm-2,status.phase=Pending", ["here"]),
        ("metadata.name=here,metadata.namespace=default", ["here"]),
    ):
        listing = await client.list(PODS, Selection(field_selector=selector))
        assert names(listing.items) == found


@pytest.mark.parametrize(
    "selection",
    [Selection(label_selector="a in"), Selection(label_selector="=b"),
     Selection(field_selector="spec.color=red"), Selection(field_selector="nonsense")],
)  # fmt: skip
async def test_selector_that_makes_no_sense_is_refused(client, selection):
    with pytest.raises(BadRequest):
        await client.list(PODS, selection)


async def test_pages_together_are_the_list_of_one_moment(client):
    await fill(client, 7)
    first = await client.list(CONFIG_MAPS, Selection("default"), limit=3)
    assert (names(first.items), first.remaining) == (["c0", "c1", "c2"], 4)

    await client.delete(CONFIG_MAPS, "c4", "default")
    await client.create(CONFIG_MAPS, config_map("c45"), "default")
    found = names(first.items)
    token = first.continue_token
    while token:
        page = await client.list(CONFIG_MAPS, Selection("default"), limit=3, continue_token=token)
        assert page.resource_version == first.resource_version
        found += names(page.items)
        token = page.continue_token

    assert found == [f"c{n}" for n in range(7)]


async def test_pages_with_a_selector_do_not_tell_how_much_remains(client):
    await fill(client)

    page = await client.list(CONFIG_MAPS, Selection("default", label_selector="parity=e"), limit=2)

    assert (names(page.items), page.remaining) == (["c0", "c2"], None)
    rest = await client.list(
        CONFIG_MAPS,
        Selection("default", label_selector="parity=e"),
        limit=2,
        continue_token=page.continue_token,
    )
    assert (names(rest.items), rest.continue_token) == (["c4"], "")


@pytest.mark.parametrize("token", ["nonsense", "e30", "bm90IGpzb24"])
async def test_continue_token_that_is_none_is_refused(client, token):
    with pytest.raises(BadRequest):
        await client.list(CONFIG_MAPS, Selection("default"), limit=1, continue_token=token)


async def test_revision_from_the_future_is_refused_with_its_cause(client):
    with pytest.raises(Timeout) as refused:
        await client.list(CONFIG_MAPS, resource_version="1000000")
    assert refused.value.details["causes"][0]["reason"] == "ResourceVersionTooLarge"


async def test_watch_tells_what_happens_after_the_list(client):
    await fill(client, 1)
    listing = await client.list(CONFIG_MAPS, Selection("default"))
    created = await client.create(CONFIG_MAPS, config_map("new"), "default")
    patched = await client.patch(CONFIG_MAPS, "new", {"data": {"a": "b"}}, "default")
    await client.delete(CONFIG_MAPS, "new", "default")

    async with aclosing(
        client.watch(CONFIG_MAPS, Selection("default"), resource_version=listing.resource_version)
    ) as changes:
        added, modified, deleted = await take(changes, 3)

    assert (added.type, added.object) == ("ADDED", created)
    assert (modified.type, modified.object) == ("MODIFIED", patched)
    assert deleted.type == "DELETED"
    assert deleted.object["data"] == {"a": "b"}
    versions = [int(e.object["metadata"]["resourceVersion"]) for e in (added, modified, deleted)]
    assert versions == sorted(set(versions))


async def test_watch_wakes_up_when_something_happens_while_it_waits(client):
    listing = await client.list(CONFIG_MAPS)
    async with aclosing(
        client.watch(CONFIG_MAPS, resource_version=listing.resource_version)
    ) as changes:
        waiting = asyncio.ensure_future(take(changes, 1))
        await asyncio.sleep(0)
        await client.create(CONFIG_MAPS, config_map("a"), "default")
        (event,) = await waiting

    assert event.object["metadata"]["name"] == "a"


async def test_watch_without_a_revision_begins_with_what_is_there(client):
    await fill(client, 2)

    async with aclosing(
        client.watch(CONFIG_MAPS, Selection("default"), resource_version="")
    ) as changes:
        first = await take(changes, 2)
        await client.create(CONFIG_MAPS, config_map("late"), "default")
        (last,) = await take(changes, 1)

    assert [(e.type, e.object["metadata"]["name"]) for e in (*first, last)] == [
        ("ADDED", "c0"), ("ADDED", "c1"), ("ADDED", "late"),
    ]  # fmt: skip


async def test_watch_sees_objects_enter_and_leave_its_selection(client):
    created = await client.create(CONFIG_MAPS, config_map("a", k="old"), "default")
    selection = Selection("default", label_selector="mine=yes")
    await client.patch(CONFIG_MAPS, "a", {"metadata": {"labels": {"mine": "yes"}}}, "default")
    await client.patch(CONFIG_MAPS, "a", {"data": {"k": "2"}}, "default")
    await client.patch(
        CONFIG_MAPS, "a", {"metadata": {"labels": None}, "data": {"k": "3"}}, "default"
    )
    await client.delete(CONFIG_MAPS, "a", "default")

    async with aclosing(
        client.watch(
            CONFIG_MAPS, selection, resource_version=created["metadata"]["resourceVersion"]
        )
    ) as changes:
        events = await take(changes, 3)

    assert [event.type for event in events] == ["ADDED", "MODIFIED", "DELETED"]
    assert events[2].object["data"] == {"k": "2"}, "leaving shows the object as it last fitted"
    assert int(events[2].object["metadata"]["resourceVersion"]) > int(
        events[1].object["metadata"]["resourceVersion"]
    )


async def test_watch_by_field_sees_only_its_own(client):
    listing = await client.list(PODS)
    await client.create(PODS, pod("there", nodeName="vm-2"), "default")
    await client.create(PODS, pod("here"), "default")

    async with aclosing(
        client.watch(
            PODS,
            Selection(field_selector="spec.nodeName=vm-1"),
            resource_version=listing.resource_version,
        )
    ) as changes:
        (event,) = await take(changes, 1)

    assert event.object["metadata"]["name"] == "here"


async def test_cluster_scoped_objects_are_read_without_a_namespace(client):
    await client.create(NODES, {"metadata": {"name": "vm-1", "labels": {"a": "b"}}})

    assert (await client.get(NODES, "vm-1"))["metadata"]["labels"]["a"] == "b"
    assert "namespace" not in (await client.get(NODES, "vm-1"))["metadata"]
