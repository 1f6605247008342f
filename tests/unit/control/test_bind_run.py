"""The binder at work over an API in memory, cut off after every write and started again."""

import asyncio

import pytest

from tests.contract.client.documents import claim, volume
from tests.simulation.memory_store import MemoryStore
from tests.simulation.virtual_time import VirtualClock, run_virtually
from volagent.api.admission import Admission
from volagent.api.inprocess import InProcessClient
from volagent.client.contract import CLAIMS, EVENTS, PERSISTENT_VOLUMES, NotFound, Unavailable
from volagent.client.events import EventRecorder
from volagent.client.shared import SharedCopies
from volagent.control.bind.run import Binder

SETTLED_S = 60.0
OURS = {"kind": "PersistentVolumeClaim", "namespace": "default", "name": "c"}


class FlakyClient:
    """A client that lets a number of patches through and then fails or dies."""

    def __init__(self, client, patches, failures=0):
        self._client = client
        self._patches = patches
        self._failures = failures
        self.dead = asyncio.Event()

    def __getattr__(self, name):
        return getattr(self._client, name)

    async def patch(self, *arguments, **options):
        if self._patches <= 0:
            if self._failures == 0:
                self.dead.set()
                await asyncio.Event().wait()
            self._failures -= 1
            self._patches += self._failures == 0
            raise Unavailable("the server is away")
        self._patches -= 1
        return await self._client.patch(*arguments, **options)


async def start_server():
    client = InProcessClient(MemoryStore(), Admission(), VirtualClock(), token_key=b"k" * 32)
    await client.housekeeping.bootstrap()
    return client


def start_binder(client, recorder):
    copies = SharedCopies(client)
    binder = Binder(copies, client, recorder)

    async def both():
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(copies.run())
            tasks.create_task(binder.run())

    return asyncio.ensure_future(both())


async def bind_for_a_while(client, events=None):
    """Run a binder until it has long been quiet, or the client under it dies."""
    recorder = events or EventRecorder(client, VirtualClock(), component="binder", host="vm")
    running = start_binder(client, recorder)
    dead = getattr(client, "dead", asyncio.Event())
    dying = asyncio.ensure_future(dead.wait())
    await asyncio.wait([running, dying], timeout=SETTLED_S, return_when=asyncio.FIRST_COMPLETED)
    assert not running.done(), running
    for task in (running, dying):
        task.cancel()
    await asyncio.wait([running, dying])


async def phases(client):
    pvc = await client.get(CLAIMS, "c", "default")
    pv = await client.get(PERSISTENT_VOLUMES, "pv")
    return pvc["status"]["phase"], pv["status"]["phase"]


async def declare(client, *, claim_names=True, volume_names=False):
    await client.create(CLAIMS, claim("c", **({"volumeName": "pv"} if claim_names else {})),
                        "default")  # fmt: skip
    await client.create(PERSISTENT_VOLUMES, volume("pv", **({"claimRef": OURS} if volume_names
                                                            else {})))  # fmt: skip


@pytest.mark.parametrize("writes", range(3))
@pytest.mark.parametrize("volume_names", [False, True])
def test_binding_is_completed_by_the_next_binder_when_one_dies_between_two_writes(
    writes, volume_names
):
    async def main():
        client = await start_server()
        await declare(client, claim_names=not volume_names, volume_names=volume_names)
        await bind_for_a_while(FlakyClient(client, writes))
        await bind_for_a_while(client)
        assert await phases(client) == ("Bound", "Bound")

    run_virtually(main())


def test_binding_goes_on_when_the_server_was_away_for_some_writes():
    async def main():
        client = await start_server()
        await declare(client)
        await bind_for_a_while(FlakyClient(client, 1, failures=3))
        assert (await phases(client))[1] == "Bound"
        await bind_for_a_while(client)
        assert await phases(client) == ("Bound", "Bound")

    run_virtually(main())


def test_claims_and_volumes_that_come_while_it_runs_are_bound_and_released():
    async def main():
        client = await start_server()
        recorder = EventRecorder(client, VirtualClock(), component="binder", host="vm")
        running = start_binder(client, recorder)
        await asyncio.sleep(SETTLED_S)

        await client.create(CLAIMS, claim("c", volumeName="pv"), "default")
        await asyncio.sleep(SETTLED_S)
        assert (await client.get(CLAIMS, "c", "default"))["status"]["phase"] == "Pending"
        await client.create(PERSISTENT_VOLUMES, volume("pv"))
        await asyncio.sleep(SETTLED_S)
        assert await phases(client) == ("Bound", "Bound")

        await client.delete(CLAIMS, "c", "default")
        await asyncio.sleep(SETTLED_S)
        assert await phases(client) == ("Bound", "Bound")  # protected: it is only going
        await client.patch(CLAIMS, "c", {"metadata": {"finalizers": None}}, "default")
        await asyncio.sleep(SETTLED_S)
        released = await client.get(PERSISTENT_VOLUMES, "pv")
        assert released["status"]["phase"] == "Released"
        running.cancel()
        await asyncio.wait([running])

    run_virtually(main())


def test_volume_is_not_released_on_the_word_of_a_cache_alone():
    class ForgetfulClient(FlakyClient):
        async def list(self, resource, *arguments, **options):
            listing = await self._client.list(resource, *arguments, **options)
            if resource is CLAIMS:
                listing.items.clear()
            return listing

    async def main():
        client = await start_server()
        await declare(client)
        await bind_for_a_while(client)
        await bind_for_a_while(ForgetfulClient(client, 100))
        assert await phases(client) == ("Bound", "Bound")

    run_virtually(main())


def test_claim_is_told_in_an_event_why_it_is_not_bound():
    async def main():
        client = await start_server()
        await client.create(CLAIMS, claim("c", volumeName="pv"), "default")
        await client.create(PERSISTENT_VOLUMES, volume("pv", capacity={"storage": "1Mi"}))
        recorder = EventRecorder(client, VirtualClock(), component="binder", host="vm")
        await bind_for_a_while(client, recorder)
        await recorder.flush()

        events = (await client.list(EVENTS)).items
        assert {event["reason"] for event in events} == {"VolumeMismatch"}
        assert events[0]["involvedObject"]["name"] == "c"
        assert (await phases(client)) == ("Pending", "Available")

    run_virtually(main())


def test_volume_of_a_deleted_claim_can_be_deleted_too():
    async def main():
        client = await start_server()
        await declare(client)
        await bind_for_a_while(client)
        await client.delete(CLAIMS, "c", "default")
        await client.delete(PERSISTENT_VOLUMES, "pv")
        unprotected = {"metadata": {"finalizers": None}}
        await client.patch(CLAIMS, "c", unprotected, "default")
        await bind_for_a_while(client)
        assert (await client.get(PERSISTENT_VOLUMES, "pv"))["status"]["phase"] == "Released"
        await client.patch(PERSISTENT_VOLUMES, "pv", unprotected)
        with pytest.raises(NotFound):
            await client.get(PERSISTENT_VOLUMES, "pv")

    run_virtually(main())
