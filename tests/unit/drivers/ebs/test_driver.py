"""The node's half against an API that takes its time: what is attached, found, and given back."""

import asyncio
import dataclasses

import msgspec
import pytest

from tests.simulation.fake_devices import FakeDevices
from tests.simulation.fake_ec2 import ZONE, FakeEc2, Lasting
from tests.simulation.fake_host import make_fake_host
from tests.simulation.fake_kernel import FakeKernel
from tests.simulation.virtual_time import VirtualClock, run_virtually
from volagent.drivers.contract import (
    DriverName,
    VolumeKey,
    VolumeSource,
    VolumeSpec,
)
from volagent.drivers.ebs.api import Ec2Error
from volagent.drivers.ebs.cloud import Cloud, EbsConfig
from volagent.drivers.ebs.driver import EbsDriver
from volagent.drivers.ebs.kept import EXPIRES
from volagent.drivers.ebs.names import link_of, serial_of
from volagent.drivers.ebs.volumes import EbsVolumes
from volagent.drivers.errors import Rejected, Transient, Uncertain
from volagent.host.contract import BlockDevice

GIB = 1 << 30
ME = "i-me"


class Killed(BaseException):
    """The agent dies here."""


class PluggedDevices(FakeDevices):
    """Shows the disks that the API has attached; `slow_s` after it says so, in the old size."""

    ec2: FakeEc2
    slow_s = 0.0
    seen_by = "serial"

    def disks(self):
        now = self.ec2.clock.monotonic()
        ready_s = self.ec2.lasting.attaching + self.slow_s
        for disk in self.ec2.there:
            self.ec2.state_of(disk)
            if disk.instance == ME and not disk.detaching and now - disk.changed_s >= ready_s:
                yield disk

    def _plug(self, disk) -> BlockDevice:
        image = f"/cloud/{disk.id}"
        if image not in self.kernel.disks:
            self.kernel.add_image(image, disk.size_gib * GIB)
        devices = {path: device for device, path in self.kernel.loops.items()}
        if image not in devices:
            number = next(self.kernel.loop_numbers)
            self.kernel.loops[f"/dev/loop{number}"] = image
            return self._plug(disk)
        return self._describe(devices[image])

    def find_disk(self, serial):
        for disk in self.disks():
            if serial_of(disk.id) == serial and self.seen_by == "serial":
                return self._plug(disk)
        return None

    def identify(self, path):
        for disk in self.disks():
            if path == f"/links/{link_of(disk.id)}" and self.seen_by == "link":
                return self._plug(disk)
            if path == disk.device and self.seen_by == "name":
                return dataclasses.replace(self._plug(disk), number="202:5")
        return super().identify(path)


class World:
    """A machine of the cloud, its driver, and one volume."""

    def __init__(self, lasting=None, **disk):
        clock = VirtualClock()
        self.ec2 = FakeEc2(clock, lasting or Lasting())
        self.kernel = FakeKernel()
        host = make_fake_host(self.kernel)
        self.devices = PluggedDevices(self.kernel)
        self.devices.ec2 = self.ec2
        self.host = dataclasses.replace(host, devices=self.devices)
        config = EbsConfig(
            cluster="vm1", region="us-east-1", zone=ZONE, instance_id=ME, device_links="/links"
        )
        self.driver = EbsDriver(self.host, Cloud(config, clock), EbsVolumes(self.ec2))
        self.disk = self.ec2.add(**disk)

    def spec(self, disk=None, **source):
        body = {"volumeID": (disk or self.disk).id, **source}
        given = VolumeSource("awsElasticBlockStore", body, GIB, persistent=True)
        options = self.driver.read_options(given)
        name = DriverName("kubernetes.io/aws-ebs")
        return VolumeSpec(VolumeKey("pv/pv-1"), name, "pv-1", options, capacity_bytes=GIB)


def on_world(lasting=None, **disk):
    """Run a test's coroutine with a world, on virtual time."""

    def decorate(test):
        def run():
            async def main():
                await test(World(lasting, **disk))

            run_virtually(main())

        run.__name__, run.__doc__ = test.__name__, test.__doc__
        return run

    return decorate


@on_world(Lasting(attaching=8, detaching=5))
async def test_disk_is_waited_for_and_given_back(world):
    held = (await world.driver.attach(world.spec())).device
    assert (held.handle, held.size_bytes) == (world.disk.id, GIB)
    assert world.disk.device == "/dev/xvdba"
    again = (await world.driver.attach(world.spec())).device
    assert again == held
    assert world.ec2.calls.count("AttachVolume") == 1
    await world.driver.detach("pv-1", held)
    assert world.disk.instance == ""
    await world.driver.detach("pv-1", held)
    assert world.ec2.calls.count("DetachVolume") == 1


@pytest.mark.parametrize("seen_by", ["link", "name"])
def test_disk_is_recognised_by_links_and_on_xen_by_its_name(seen_by):
    async def main():
        world = World()
        world.devices.seen_by = seen_by
        assert (await world.driver.attach(world.spec())).device.size_bytes == GIB

    run_virtually(main())


@on_world()
async def test_disk_that_the_kernel_does_not_show_leaves_it_uncertain(world):
    world.devices.slow_s = 1e9
    with pytest.raises(Uncertain, match="no disk of this machine"):
        await world.driver.attach(world.spec())
    world.devices.slow_s = 0.0
    await world.driver.attach(world.spec())


