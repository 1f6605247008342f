"""A machine of the cloud on virtual time: its disks, its driver, and the server's attacher."""

import dataclasses

import msgspec

from tests.simulation.fake_devices import FakeDevices
from tests.simulation.fake_ec2 import ZONE, FakeEc2, Lasting
from tests.simulation.fake_host import make_fake_host
from tests.simulation.fake_kernel import FakeKernel
from tests.simulation.virtual_time import VirtualClock, run_virtually
from volagent.drivers.attaching.contract import Placed
from volagent.drivers.contract import DriverName, VolumeKey, VolumeSource, VolumeSpec
from volagent.drivers.ebs.attacher import EbsAttacher
from volagent.drivers.ebs.calls import AttachCalls
from volagent.drivers.ebs.driver import EbsDriver
from volagent.drivers.ebs.names import link_of, serial_of
from volagent.drivers.ebs.volumes import EbsVolumes
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
        self.driver = EbsDriver(self.host, "/links")
        volumes = EbsVolumes(self.ec2)
        self.machines = {"vm1": f"aws:///{ZONE}/{ME}", "vm2": f"aws:///{ZONE}/i-you"}
        self.attacher = EbsAttacher(
            volumes, AttachCalls(volumes), lambda node: self.machines.get(node, "")
        )
        self.disk = self.ec2.add(**disk)

    def spec(self, disk=None, **source):
        body = {"volumeID": (disk or self.disk).id, **source}
        given = VolumeSource("awsElasticBlockStore", body, GIB, persistent=True)
        options = self.driver.read_options(given)
        name = DriverName("kubernetes.io/aws-ebs")
        return VolumeSpec(VolumeKey("pv/pv-1"), name, "pv-1", options, capacity_bytes=GIB)

    def placed(self, disk=None, node="vm1", facts=None):
        return Placed((disk or self.disk).id, node, None, facts or {})

    async def attach(self, spec=None):
        """As the server and the node do it together; what the node holds then."""
        spec = spec or self.spec()
        facts = await self.attacher.attach(Placed(spec.options.volume_id, "vm1"))
        spec = msgspec.structs.replace(spec, device_path=facts["devicePath"])
        return (await self.driver.attach(spec)).device

    async def detach(self, held):
        await self.driver.detach("pv-1", held)
        await self.attacher.detach(Placed(held.handle, "vm1"))


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
