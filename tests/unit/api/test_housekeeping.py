"""Bootstrap, expiry and unfinished business, over a store in memory and a clock that is set."""

import asyncio
from datetime import UTC, datetime, timedelta

from tests.simulation.memory_store import MemoryStore
from volagent.api.admission import Admission
from volagent.api.housekeeping import MAX_EXPIRING
from volagent.api.inprocess import InProcessClient
from volagent.client.contract import CONFIG_MAPS, EVENTS, NAMESPACES, SERVICE_ACCOUNTS, NotFound


class SetClock:
    def __init__(self):
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def monotonic(self):
        return self.now.timestamp()

    def wall(self):
        return self.now

    def advance(self, **duration):
        self.now += timedelta(**duration)


async def start(store, clock):
    client = InProcessClient(store, Admission(), clock, token_key=b"k" * 32)
    await client.housekeeping.bootstrap()
    return client


def event(name, **fields):
    return {
        "metadata": {"name": name, "namespace": "default"},
        "involvedObject": {"kind": "Pod", "namespace": "default", "name": "a"},
        "reason": "Tested",
        "type": "Normal",
        **fields,
    }


async def names(client, resource):
    return [item["metadata"]["name"] for item in (await client.list(resource)).items]


async def test_first_start_makes_the_standard_namespaces_and_a_second_changes_nothing():
    store, clock = MemoryStore(), SetClock()
    client = await start(store, clock)
    assert await names(client, NAMESPACES) == ["default", "kube-node-lease", "kube-system"]
    revision = store.revision

    await start(store, clock)

    assert store.revision == revision


async def test_start_makes_up_for_a_service_account_that_a_crash_prevented():
    store, clock = MemoryStore(), SetClock()
    client = await start(store, clock)
    await client.delete(SERVICE_ACCOUNTS, "default", "kube-system")

    client = await start(store, clock)

    assert await client.get(SERVICE_ACCOUNTS, "default", "kube-system")


async def test_events_expire_an_hour_after_their_last_write():
    clock = SetClock()
    client = await start(MemoryStore(), clock)
    for name in ("early", "repeated"):
        await client.create(EVENTS, event(name), "default")
    clock.advance(minutes=40)
    await client.patch(EVENTS, "repeated", {"count": 2}, "default")
    await client.create(EVENTS, event("late"), "default")

    clock.advance(minutes=25)
    await client.housekeeping.expire()
    assert await names(client, EVENTS) == ["late", "repeated"]

    clock.advance(minutes=40)
    await client.housekeeping.expire()
    assert await names(client, EVENTS) == []


async def test_events_of_an_earlier_process_expire_too():
    store, clock = MemoryStore(), SetClock()
    client = await start(store, clock)
    last = "2025-12-31T23:30:00Z"
    await client.create(EVENTS, event("old", lastTimestamp=last), "default")
    await client.create(EVENTS, event("new"), "default")

    client = await start(store, clock)
    clock.advance(minutes=31)
    await client.housekeeping.expire()

    assert await names(client, EVENTS) == ["new"]


async def test_oldest_events_go_early_when_there_are_too_many():
    client = await start(MemoryStore(), SetClock())
    for number in range(3):
        await client.create(EVENTS, event(f"e{number}"), "default")
    for number in range(MAX_EXPIRING - 1):
        await client.patch(EVENTS, "e2", {"count": number + 2}, "default")

    await client.housekeeping.expire()

    assert await names(client, EVENTS) == ["e2"]


async def test_ending_of_a_namespace_goes_on_after_a_restart():
    store, clock = MemoryStore(), SetClock()
    client = await start(store, clock)
    await client.create(NAMESPACES, {"metadata": {"name": "short"}})
    await client.create(CONFIG_MAPS, {"metadata": {"name": "a"}}, "short")
    await client.delete(NAMESPACES, "short")
    assert (await client.get(CONFIG_MAPS, "a", "short"))["metadata"]["name"] == "a"

    client = await start(store, clock)
    changes = client.watch(NAMESPACES, resource_version=str(store.revision))
    running = asyncio.ensure_future(client.housekeeping.run())
    (ended,) = await anext(changes)
    running.cancel()
    await asyncio.wait([running])
    await changes.aclose()

    assert (ended.type, ended.object["metadata"]["name"]) == ("DELETED", "short")
    try:
        await client.get(CONFIG_MAPS, "a", "short")
    except NotFound:
        return
    raise AssertionError("something was left in the namespace")
