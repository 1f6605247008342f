"""The node's half: what the server has had attached is found, mounted, grown and given up."""

import msgspec
import pytest

from tests.simulation.fake_ec2 import Lasting
from tests.simulation.virtual_time import run_virtually
from tests.unit.drivers.ebs.machine import GIB, ME, World, on_world
from volagent.drivers.contract import VolumeSource
from volagent.drivers.errors import Rejected, Transient, Uncertain


@on_world(Lasting(attaching=8, detaching=5))
async def test_disk_is_waited_for_and_given_back(world):
    held = await world.attach()
    assert (held.handle, held.size_bytes) == (world.disk.id, GIB)
    assert await world.attach() == held
    assert world.ec2.calls.count("AttachVolume") == 1
    await world.detach(held)
    assert world.disk.instance == ""
    await world.detach(held)
    assert world.ec2.calls.count("DetachVolume") == 1


@on_world()
async def test_node_asks_the_api_nothing(world):
    held = await world.attach()
    world.ec2.calls.clear()
    await world.driver.attach(world.spec())
    await world.driver.detach("pv-1", held)
    assert world.ec2.calls == []
    assert world.disk.instance == ME


@pytest.mark.parametrize("seen_by", ["link", "name"])
def test_disk_is_recognised_by_links_and_on_xen_by_its_name(seen_by):
    async def main():
        world = World()
        world.devices.seen_by = seen_by
        assert (await world.attach()).size_bytes == GIB

    run_virtually(main())


@on_world()
async def test_disk_that_the_kernel_does_not_show_leaves_it_uncertain(world):
    world.devices.slow_s = 1e9
    with pytest.raises(Uncertain, match="no disk of this machine"):
        await world.attach()
    world.devices.slow_s = 0.0
    await world.attach()


@on_world()
async def test_mounted_disk_is_not_given_up(world):
    spec = world.spec()
    held = await world.attach()
    await world.driver.prepare(spec, held)
    staged = (await world.driver.stage(spec, held, "/stage/pv-1")).mount
    with pytest.raises(Transient):
        await world.detach(held)
    assert world.disk.instance == ME
    assert "DetachVolume" not in world.ec2.calls
    await world.driver.unstage(staged)
    await world.detach(held)
    assert world.disk.instance == ""


@on_world()
async def test_disk_that_went_by_itself_is_given_up(world):
    held = await world.attach()
    world.disk.deleted = True
    done = await world.driver.detach("pv-1", held)
    assert "written out" in done.evidence or "not there" in done.evidence


@on_world()
async def test_file_system_grows_once_the_kernel_has_the_size(world):
    spec = world.spec()
    held = await world.attach()
    await world.driver.prepare(spec, held)
    staged = (await world.driver.stage(spec, held, "/stage/pv-1")).mount
    grown = msgspec.structs.replace(spec, capacity_bytes=2 * GIB)
    with pytest.raises(Transient, match="new size"):
        await world.driver.expand(grown, held, staged)
    world.kernel.disks[f"/cloud/{world.disk.id}"].size = 2 * GIB
    done = await world.driver.expand(grown, held, staged)
    assert done.evidence == "grown to its device"


@on_world()
async def test_missing_partition_is_named(world):
    with pytest.raises(Transient, match="no partition 2"):
        await world.attach(world.spec(partition=2))


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({"volumeID": "disk"}, "volumeID"),
        ({"volumeID": "vol-0001", "partition": -1}, "partition"),
        ({"volumeID": "vol-0001", "colour": "red"}, "colour"), ({}, "volumeID"),
    ],
)  # fmt: skip
def test_source_is_read_strictly(body, word):
    with pytest.raises(Rejected, match=word):
        World().driver.read_options(VolumeSource("awsElasticBlockStore", body))
