"""Disks of lost nodes: they move with a proof and never without one; one writer at every moment."""

import asyncio
import random

import pytest

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


def lose(machine, fault):
    match fault:
        case "cut":
            machine.cut = True
        case "power":
            machine.lose_power()
        case "freeze":
            machine.running.clear()
        case "agent":
            machine.hangs = True


def mend(machine):
    machine.cut = machine.hangs = False
    machine.running.set()
    if machine.off:
        machine.boot_anew()


async def condition_of(world, name):
    conditions = (await world.client.get(NODES, name))["status"].get("conditions") or ()
    return next((c["reason"] for c in conditions if c["type"] == "volagent.dev/FailOver"), "")


@pytest.mark.parametrize("fault", ["cut", "power", "freeze", "agent"])
def test_pod_of_a_lost_node_writes_on_another_one(fault):
    async def story():
        world = await new_world()
        async with world.living():
            (first,) = await start(world, ("web", "d1"))
            lose(world.machine(first), fault)
            cut_s = world.now()
            await asyncio.sleep(MOVED_S)
            second = await world.node_of("web")
            assert second not in ("", first)
            assert world.writers("d1", world.now() - 3) == {second}
            moved_s = next(at for at, _, node, _ in world.storage.writes if node == second) - cut_s
            assert moved_s < 20
            mend(world.machine(first))
            await asyncio.sleep(20)
            assert world.writers("d1", world.now() - 3) == {second}
            assert await world.fencings() == []
            assert await condition_of(world, first) == ""
        assert world.storage.violations == []

    run_virtually(story())


