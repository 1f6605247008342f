"""Nodes without a lease: those that were lost before their first renewal, and those that never ran.

The first are fenced as others are; of the second nothing is taken, and they make no crowd.
"""

import asyncio

import pytest

from tests.simulation.test_failover import MOVED_S, condition_of, mend, new_world, start
from tests.simulation.virtual_time import run_virtually
from volagent.client.contract import LEASES, NODES, VOLUME_ATTACHMENTS, NotFound
from volagent.control.nodes.decide import UNREACHABLE
from volagent.control.nodes.silence import LEASE_NAMESPACE

PLAN = "planned"


async def cordon(world, value, *, but=()):
    for machine in world.machines:
        if machine not in but:
            change = {"spec": {"unschedulable": value or None}}
            await world.client.patch(NODES, machine.name, change)


async def start_mute(world, *pods, mute):
    """Have pods write on machines that have not renewed a lease yet."""
    for machine in mute:
        machine.mute = True
    await asyncio.sleep(2)
    await cordon(world, True, but=mute)
    for name, disk in pods:
        await world.declare(name, disk=disk)
    await asyncio.sleep(5)
    await cordon(world, False, but=mute)
    for _, disk in pods:
        assert world.writers(disk, 0) <= {machine.name for machine in mute} != set()
    with pytest.raises(NotFound):
        await world.client.get(LEASES, mute[0].name, LEASE_NAMESPACE)


async def declare_nodes(world, count):
    """As a person does who will set up the machines tomorrow."""
    for n in range(count):
        await world.client.create(NODES, {"metadata": {"name": f"{PLAN}{n:02}"}})


async def taints_of(world, name):
    spec = (await world.client.get(NODES, name)).get("spec", {})
    return {taint["key"] for taint in spec.get("taints") or ()}


@pytest.mark.parametrize("fault", ["cut", "power"])
def test_disk_moves_when_its_node_is_lost_before_its_first_renewal(fault):
    async def story():
        world = await new_world()
        first = world.machines[1]
        async with world.living():
            await start_mute(world, ("web", "d1"), mute=[first])
            assert await world.node_of("web") == first.name
            if fault == "cut":
                first.cut = True
            else:
                first.lose_power()
            await asyncio.sleep(MOVED_S)
            second = await world.node_of("web")
            assert world.writers("d1", world.now() - 3) == {second} != {first.name}
            first.mute = False
            mend(first)
            await asyncio.sleep(20)
            assert world.writers("d1", world.now() - 3) == {second}
            assert await world.fencings() == []
            assert UNREACHABLE not in await taints_of(world, first.name)
        assert world.storage.violations == []

    run_virtually(story())


def test_disk_moves_by_a_server_that_begins_to_lead_after_the_node_was_lost():
    async def story():
        world = await new_world()
        first = world.machines[1]
        async with world.living():
            await start_mute(world, ("web", "d1"), mute=[first])
            first.cut = True
        async with world.living():
            await asyncio.sleep(MOVED_S)
            assert world.writers("d1", world.now() - 3) == {await world.node_of("web")}
            assert await world.node_of("web") != first.name
        assert world.storage.violations == []

    run_virtually(story())


def test_watchdog_proves_nothing_when_the_lease_of_its_node_was_deleted():
    async def story():
        world = await new_world(keyed=False, watchdog=True)
        async with world.living():
            (first,) = await start(world, ("web", "d1"))
            world.machine(first).cut = True
            await world.client.delete(LEASES, first, LEASE_NAMESPACE)
            await asyncio.sleep(600)
            assert await world.node_of("web") == first
            assert await condition_of(world, first) == "NoProof"
            why, remedy = world.failover.explain(first, world.disk("d1"))
            assert "no lease from which its time counts" in why
            assert remedy.endswith(f"volagent node confirm-off {first}")
        assert world.storage.violations == []

    run_virtually(story())


def test_nothing_is_taken_when_many_nodes_have_no_lease_at_once():
    async def story():
        world = await new_world(nodes=4)
        mute = world.machines[:2]
        async with world.living():
            await start_mute(world, ("web", "d1"), ("more", "d2"), mute=mute)
            nodes = [await world.node_of(name) for name in ("web", "more")]
            await asyncio.sleep(600)
            assert await world.fencings() == []
            assert {await condition_of(world, name) for name in nodes} == {"Held"}
            for disk, node in zip(("d1", "d2"), nodes, strict=True):
                assert world.writers(disk, world.now() - 3) == {node}
            for machine in mute:
                machine.mute = False
            await asyncio.sleep(30)
            assert [await condition_of(world, name) for name in nodes] == ["", ""]
        assert world.storage.violations == []

    run_virtually(story())


def test_node_that_was_only_declared_is_neither_lost_nor_fenced_and_says_why_it_keeps_a_disk():
    async def story():
        world = await new_world(hooks=True)
        await declare_nodes(world, 1)
        name, disk = f"{PLAN}00", world.disk("d1")
        async with world.living():
            await world.declare("web", node=name)
            await asyncio.sleep(600)
            (attachment,) = (await world.client.list(VOLUME_ATTACHMENTS)).items
            assert attachment["spec"]["nodeName"] == name
            assert await taints_of(world, name) == set()
            assert await world.fencings() == []
            assert await condition_of(world, name) == ""
            why, remedy = world.failover.explain(name, disk)
            assert "has told nothing since its Node was declared" in why
            assert remedy.endswith(f"volagent node confirm-off {name}")
        assert world.storage.violations == []

    run_virtually(story())


def test_nodes_that_were_only_declared_do_not_count_when_one_is_lost():
    async def story():
        world = await new_world()
        await declare_nodes(world, 10)
        async with world.living():
            (first,) = await start(world, ("web", "d1"))
            world.machine(first).lose_power()
            await asyncio.sleep(MOVED_S)
            assert world.writers("d1", world.now() - 3) == {await world.node_of("web")} != {first}
        assert world.storage.violations == []

    run_virtually(story())


def test_nodes_that_were_only_declared_do_not_make_many_silent_ones_look_few():
    async def story():
        world = await new_world(nodes=4)
        await declare_nodes(world, 20)
        async with world.living():
            (first,) = await start(world, ("web", "d1"))
            other = next(each for each in world.machines if each.name != first)
            world.machine(first).cut = other.cut = True
            await asyncio.sleep(100)
            assert await condition_of(world, first) == "Held"
            assert "2 of 4 nodes" in world.failover.explain(first, world.disk("d1"))[0]
            assert await world.fencings() == []
        assert world.storage.violations == []

    run_virtually(story())
