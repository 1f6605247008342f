"""Disks of a storage node: shown to who has them attached, hidden before another gets them."""

import asyncio
import random

import pytest

from tests.simulation.attachments import DRIVER
from tests.simulation.showing import STORAGE, ShowWorld
from tests.simulation.virtual_time import run_virtually
from volagent.client.contract import PODS, VOLUME_ATTACHMENTS
from volagent.drivers.errors import Transient
from volagent.objects.attachments import unique_name
from volagent.objects.storage_nodes import SHOW, SHOWN, SHOWN_AS, SHOWN_BY, chap_secret

DISK = unique_name(DRIVER, "d1")
SETTLED_S = 600.0
SEEDS_PER_BATCH = 4
BATCHES = 4


async def new_world(seed=0, **options):
    world = ShowWorld(random.Random(seed), **options)
    await world.bootstrap(["d1", "d2", "d3"])
    return world


def test_disk_is_shown_by_its_storage_node_and_hidden_when_its_pod_has_gone():
    async def story():
        world = await new_world()
        async with world.living():
            await world.declare("web", "node01", "d1")
            await asyncio.sleep(5)
            assert world.holders("d1") == {"node01"}
            attachment = (await world.attachments())[DISK]
            notes = attachment["metadata"]["annotations"]
            assert (notes[SHOW], notes[SHOWN_BY], notes[SHOWN_AS]) == (
                STORAGE, STORAGE, "d1 for all",
            )  # fmt: skip
            assert SHOWN in attachment["metadata"]["finalizers"]
            assert attachment["status"]["attachmentMetadata"]["shown-by"] == STORAGE
            assert await world.secrets() == [chap_secret("pv-d1", STORAGE)]

            await world.client.delete(PODS, "web", "default")
            await asyncio.sleep(5)
            assert await world.attachments() == {}
            assert world.storage.reach == {"d1": set()}
            assert await world.secrets() == []
        assert world.storage.violations == []

    run_virtually(story())


def test_disk_waits_for_a_storage_node_that_is_off():
    async def story():
        world = await new_world()
        world.storage_is_on = False
        async with world.living():
            await world.declare("web", "node01", "d1")
            await asyncio.sleep(60)
            assert world.holders("d1") == set()
            world.storage_is_on = True
            await asyncio.sleep(10)
            assert world.holders("d1") == {"node01"}

    run_virtually(story())


class Refusing:
    """A kernel that cannot show anything, for a while."""

    def __init__(self, storage):
        self._storage = storage
        self.asked = 0

    def __getattr__(self, name):
        return getattr(self._storage, name)

    async def show(self, name, peer):
        self.asked += 1
        raise Transient("there is no target", remedy="load the module")


def test_pod_is_told_once_what_stands_in_the_storage_nodes_way():
    async def story():
        world = await new_world()
        kernel, world.storage = world.storage, Refusing(world.storage)
        async with world.living():
            await world.declare("web", "node01", "d1")
            await asyncio.sleep(300)
            told = [text for reason, text in await world.told("web")
                    if reason == "FailedAttachVolume"]  # fmt: skip
            assert told == [
                'AttachVolume.Attach failed for volume "pv-d1" : storage node storage01: there is'
                " no target; load the module"
            ]
            attachment = (await world.attachments())[DISK]
            assert "there is no target" in attachment["status"]["attachError"]["message"]
            assert 3 < world.storage.asked < 40  # with growing pauses
        world.storage = kernel
        async with world.living():
            await asyncio.sleep(60)
            assert world.holders("d1") == {"node01"}

    run_virtually(story())


class Interrupted(Refusing):
    """A kernel that has hidden what it was to hide, when the first word of it is lost."""

    async def show(self, name, peer):
        return await self._storage.show(name, peer)

    async def hide(self, name, node):
        said = await self._storage.hide(name, node)
        self.asked += 1
        if self.asked == 1:
            raise Transient("it was interrupted")
        return said