@on_world(Lasting(attaching=1e9))
async def test_attachment_that_never_ends_is_uncertain(world):
    with pytest.raises(Uncertain, match="still being attached"):
        await world.driver.attach(world.spec())


@on_world(Lasting(attaching=5))
async def test_failure_after_the_attachment_was_begun_is_uncertain(world):
    def mishap(when, action):
        if when == "before" and action == "DescribeVolumes" and world.disk.instance:
            raise Ec2Error(action, "RequestLimitExceeded", "slow down", 503)

    world.ec2.mishap = mishap
    with pytest.raises(Uncertain, match="may be attached"):
        await world.driver.attach(world.spec())


@on_world()
async def test_disk_that_cannot_be_looked_at_may_be_attached_by_an_attempt_before(world):
    def mishap(when, action):
        raise Ec2Error(action, "RequestLimitExceeded", "slow down", 503)

    world.ec2.mishap = mishap
    with pytest.raises(Uncertain, match="RequestLimitExceeded"):
        await world.driver.attach(world.spec())


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("moment", range(12))
def test_killed_in_between_the_disk_is_attached_once_and_given_back(when, moment):
    async def main():
        world = World(Lasting(attaching=2, detaching=2))
        left = [moment]

        def mishap(now, _action):
            if now == when:
                left[0] -= 1
                if left[0] == -1:
                    raise Killed

        async def persist(call):
            try:
                return await call()
            except Killed:
                return await call()

        world.ec2.mishap = mishap
        held = (await persist(lambda: world.driver.attach(world.spec()))).device
        assert world.disk.instance == ME
        await persist(lambda: world.driver.detach("pv-1", held))
        assert world.disk.instance == ""
        assert world.ec2.calls.count("AttachVolume") <= 1 + (when == "before")

    run_virtually(main())


@on_world()
async def test_failure_before_anything_was_asked_leaves_nothing(world):
    def mishap(when, action):
        if action in ("DescribeInstances", "AttachVolume"):
            raise Ec2Error(action, "UnauthorizedOperation", "no", 403)

    world.ec2.mishap = mishap
    with pytest.raises(Transient, match="UnauthorizedOperation"):
        await world.driver.attach(world.spec())
    assert world.disk.instance == ""


@on_world(Lasting(attaching=3))
async def test_two_disks_at_once_get_names_of_their_own(world):
    other = world.ec2.add()
    await asyncio.gather(world.driver.attach(world.spec()), world.driver.attach(world.spec(other)))
    assert {world.disk.device, other.device} == {"/dev/xvdba", "/dev/xvdbb"}


@on_world()
async def test_name_that_is_refused_is_not_tried_again(world):
    world.ec2.reserved = {"/dev/xvdba"}
    with pytest.raises(Transient, match="another name is tried"):
        await world.driver.attach(world.spec())
    await world.driver.attach(world.spec())
    assert world.disk.device == "/dev/xvdbb"


@on_world(zone="us-east-1b")
async def test_disk_of_another_zone_is_refused(world):
    with pytest.raises(Rejected, match="us-east-1b"):
        await world.driver.attach(world.spec())


@on_world(**{EXPIRES: "2026-02-01T00:00:00Z"})
async def test_disk_of_the_trash_is_not_attached(world):
    with pytest.raises(Rejected, match="in the trash"):
        await world.driver.attach(world.spec())


@on_world()
async def test_disk_of_another_machine_is_named_with_it(world):
    world.disk.instance, world.disk.device = "i-other", "/dev/sdf"
    with pytest.raises(Transient, match=r"Multi-Attach error.*i-other"):
        await world.driver.attach(world.spec())
    assert world.disk.instance == "i-other"


@on_world()
async def test_mounted_disk_is_not_detached(world):
    spec = world.spec()
    held = (await world.driver.attach(spec)).device
    await world.driver.prepare(spec, held)
    staged = (await world.driver.stage(spec, held, "/stage/pv-1")).mount
    with pytest.raises(Transient):
        await world.driver.detach("pv-1", held)
    assert world.disk.instance == ME
    assert "DetachVolume" not in world.ec2.calls
    await world.driver.unstage(staged)
    await world.driver.detach("pv-1", held)
    assert world.disk.instance == ""


@on_world()
async def test_disk_that_went_by_itself_is_detached(world):
    held = (await world.driver.attach(world.spec())).device
    world.disk.deleted = True
    await world.driver.detach("pv-1", held)
    world.disk.deleted, world.disk.instance = False, "i-other"
    await world.driver.detach("pv-1", held)
    assert world.disk.instance == "i-other"


@on_world(Lasting(detaching=1e9))
async def test_detachment_that_never_ends_is_uncertain(world):
    held = (await world.driver.attach(world.spec())).device
    with pytest.raises(Uncertain, match="still being detached"):
        await world.driver.detach("pv-1", held)


@on_world()
async def test_file_system_grows_once_the_kernel_has_the_size(world):
    spec = world.spec()
    held = (await world.driver.attach(spec)).device
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
    with pytest.raises(Uncertain, match="no partition 2"):
        await world.driver.attach(world.spec(partition=2))


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
