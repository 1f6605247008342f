"""EBS disks, server and nodes apart: the real attacher over an API whose calls fail and last.

The oracle is the cloud: it sees at which instance a disk is when a node uses it, and who uses it
when it is asked to detach it.
"""

import asyncio
import random

import pytest

from tests.simulation.attachments import World
from tests.simulation.fake_ec2 import ZONE, FakeEc2, Lasting
from tests.simulation.virtual_time import run_virtually
from volagent.client.contract import NODES, PERSISTENT_VOLUMES, PODS
from volagent.drivers.ebs.api import Ec2Error
from volagent.drivers.ebs.attacher import EbsAttacher
from volagent.drivers.ebs.calls import AttachCalls
from volagent.drivers.ebs.names import format_provider_id
from volagent.drivers.ebs.provisioner import EBS
from volagent.drivers.ebs.volumes import EbsVolumes
from volagent.drivers.errors import Uncertain
from volagent.node.register import NodeExtras, Whereabouts

SETTLED_S = 900.0
"""Beyond the longest pause of a storage that fails, and one attachment that takes its time."""
SEEDS = 6


def instance_of(node):
    return f"i-{node}"


class Watched(FakeEc2):
    """Looks who uses a disk that is to be detached."""

    users: dict
    violations: list

    def _DetachVolume(self, parameters):
        disk, instance = parameters["VolumeId"], parameters["InstanceId"]
        for node in self.users.get(disk, ()):
            if instance_of(node) == instance:
                self.violations.append(f"{disk} is detached from {node}, which uses it")
        return super()._DetachVolume(parameters)


class Cloud:
    """The cloud as the storage of a simulated cluster."""

    def __init__(self, world, lasting):
        self.chance, self.rate = world.chance, world.rate
        self.users, self.violations = {}, []
        self.ec2 = Watched(world.clock, lasting)
        self.ec2.users, self.ec2.violations = self.users, self.violations
        self.ec2.mishap = self._mishap

    def use(self, disk, node):
        found = self.ec2.disks[disk]
        self.ec2.state_of(found)
        there = found.instance == instance_of(node) and not found.detaching
        if not there or self.ec2.attachment_state(found) != "attached":
            self.violations.append(f"{node} uses {disk}, which is at {found.instance!r}")
        users = self.users.setdefault(disk, set())
        if users - {node}:
            self.violations.append(f"{node} uses {disk} besides {users}")
        users.add(node)

    def give_up(self, disk, node):
        self.users.get(disk, set()).discard(node)

    def _mishap(self, when, action):
        draw = self.chance.random()
        if when == "before" and draw < self.rate:
            raise Ec2Error(action, "RequestLimitExceeded", "slow down", 503)
        if when == "after" and draw < self.rate:
            raise Uncertain(f"{action}: no answer")


class EbsCluster:
    """Which disks the cluster has: EBS volumes."""

    driver = EBS

    def __init__(self, lasting):
        self.lasting = lasting

    def make_storage(self, world):
        return Cloud(world, self.lasting)

    def make_attachers(self, world, copies):
        volumes = EbsVolumes(world.storage.ec2)

        def find_provider_id(node):
            found = copies.nodes.get("", node)
            return found.spec.provider_id if found is not None else ""

        return {EBS: EbsAttacher(volumes, AttachCalls(volumes), find_provider_id)}

    def source_of(self, disk):
        return {"awsElasticBlockStore": {"volumeID": f"aws://{ZONE}/{disk}"}}

    def extras_of(self, node):
        async def fetch():
            return Whereabouts({}, format_provider_id(instance_of(node), ZONE))

        return NodeExtras(fetch)


async def new_world(seed=0, *, lasting=None, rate=0.0):
    cluster = EbsCluster(lasting or Lasting(attaching=3, detaching=4))
    world = World(random.Random(seed), rate=rate, cluster=cluster)
    disks = [world.storage.ec2.add().id for _ in range(3)]
    await world.bootstrap(disks)
    return world, disks


def where(world, disk):
    found = world.storage.ec2.disks[disk]
    world.storage.ec2.state_of(found)
    return found.instance


def test_disk_is_attached_by_the_server_and_follows_its_pod():
    async def story():
        world, (disk, *_) = await new_world()
        async with world.living():
            await world.declare("web", "node01", disk)
            await asyncio.sleep(30)
            assert world.holders(disk) == {"node01"}
            node = await world.client.get(NODES, "node01")
            (listed,) = node["status"]["volumesAttached"]
            assert listed == {"name": world.name_of(disk), "devicePath": "/dev/xvdba"}
            assert node["spec"]["providerID"] == f"aws:///{ZONE}/i-node01"
            await world.client.delete(PODS, "web", "default")
            await world.declare("again", "node02", disk)
            await asyncio.sleep(60)
            assert world.holders(disk) == {"node02"}
            assert where(world, disk) == "i-node02"
        assert world.storage.violations == []

    run_virtually(story())


def test_disk_is_detached_though_its_volume_is_deleted_already():
    async def story():
        world, (disk, *_) = await new_world()
        async with world.living():
            await world.declare("web", "node01", disk)
            await asyncio.sleep(30)
            await world.client.delete(PERSISTENT_VOLUMES, f"pv-{disk}")
            await world.client.patch(
                PERSISTENT_VOLUMES, f"pv-{disk}", {"metadata": {"finalizers": None}}
            )
            await world.client.delete(PODS, "web", "default")
            await asyncio.sleep(60)
            assert where(world, disk) == ""
            assert await world.attachments() == {}

    run_virtually(story())


def test_attachment_that_somebody_undid_is_made_again():
    async def story():
        world, (disk, *_) = await new_world()
        async with world.living():
            await world.declare("web", "node01", disk)
            await asyncio.sleep(30)
            world.storage.ec2.disks[disk].instance = ""
            await asyncio.sleep(90)
            assert where(world, disk) == "i-node01"

    run_virtually(story())


async def _live_through(seed):
    """Pods come and go while calls and processes fail; then all is quiet."""
    world, disks = await new_world(seed, rate=0.1)
    chance = world.chance
    async with world.living(writes=60):
        for step in range(40):
            await asyncio.sleep(chance.random() * 20)
            pods = (await world.client.list(PODS)).items
            if pods and chance.random() < 0.5:
                await world.client.delete(PODS, chance.choice(pods)["metadata"]["name"], "default")
            else:
                await world.declare(
                    f"p{step}", chance.choice(world.nodes[:2]).name, disks[step % 2]
                )
            assert world.storage.violations == [], f"seed {seed}: {world.storage.violations}"
    world.rate = world.storage.rate = 0.0
    async with world.living():
        await asyncio.sleep(SETTLED_S)
        wanted = {}
        for each in (await world.client.list(PODS)).items:
            claim = each["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"]
            wanted.setdefault(claim, set()).add(each["spec"]["nodeName"])
            await world.client.delete(PODS, each["metadata"]["name"], "default")
        for disk in disks:
            assert world.holders(disk) <= wanted.get(disk, set()), seed
            assert len(world.holders(disk)) == (1 if disk in wanted else 0), seed
        await asyncio.sleep(SETTLED_S)
        assert await world.attachments() == {}, seed
        assert [where(world, disk) for disk in disks] == ["", "", ""], seed
    assert world.storage.violations == [], f"seed {seed}: {world.storage.violations}"


@pytest.mark.parametrize("seed", range(SEEDS))
def test_no_disk_is_used_where_it_is_not_or_left_attached(seed):
    run_virtually(_live_through(seed))
