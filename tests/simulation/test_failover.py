"""Disks of lost nodes: they move with a proof and never without one; one writer at every moment."""

import asyncio
import random

from tests.simulation.failover import FailoverWorld
from tests.simulation.virtual_time import run_virtually
from volagent.client.contract import NODES

START_S = 12.0
MOVED_S = 25.0


async def new_world(seed=0, **options):
    world = FailoverWorld(random.Random(seed), **options)
    await world.bootstrap(["d1", "d2", "d3"])
    return world


async def start(world, *pods):
    """Declare pods, by name and disk, and wait until they write."""
    await asyncio.sleep(2)
    for name, disk in pods:
        await world.declare(name, disk=disk)
    await asyncio.sleep(START_S)
    return [await world.node_of(name) for name, _ in pods]


async def condition_of(world, name):
    conditions = (await world.client.get(NODES, name))["status"]["conditions"]
    return next((c["reason"] for c in conditions if c["type"] == "volagent.dev/FailOver"), "")


def test_pod_of_a_node_that_is_cut_off_writes_on_another_one():
    async def story():
        world = await new_world()
        async with world.living():
            (first,) = await start(world, ("web", "d1"))
            world.machine(first).cut = True
            cut_s = world.now()
            await asyncio.sleep(MOVED_S)
            second = await world.node_of("web")
            assert second not in ("", first)
            assert world.writers("d1", world.now() - 3) == {second}
            moved_s = next(at for at, _, node, _ in world.storage.writes if node == second) - cut_s
            assert moved_s < 20
            world.machine(first).cut = False
            await asyncio.sleep(20)
            assert world.writers("d1", world.now() - 3) == {second}
            assert await world.fencings() == []
            assert await condition_of(world, first) == ""
        assert world.storage.violations == []

    run_virtually(story())
