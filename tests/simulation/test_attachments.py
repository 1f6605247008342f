"""Which node has a disk: one at a time, whoever dies, and whatever is lost or late on the way."""

import asyncio
import contextlib
import random

import pytest

from tests.simulation.attachments import DRIVER, World
from tests.simulation.virtual_time import run_virtually
from volagent.aio.tasks import Supervisor
from volagent.client.contract import NODES, PODS, VOLUME_ATTACHMENTS
from volagent.objects.attachments import unique_name
from volagent.objects.pod import read_pod
from volagent.observe.metrics import REGISTRY

DISK = unique_name(DRIVER, "d1")
FORCED = "attachdetach_controller_forced_detaches_total"
SETTLED_S = 600.0
"""Beyond the longest pause of a storage that fails."""
SEEDS_PER_BATCH = 8
BATCHES = 4


async def new_world(seed=0, **options):
    world = World(random.Random(seed), **options)
    await world.bootstrap(["d1", "d2", "d3"])
    return world


def metric(name, **labels):
    return REGISTRY.get_sample_value(name, labels)


async def attached_lists(world):
    found = (await world.client.list(NODES)).items
    return {
        node["metadata"]["name"]: [
            each["name"] for each in node["status"].get("volumesAttached") or ()
        ]
        for node in found
    }


def test_disk_comes_to_its_pod_and_leaves_with_it():
    async def story():
        world = await new_world()
        async with world.living():
            await world.declare("web", "node01", "d1")
            await asyncio.sleep(5)
            assert world.holders("d1") == {"node01"}
            attachment = (await world.attachments())[DISK]
            assert attachment["spec"]["nodeName"] == "node01"
            assert attachment["spec"]["source"] == {"persistentVolumeName": "pv-d1"}
            assert attachment["status"]["attached"] is True
            assert attachment["status"]["attachmentMetadata"] == {"lun": "7"}
            assert (await attached_lists(world))["node01"] == [DISK]
            told = ("SuccessfulAttachVolume", 'AttachVolume.Attach succeeded for volume "pv-d1"')
            assert told in await world.told("web")

            await world.client.delete(PODS, "web", "default")
            await asyncio.sleep(5)
            assert await world.attachments() == {}
            assert (await attached_lists(world))["node01"] == []
            assert world.storage.reach == {"d1": set()}
        assert world.storage.violations == []

    run_virtually(story())


def test_metrics_count_disks_by_plugin_and_node():
    total, plugin = "attachdetach_controller_total_volumes", {"plugin_name": DRIVER}
    in_use = "storage_count_attachable_volumes_in_use"

    def numbers():
        return (
            metric(total, **plugin, state="desired_state_of_world"),
            metric(total, **plugin, state="actual_state_of_world"),
            metric(in_use, node="node01", volume_plugin=DRIVER),
        )

    async def story():
        world = await new_world()
        async with world.living():
            await world.declare("web", "node01", "d1")
            await world.declare("more", "node01", "d2")
            await asyncio.sleep(5)
            assert numbers() == (2, 2, 2)
            await world.client.delete(PODS, "web", "default")
            await asyncio.sleep(5)
            assert numbers() == (1, 1, 1)
        assert numbers() == (None, None, None)

    run_virtually(story())


def test_second_pod_waits_with_the_names_of_those_who_have_the_disk():
    async def story():
        world = await new_world()
        async with world.living():
            await world.declare("first", "node01", "d1")
            await asyncio.sleep(5)
            await world.declare("second", "node02", "d1")
            await asyncio.sleep(5)
            text = (
                'Multi-Attach error for volume "pv-d1" Volume is already used by pod(s) first'
                " (on node node01)"
            )
            assert ("FailedAttachVolume", text) in await world.told("second")
            second = await world.client.get(PODS, "second", "default")
            assert dict(world.controller.explain(read_pod(second))) == {"data": (text, "")}
            await world.client.delete(PODS, "first", "default")
            await asyncio.sleep(10)
            assert world.holders("d1") == {"node02"}
        assert world.storage.violations == []

    run_virtually(story())


def test_nothing_is_taken_from_a_silent_node_until_it_is_known_to_be_off():
    async def story():
        world = await new_world()
        silent = world.nodes.pop(0)
        async with world.living():
            agent = asyncio.ensure_future(_run_for(silent, 20))
            await world.declare("first", "node01", "d1")
            await agent
            assert silent.held == {"d1"}
            await world.client.delete(PODS, "first", "default", grace_period_seconds=0)
            await world.declare("second", "node02", "d1")
            await asyncio.sleep(3600)
            assert world.holders("d1") == set()
            attachment = (await world.attachments())[DISK]
            assert attachment["spec"]["nodeName"] == "node01"

            world.storage.dead.add("node01")
            taint = {"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}
            await world.client.patch(NODES, "node01", {"spec": {"taints": [taint]}})
            await asyncio.sleep(10)
            assert world.holders("d1") == set()  # its agent is not known to be silent
            ready = {"type": "Ready", "status": "Unknown"}
            change = {"status": {"conditions": [ready]}}
            await world.client.patch(NODES, "node01", change, subresource="status")
            await asyncio.sleep(10)
            assert world.holders("d1") == {"node02"}
            assert metric(FORCED, reason="out-of-service") == 1
        assert world.storage.violations == []

    async def _run_for(node, seconds):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds), Supervisor() as tasks:
                await node.run(tasks, rate=0)

    run_virtually(story())


