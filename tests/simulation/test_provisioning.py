"""Claims get volumes, and volumes end, whatever dies, lies, hangs or is full meanwhile."""

import asyncio
import contextlib
import random

import pytest

from tests.simulation.provisioning import CLASSES, KEEP_S, LOCAL, NODE, SHARED, Life, World
from tests.simulation.virtual_time import run_virtually
from volagent.client.contract import (
    CLAIMS,
    PERSISTENT_VOLUMES,
    STORAGE_CLASSES,
    ApiError,
)
from volagent.objects.annotations import PROVISIONING, SELECTED_NODE, TRASH_RETENTION

SEEDS_PER_BATCH = 20
BATCHES = 8
SETTLED_S = 3000.0
"""Beyond the longest pause of a failing key, and the longest wait for an answer."""


async def new_world(seed=0, *, rate=0.0):
    world = World(random.Random(seed), rate=rate)
    await world.bootstrap()
    return world


@pytest.mark.parametrize("class_name", ["shared", "local", "local-now"])
def test_claim_is_bound_and_its_volume_ends_with_it(class_name):
    async def story():
        world = await new_world()
        async with world.living():
            claim = await world.ask("c", class_name)
            await asyncio.sleep(10)
            name = f"pvc-{claim['metadata']['uid']}"
            bound = await world.find(CLAIMS, "c", "default")
            assert (bound["status"]["phase"], bound["spec"]["volumeName"]) == ("Bound", name)
            assert PROVISIONING not in bound["metadata"]["finalizers"]
            volume = await world.find(PERSISTENT_VOLUMES, name)
            assert volume["metadata"]["annotations"][TRASH_RETENTION] == str(KEEP_S)
            told = await world.told(claim["metadata"]["uid"])
            maker = CLASSES[class_name]["provisioner"]
            text = f"Successfully provisioned volume {name} using {maker} (in memory)"
            assert ("ProvisioningSucceeded", text) in told
            await world.client.delete(CLAIMS, "c", "default")
            await asyncio.sleep(10)
            assert await world.find(CLAIMS, "c", "default") is None
            assert await world.find(PERSISTENT_VOLUMES, name) is None
            assert world.stored == set()
            assert len(world.trashed) == 1
            await asyncio.sleep(KEEP_S)
            assert world.trashed == set()
            await world.check()

    run_virtually(story())


@pytest.mark.parametrize("class_name", ["shared", "local"])
@pytest.mark.parametrize("writes", range(14))
def test_life_of_a_volume_goes_on_when_the_process_dies_after_any_write(writes, class_name):
    async def story():
        world = await new_world()
        await world.ask("c", class_name)
        if class_name == "local":
            claim = await world.find(CLAIMS, "c", "default")
            await world.annotate(claim, {SELECTED_NODE: NODE})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(20):
                await world.run_life(Life(writes))
        async with world.living():
            await asyncio.sleep(20)
            claim = await world.find(CLAIMS, "c", "default")
            assert claim["status"]["phase"] == "Bound"
            assert len(world.stored) == 1
        await world.client.delete(CLAIMS, "c", "default")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(20):
                await world.run_life(Life(writes))
        async with world.living():
            await asyncio.sleep(20)
            assert await world.find(CLAIMS, "c", "default") is None
            assert world.stored == set()
            await world.check()

    run_virtually(story())


@pytest.mark.parametrize("batch", range(BATCHES))
def test_nothing_is_lost_or_left_behind_when_anything_may_go_wrong(batch):
    for seed in range(batch * SEEDS_PER_BATCH, (batch + 1) * SEEDS_PER_BATCH):
        try:
            run_virtually(_live_through(seed))
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise


async def _live_through(seed):
    world = await new_world(seed, rate=0.15)
    async with world.living():
        for turn in range(world.chance.randrange(5, 25)):
            await _do_something(world, turn)
            await asyncio.sleep(world.chance.choice((0.05, 1.0, 10.0)))
        world.mishaps.rate = 0.0
        for storage in world.storages.values():
            storage.room_bytes = 1 << 50
        for name in CLASSES:
            await world.make_class(name)
        await asyncio.sleep(SETTLED_S)
        await world.check()
        for claim in (await world.client.list(CLAIMS)).items:
            await world.client.delete(CLAIMS, claim["metadata"]["name"], "default")
        await asyncio.sleep(SETTLED_S)
        await world.check()
        assert (await world.client.list(CLAIMS)).items == []
        left = (await world.client.list(PERSISTENT_VOLUMES)).items
        assert {each["spec"]["persistentVolumeReclaimPolicy"] for each in left} <= {"Retain"}


async def _do_something(world, turn):
    chance, client = world.chance, world.client
    claims = (await client.list(CLAIMS)).items
    volumes = (await client.list(PERSISTENT_VOLUMES)).items
    with contextlib.suppress(ApiError):
        match chance.randrange(10):
            case 0 | 1 | 2 | 3:
                await world.ask(f"c{turn}", chance.choice(list(CLASSES)))
            case 4 | 5 if claims:
                name = chance.choice(claims)["metadata"]["name"]
                await client.delete(CLAIMS, name, "default")
            case 6:
                name = chance.choice(list(CLASSES))
                await client.delete(STORAGE_CLASSES, name)
                await asyncio.sleep(chance.random() * 5)
                await world.make_class(name)
            case 7 if volumes:
                name = chance.choice(volumes)["metadata"]["name"]
                await client.delete(PERSISTENT_VOLUMES, name)
            case 8 if volumes:
                name = chance.choice(volumes)["metadata"]["name"]
                policy = chance.choice(("Retain", "Delete"))
                if policy == "Retain":
                    world.kept.add(name)
                change = {"spec": {"persistentVolumeReclaimPolicy": policy}}
                await client.patch(PERSISTENT_VOLUMES, name, change)
            case 9:
                storage = chance.choice(list(world.storages.values()))
                storage.room_bytes = chance.choice((0, 2 << 30, 1 << 50))


def test_full_node_gives_the_claim_back_to_the_scheduler_without_a_hot_loop():
    async def story():
        world = await new_world()
        world.storages[LOCAL].room_bytes = 0
        async with world.living():
            claim = await world.ask("c", "local")
            await asyncio.sleep(600)
            told = dict(await world.told(claim["metadata"]["uid"]))
            assert "do not fit; free some space" in told["ProvisioningFailed"]
            assert world.stored == set()
            world.storages[LOCAL].room_bytes = 1 << 50
            await asyncio.sleep(400)
            found = await world.find(CLAIMS, "c", "default")
            assert found["status"]["phase"] == "Bound"

    run_virtually(story())


def test_refused_parameters_wait_for_another_class_of_the_name():
    async def story():
        world = await new_world()
        async with world.living():
            claim = await world.ask("c", "odd")
            await asyncio.sleep(600)
            told = await world.told(claim["metadata"]["uid"])
            text = (
                'failed to provision volume with StorageClass "odd": unknown parameter "colour";'
                " the fake has: tier"
            )
            assert ("ProvisioningFailed", text) in told
            await world.client.delete(STORAGE_CLASSES, "odd")
            document = {"metadata": {"name": "odd"}, "provisioner": SHARED}
            await world.client.create(STORAGE_CLASSES, document)
            await asyncio.sleep(5)
            found = await world.find(CLAIMS, "c", "default")
            assert found["status"]["phase"] == "Bound"

    run_virtually(story())