def test_secret_goes_with_the_last_node_when_the_hiding_was_interrupted():
    async def story():
        world = await new_world()
        world.storage = Interrupted(world.storage)
        async with world.living():
            await world.declare("web", "node01", "d1")
            await asyncio.sleep(5)
            assert await world.secrets() == [chap_secret("pv-d1", STORAGE)]
            await world.client.delete(PODS, "web", "default")
            await asyncio.sleep(60)
            assert await world.attachments() == {}
            assert await world.secrets() == []

    run_virtually(story())


def test_disk_whose_attachment_was_removed_by_force_is_hidden():
    async def story():
        world = await new_world()
        async with world.living():
            await world.declare("web", "node01", "d1")
            await asyncio.sleep(5)
            world.storage.users.clear()  # the node is off, somebody knows
        attachment = (await world.attachments())[DISK]
        name = attachment["metadata"]["name"]
        bare = {"metadata": {"finalizers": None}}
        await world.client.delete(PODS, "web", "default", grace_period_seconds=0)
        await world.client.patch(VOLUME_ATTACHMENTS, name, bare)
        await world.client.delete(VOLUME_ATTACHMENTS, name)
        world.nodes.clear()
        async with world.living():
            await asyncio.sleep(60)
            assert world.storage.reach == {"d1": set()}

    run_virtually(story())


def test_secret_of_a_shared_disk_stays_while_it_goes_from_one_node_to_another():
    async def story():
        world = ShowWorld(random.Random(7))
        await world.bootstrap(["d1"], modes=("ReadOnlyMany",))
        async with world.living():
            await world.declare("p0", "node01", "d1")
            await asyncio.sleep(5)
            for turn in range(40):
                await world.client.delete(PODS, f"p{turn}", "default")
                await asyncio.sleep(turn / 40)
                node = f"node0{1 + (turn + 1) % 2}"
                await world.declare(f"p{turn + 1}", node, "d1")
                await asyncio.sleep(30)
                assert world.holders("d1") == {node}, turn
                assert await world.secrets() == [chap_secret("pv-d1", STORAGE)], turn

    run_virtually(story())


async def _live_through(seed):
    """Pods come and go while both processes die between any two writes; then all is quiet."""
    world = await new_world(seed, rate=0.1)
    chance = world.chance
    async with world.living(writes=60):
        for step in range(60):
            await asyncio.sleep(chance.random() * 5)
            pods = (await world.client.list(PODS)).items
            if pods and chance.random() < 0.5:
                await world.client.delete(PODS, chance.choice(pods)["metadata"]["name"], "default")
            else:
                node = chance.choice(world.nodes[:2])
                await world.declare(f"p{step}", node.name, f"d{chance.randrange(1, 3)}")
            assert world.storage.violations == [], f"seed {seed}: {world.storage.violations}"
            for disk, nodes in world.storage.reach.items():
                assert len(nodes) <= 1, f"seed {seed}: {disk} is shown to {nodes}"
    world.rate = world.storage.rate = 0.0
    async with world.living():
        await asyncio.sleep(SETTLED_S)
        for disk in ("d1", "d2", "d3"):
            assert world.storage.reach.get(disk, set()) == world.holders(disk), seed
        for each in (await world.client.list(PODS)).items:
            await world.client.delete(PODS, each["metadata"]["name"], "default")
        await asyncio.sleep(SETTLED_S)
        assert await world.attachments() == {}, seed
        assert not any(world.storage.reach.values()), seed
        assert await world.secrets() == [], seed
    assert world.storage.violations == [], f"seed {seed}: {world.storage.violations}"


@pytest.mark.parametrize("batch", range(BATCHES))
def test_no_disk_is_ever_shown_to_two_nodes_or_lost_by_its_own(batch):
    for seed in range(batch * SEEDS_PER_BATCH, (batch + 1) * SEEDS_PER_BATCH):
        run_virtually(_live_through(seed))