def test_attachment_that_the_storage_lost_is_made_again():
    async def story():
        world = await new_world()
        async with world.living():
            await world.declare("web", "node01", "d1")
            await asyncio.sleep(5)
            world.storage.reach["d1"].clear()
            await asyncio.sleep(70)
            assert world.storage.reach["d1"] == {"node01"}
            assert (await world.attachments())[DISK]["status"]["attached"] is True

    run_virtually(story())


def test_disk_that_only_a_node_lists_belongs_to_that_node():
    """Somebody removed the attachment by force: nobody else gets the disk for that."""

    async def story():
        world = await new_world()
        async with world.living():
            await world.declare("first", "node01", "d1")
            await asyncio.sleep(5)
            name = (await world.attachments())[DISK]["metadata"]["name"]
            await world.client.delete(PODS, "first", "default")
            change = {"metadata": {"finalizers": None}}
            await world.client.patch(VOLUME_ATTACHMENTS, name, change)
            await world.client.delete(VOLUME_ATTACHMENTS, name)
            await world.declare("second", "node02", "d1")
            await asyncio.sleep(10)
            assert world.holders("d1") == {"node02"}
        assert world.storage.violations == []

    run_virtually(story())


@pytest.mark.parametrize("writes", range(1, 16))
def test_pod_moves_whenever_the_controller_was_killed(writes):
    async def story():
        world = await new_world()
        async with world.living(writes=writes):
            await world.declare("first", "node01", "d1")
            await asyncio.sleep(20)
            await world.client.delete(PODS, "first", "default")
            await world.declare("second", "node02", "d1")
            await asyncio.sleep(40)
            if writes > 1:
                assert world.holders("d1") == {"node02"}
        assert world.storage.violations == []

    run_virtually(story())


def test_readers_share_a_disk_on_several_nodes():
    async def story():
        world = World(random.Random(0))
        await world.bootstrap(["d1"], modes=("ReadOnlyMany",))
        async with world.living():
            for node in world.nodes:
                await world.declare(f"on-{node.name}", node.name, "d1")
            await asyncio.sleep(5)
            assert world.holders("d1") == {"node01", "node02", "node03"}
            assert len((await world.client.list(VOLUME_ATTACHMENTS)).items) == 3
        assert world.storage.violations == []

    run_virtually(story())


async def _live_through(seed):
    """Pods come and go at random, while everything fails now and then; then all is quiet."""
    world = await new_world(seed, rate=0.1)
    chance = world.chance
    async with world.living(writes=60):
        for step in range(60):
            await asyncio.sleep(chance.random() * 5)
            pods = (await world.client.list(PODS)).items
            if pods and chance.random() < 0.5:
                await world.client.delete(PODS, chance.choice(pods)["metadata"]["name"], "default")
            else:
                # Few disks and nodes: who loses a disk often wants it back at once.
                node = chance.choice(world.nodes[:2])
                await world.declare(f"p{step}", node.name, f"d{chance.randrange(1, 3)}")
            assert world.storage.violations == [], f"seed {seed}: {world.storage.violations}"
    world.rate = world.storage.rate = 0.0
    async with world.living():
        await asyncio.sleep(SETTLED_S)
        await _check_settled(world, seed)
        for each in (await world.client.list(PODS)).items:
            await world.client.delete(PODS, each["metadata"]["name"], "default")
        await asyncio.sleep(SETTLED_S)
        assert await world.attachments() == {}, seed
        assert not any((await attached_lists(world)).values()), seed
        assert not any(world.storage.reach.values()), seed
    assert world.storage.violations == [], f"seed {seed}: {world.storage.violations}"


async def _check_settled(world, seed):
    """Every disk that somebody wants is with one of those who want it."""
    wanted = {}
    for each in (await world.client.list(PODS)).items:
        disk = each["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"]
        wanted.setdefault(disk, set()).add(each["spec"]["nodeName"])
    for disk in ("d1", "d2", "d3"):
        holders = world.holders(disk)
        assert holders <= wanted.get(disk, set()), f"seed {seed}: {disk} is with {holders}"
        assert len(holders) == (1 if disk in wanted else 0), f"seed {seed}: {disk}: {holders}"


@pytest.mark.parametrize("batch", range(BATCHES))
def test_no_disk_is_ever_with_two_nodes_or_lost_by_its_own(batch):
    for seed in range(batch * SEEDS_PER_BATCH, (batch + 1) * SEEDS_PER_BATCH):
        run_virtually(_live_through(seed))
