"""An iSCSI disk from nothing to a pod's directory and back, interrupted at every moment.

The initiator is a fake over image files (the real one needs a storage array: `tests/cluster`); the
mounts, the file system and the devices are the world's.
"""

from pathlib import Path

import pytest

from tests.contract.drivers.test_device_life import MIB, Life
from tests.contract.drivers.worlds import FakeWorld, Killed, RealWorld, find_standing, interrupt
from tests.loop_leftovers import give_back, owned_directory
from tests.simulation.fake_initiator import FakeInitiator
from volagent.drivers.contract import Discards, VolumeSource
from volagent.drivers.iscsi.driver import ISCSI, IscsiDriver


class Lun(Life):
    """A disk that the fake initiator finds behind a number."""

    def declare(self):
        self.driver_name = ISCSI
        self.world.host.trees.ensure_dir(self.image_dir, mode=0o700)
        body = {"targetPortal": "10.0.0.5", "iqn": "iqn.2026-01.lab:array", "lun": 1}
        self.source = VolumeSource("iscsi", body, 32 * MIB, persistent=True)

    async def make(self):
        path = f"{self.image_dir}/1.img"
        await self.world.host.devices.create_image(path, size_bytes=32 * MIB)
        return self

    def driver(self, host=None):
        host = host or self.world.host
        self.initiator = FakeInitiator(host, self.image_dir)
        return IscsiDriver(host, self.initiator)

    async def discard(self):
        """Cut off first, then taken down."""
        driver = self.driver()
        assert isinstance(driver, Discards)
        for _ in range(2):
            await driver.cut(self.device)
        await driver.unpublish(self.published)
        await driver.unstage(self.staged)
        for _ in range(2):
            await driver.discard("pv-data", self.device)


@pytest.fixture
async def life(world):
    yield await Lun(world).make()
    if isinstance(world, RealWorld):
        give_back(owned_directory(Path(world.root)))


async def test_disk_stands_when_set_up_and_is_gone_when_taken_down(life):
    await life.set_up()
    life.stands()
    life.world.write(f"{life.target}/data", b"precious")
    await life.set_up()
    life.stands()
    await life.take_down()
    life.is_gone()
    await life.take_down()
    await life.set_up()
    assert life.world.files(life.target) == {"data": b"precious"}
    await life.take_down()
    life.is_gone()


async def test_set_up_converges_when_killed_at_any_moment(life):
    moments = 0
    while True:
        try:
            await life.set_up(interrupt(life.world.host, moments))
            break
        except Killed:
            moments += 1
        await life.set_up()
        life.stands()
        life.world.write(f"{life.target}/data-{moments}", b"x")
        await life.take_down()
        life.is_gone()
    assert moments >= 8
    written = life.world.files(life.target)
    assert written == {f"data-{moment}": b"x" for moment in range(1, moments + 1)}
    if isinstance(life.world, FakeWorld):
        (disk,) = life.world.kernel.disks.values()
        assert disk.formats == 1
    await life.take_down()
    life.is_gone()


async def test_tear_down_converges_when_killed_at_any_moment(life):
    driver = life.driver()
    for moments in range(100):
        await life.set_up()
        try:
            await life.take_down(interrupt(life.world.host, moments))
            break
        except Killed:
            await driver.unpublish(find_standing(life.world, life.target))
            await life.take_down()
            life.is_gone()
    assert moments >= 4
    life.is_gone()


async def test_disk_is_gone_unwritten_and_can_be_set_up_again_when_it_was_discarded(life):
    await life.set_up()
    life.stands()
    await life.discard()
    life.is_gone()
    assert life.initiator.written_out == []
    await life.set_up()
    life.stands()
    await life.take_down()
    life.is_gone()