def test_disk_without_any_proof_never_moves_and_says_what_would_help():
    async def story():
        world = await new_world(keyed=False)
        async with world.living():
            (first,) = await start(world, ("web", "d1"))
            world.machine(first).cut = True
            await asyncio.sleep(1200)
            assert world.writers("d1", world.now() - 3) == {first}
            assert await world.node_of("web") == first
            assert await condition_of(world, first) == "NoProof"
            disk = world.disk("d1")
            why, remedy = world.failover.explain(first, disk)
            assert "the storage of disk.fake.test cannot keep a node out" in why
            assert "no armed watchdog" in why
            assert remedy.endswith(f"volagent node confirm-off {first}")
            told = [text for reason, text in await world.told("web") if reason == "NodeLost"]
            assert any("nothing proves yet" in text for text in told)

            world.machine(first).lose_power()
            taint = {"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}
            node = await world.client.get(NODES, first)
            taints = [*node["spec"]["taints"], taint]
            await world.client.patch(NODES, first, {"spec": {"taints": taints}})
            await asyncio.sleep(20)
            second = await world.node_of("web")
            assert second != first
            assert world.writers("d1", world.now() - 3) == {second}
        assert world.storage.violations == []

    run_virtually(story())


@pytest.mark.parametrize("means", [{"watchdog": True}, {"hooks": True}], ids=str)
def test_disk_moves_by_the_proof_that_there_is(means):
    async def story():
        world = await new_world(keyed=False, **means)
        async with world.living():
            (first,) = await start(world, ("web", "d1"))
            world.machine(first).cut = True
            await asyncio.sleep(40)
            second = await world.node_of("web")
            assert second not in ("", first)
            assert world.writers("d1", world.now() - 3) == {second}
            (fencing,) = await world.fencings()  # its node has not said that it has given it up
            assert fencing["status"]["phase"] == "Proven"
            world.machine(first).cut = False
            if world.machine(first).off:
                world.machine(first).boot_anew()
            await asyncio.sleep(60)
            assert await world.fencings() == []
            assert world.writers("d1", world.now() - 3) == {second}
        assert world.storage.violations == []

    run_virtually(story())


def test_watchdog_of_another_boot_proves_nothing():
    async def story():
        world = await new_world(keyed=False)
        async with world.living():
            (first,) = await start(world, ("web", "d1"))
            promise = '{"withinSeconds": 5, "by": "dog", "bootID": "another"}'
            change = {"metadata": {"annotations": {"volagent.dev/fences-itself": promise}}}
            await world.client.patch(NODES, first, change)
            world.machine(first).cut = True
            await asyncio.sleep(600)
            assert world.writers("d1", world.now() - 3) == {first}
        assert world.storage.violations == []

    run_virtually(story())


def test_another_way_is_taken_when_one_gives_no_proof():
    async def story():
        world = await new_world(watchdog=True)
        world.storage.refuses_to_fence = True
        async with world.living():
            (first,) = await start(world, ("web", "d1"))
            world.machine(first).cut = True
            await asyncio.sleep(50)
            second = await world.node_of("web")
            assert world.writers("d1", world.now() - 3) == {second}
            (fencing,) = await world.fencings()
            assert fencing["spec"]["method"] == "Watchdog"
            assert "no reservations" in fencing["spec"]["tried"][0]["message"]
        assert world.storage.violations == []

    run_virtually(story())


def test_storage_that_only_says_that_it_fences_is_found_out():
    async def story():
        world = await new_world()
        world.storage.forgets_to_fence = True
        async with world.living():
            (first,) = await start(world, ("web", "d1"))
            world.machine(first).cut = True
            await asyncio.sleep(200)
            assert world.writers("d1", world.now() - 3) == {first}
            world.storage.forgets_to_fence = False
            await asyncio.sleep(70)
            assert world.writers("d1", world.now() - 3) == {await world.node_of("web")} != {first}
        assert world.storage.violations == []

    run_virtually(story())


def test_next_node_is_asked_when_the_one_that_was_asked_is_lost_too():
    async def story():
        world = await new_world(nodes=7)  # two of seven may be lost
        world.storage.slow_s = 8.0
        async with world.living():
            (first,) = await start(world, ("web", "d1"))
            world.machine(first).cut = True
            while not (found := await world.fencings()):
                await asyncio.sleep(0.1)
            executor = found[0]["spec"]["executor"]
            world.machine(executor).running.clear()
            await asyncio.sleep(60)
            (fencing,) = await world.fencings()
            assert fencing["spec"]["executor"] != executor
            assert fencing["spec"]["tried"][0]["executor"] == executor
            assert world.writers("d1", world.now() - 3) == {await world.node_of("web")}
            world.machine(executor).running.set()
            await asyncio.sleep(10)
        assert world.storage.violations == []

    run_virtually(story())


def test_nothing_is_taken_when_many_nodes_are_silent_at_once():
    async def story():
        world = await new_world(nodes=4)
        async with world.living():
            nodes = await start(world, ("web", "d1"), ("more", "d2"))
            for machine in world.machines:
                machine.cut = True
            await asyncio.sleep(600)
            assert await world.fencings() == []
            assert {await condition_of(world, name) for name in nodes} == {"Held"}
            assert (
                "4 of 4 nodes are silent" in world.failover.explain(nodes[0], world.disk("d1"))[0]
            )
            for machine in world.machines:
                machine.cut = False
            await asyncio.sleep(30)
            assert [await world.node_of(name) for name in ("web", "more")] == nodes
            for name, disk in zip(nodes, ("d1", "d2"), strict=True):
                assert world.writers(disk, world.now() - 3) == {name}
                assert await condition_of(world, name) == ""
        assert world.storage.violations == []

    run_virtually(story())


def test_person_can_have_one_node_taken_although_many_are_silent():
    async def story():
        world = await new_world(nodes=4)
        async with world.living():
            (first,) = await start(world, ("web", "d1"))
            other = next(each for each in world.machines if each.name != first)
            world.machine(first).cut = other.cut = True
            await asyncio.sleep(60)
            assert await condition_of(world, first) == "Held"
            node = await world.client.get(NODES, first)
            boot = node["status"]["nodeInfo"]["bootID"]
            change = {"metadata": {"annotations": {"volagent.dev/fail-over": boot}}}
            await world.client.patch(NODES, first, change)
            await asyncio.sleep(15)
            second = await world.node_of("web")
            assert world.writers("d1", world.now() - 3) == {second} != {first}
            world.machine(first).cut = other.cut = False
            await asyncio.sleep(30)
            node = await world.client.get(NODES, first)
            assert "volagent.dev/fail-over" not in node["metadata"]["annotations"]
        assert world.storage.violations == []

    run_virtually(story())


def test_two_nodes_are_enough_for_one_to_take_over():
    async def story():
        world = await new_world(nodes=2)
        async with world.living():
            (first,) = await start(world, ("web", "d1"))
            world.machine(first).lose_power()
            await asyncio.sleep(MOVED_S)
            assert world.writers("d1", world.now() - 3) == {await world.node_of("web")} != {first}
        assert world.storage.violations == []

    run_virtually(story())
