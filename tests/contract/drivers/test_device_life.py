"""Volumes with a device, from nothing to a pod's directory and back: image files and `local`.

Judged by looking at the world. Every set-up and tear-down is interrupted at every moment and done
again; nothing may be formatted twice, stacked, lost or left.
"""

from pathlib import Path

import pytest

from tests.contract.drivers.worlds import FakeWorld, Killed, RealWorld, find_standing, interrupt
from tests.loop_leftovers import give_back, owned_directory
from volagent.drivers import make_drivers
from volagent.drivers.contract import (
    Attaches,
    DriverName,
    Expands,
    HeldMount,
    Phase,
    Prepares,
    Publication,
    Publishes,
    Stages,
    VolumeKey,
    VolumeMode,
    VolumeSource,
    VolumeSpec,
)
from volagent.drivers.errors import Rejected, Transient
from volagent.drivers.layout import Layout
from volagent.objects.meta import PodUid

UID = PodUid("0f8fad5b-d9cb-469f-a165-70867728950e")
MIB = 1 << 20
IMAGE = DriverName("image.volagent.dev")
LOCAL = DriverName("kubernetes.io/local-volume")
KEY = VolumeKey("pv/pv-data")


class Life:
    """One volume, taken through its phases as the node does it."""

    def __init__(self, world, *, mode=VolumeMode.FILESYSTEM):
        self.world = world
        self.image_dir = str(owned_directory(Path(world.root)))
        self.mode = mode
        layout = Layout(world.root)
        self.block = mode is VolumeMode.BLOCK
        self.declare()
        self.stage_path = layout.csi_stage(IMAGE, "data")
        self.target = (
            layout.block_link(UID, DriverName("kubernetes.io/csi"), "pv-data")
            if self.block
            else layout.csi_volume(UID, "pv-data")
        )

    def declare(self):
        self.driver_name = IMAGE
        world = self.world
        world.host.trees.ensure_dir(self.image_dir, mode=0o700)
        body = {"driver": IMAGE, "volumeHandle": "data", "fsType": "ext4"}
        self.source = VolumeSource("csi", body, 32 * MIB, persistent=True)

    def driver(self, host=None):
        return make_drivers(
            host or self.world.host,
            Layout(self.world.root),
            image_dir=self.image_dir,
            nfs_mount_timeout_s=30,
            nfs_unmount_timeout_s=30,
        )[self.driver_name]

    def volume(self, driver):
        options = driver.read_options(self.source)
        return VolumeSpec(
            KEY, driver.name, "pv-data", options, mode=self.mode,
            capacity_bytes=self.source.capacity_bytes,
        )  # fmt: skip

    async def set_up(self, host=None):
        driver = self.driver(host)
        volume = self.volume(driver)
        use = Publication(UID, "shop/web", self.target)
        self.device = (await driver.attach(volume)).device
        staged = None
        if not self.block:
            await driver.prepare(volume, self.device)
            self.staged = (await driver.stage(volume, self.device, self.stage_path)).mount
            staged = self.staged
        done = await driver.publish(volume, use, staged=staged, device=self.device)
        self.published = done.mount
        return done

    async def take_down(self, host=None):
        driver = self.driver(host)
        await driver.unpublish(self.published)
        if not self.block:
            await driver.unstage(self.staged)
        await driver.detach("pv-data", self.device)

    def stands(self):
        assert self.world.mounts_at(self.target) == 1
        assert self.world.mounts_at(self.stage_path) == 1

    def is_gone(self):
        world = self.world
        for path in (self.target, self.stage_path):
            assert world.mounts_at(path) == 0
            assert not world.exists(path)
        assert not world.exists(self.target.rpartition("/")[0])
        loops = world.host.devices.find_loops().values()
        assert all(loop.identity != self.device.identity for loop in loops)


class LocalDirectory(Life):
    """The same for a directory of the machine."""

    def declare(self):
        self.driver_name = LOCAL
        self.directory = f"{self.world.root}/disks/ssd"
        self.world.host.trees.ensure_dir(self.directory, mode=0o755)
        body = {"path": self.directory}
        self.source = VolumeSource("local", body, 32 * MIB, persistent=True)

    def stands(self):
        assert self.world.mounts_at(self.target) == 1
        assert self.world.mounts_at(self.stage_path) == 0

    def is_gone(self):
        super().is_gone()
        assert self.world.exists(self.directory)


@pytest.fixture(autouse=True)
def _no_devices_left(request):
    """A failed test's devices are given back, so that the others are judged by themselves."""
    world = request.getfixturevalue("world") if "world" in request.fixturenames else None
    yield
    if isinstance(world, RealWorld):
        give_back(owned_directory(Path(world.root)))


LIVES = {"image": Life, "local": LocalDirectory}


@pytest.fixture(params=LIVES)
def life(world, request):
    return LIVES[request.param](world)


async def test_volume_stands_when_set_up_and_is_gone_when_taken_down(life):
    done = await life.set_up()
    life.stands()
    assert done.evidence
    await life.take_down()
    life.is_gone()


async def test_data_is_there_again_when_the_volume_comes_back(life):
    await life.set_up()
    life.world.write(f"{life.target}/data", b"precious")
    await life.take_down()
    life.is_gone()
    await life.set_up()
    assert life.world.files(life.target) == {"data": b"precious"}
    await life.take_down()
    life.is_gone()


async def test_setting_up_again_changes_nothing(life):
    await life.set_up()
    held = (life.device, life.staged, life.published)
    await life.set_up()
    assert (life.device, life.staged, life.published) == held
    life.stands()
    await life.take_down()
    life.is_gone()


async def test_taking_down_again_succeeds(life):
    await life.set_up()
    await life.take_down()
    await life.take_down()
    life.published, life.staged = HeldMount(life.target), HeldMount(life.stage_path)
    await life.take_down()
    life.is_gone()


async def test_publication_is_mounted_again_when_somebody_unmounted_it(life):
    await life.set_up()
    life.world.unmount_by_hand(life.target)
    await life.set_up()
    life.stands()
    await life.take_down()
    life.is_gone()


async def test_nothing_is_stacked_when_another_file_system_covers_the_publication(life):
    await life.set_up()
    uncover = life.world.cover(life.target)
    with pytest.raises(Transient, match="is covered by a mount of") as caught:
        await life.set_up()
    assert "umount" in caught.value.remedy
    uncover()
    life.stands()
    await life.take_down()
    life.is_gone()


async def test_holder_is_named_when_the_publication_is_busy(life):
    await life.set_up()
    release = life.world.hold(life.target)
    with pytest.raises(Transient, match=r"EBUSY.*held by pid \d+") as caught:
        await life.take_down()
    assert caught.value.reason == "FailedUnMount"
    life.stands()
    release()
    await life.take_down()
    life.is_gone()


async def test_what_somebody_wrote_below_is_left_when_taken_down(life):
    await life.set_up()
    life.world.unmount_by_hand(life.target)
    life.world.write(f"{life.target}/stray", b"x")
    with pytest.raises(Transient, match="somebody wrote there"):
        await life.take_down()
    assert life.world.files(life.target) == {"stray": b"x"}
    driver = life.driver()
    await driver.unstage(life.staged)
    await driver.detach("pv-data", life.device)


async def test_read_only_use_cannot_write_while_another_can(world):
    life = Life(world)
    await life.set_up()
    driver = life.driver()
    target = Layout(world.root).csi_volume(PodUid("11111111"), "pv-data")
    use = Publication(UID, "shop/reader", target, read_only=True)
    done = await driver.publish(life.volume(driver), use, staged=life.staged, device=life.device)
    assert "read-only" in done.evidence
    standing = world.host.mounts.find_mount_at(target)
    assert "ro" in standing.options
    world.write(f"{life.target}/data", b"x")
    assert world.files(target) == {"data": b"x"}
    await driver.unpublish(done.mount)
    await life.take_down()
    life.is_gone()


# -- raw devices ----------------------------------------------------------------------------


async def test_raw_device_is_linked_and_neither_formatted_nor_mounted(world):
    life = Life(world, mode=VolumeMode.BLOCK)
    assert life.driver().phases(life.volume(life.driver()).options, VolumeMode.BLOCK) == (
        Phase.ATTACH,
        Phase.PUBLISH,
    )
    done = await life.set_up()
    assert life.device.path in done.evidence
    assert world.exists(life.target)
    assert world.mounts_at(life.target) == 0
    assert (await world.host.devices.probe(life.device.path)).blank
    assert await life.set_up() == done
    await life.take_down()
    assert not world.exists(life.target)
    assert life.device.path not in world.host.devices.find_loops()
    await life.take_down()


# -- interruptions --------------------------------------------------------------------------


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
    life.stands()
    written = life.world.files(life.target)
    assert written == {f"data-{moment}": b"x" for moment in range(1, moments + 1)}
    if isinstance(life.world, FakeWorld) and life.world.kernel.disks:
        (disk,) = life.world.kernel.disks.values()
        assert disk.formats == 1
    await life.take_down()
    life.is_gone()


async def test_half_set_up_volume_can_be_taken_down_when_killed_at_any_moment(life):
    driver = life.driver()
    for moments in range(100):
        try:
            await life.set_up(interrupt(life.world.host, moments))
            break
        except Killed:
            # What the node does: the intent is recorded, and what stands there is looked at.
            await driver.unpublish(find_standing(life.world, life.target))
            await driver.unstage(find_standing(life.world, life.stage_path))
            life.device = (await driver.attach(life.volume(driver))).device
            await driver.detach("pv-data", life.device)
            life.is_gone()
    await life.take_down()
    life.is_gone()


async def test_tear_down_converges_when_killed_at_any_moment(life):
    for moments in range(100):
        await life.set_up()
        try:
            await life.take_down(interrupt(life.world.host, moments))
            break
        except Killed:
            await life.take_down()
            life.is_gone()
    assert moments >= 4
    life.is_gone()


# -- declarations ---------------------------------------------------------------------------


def test_drivers_have_the_capabilities_of_a_device(life):
    driver = life.driver()
    for capability in (Attaches, Prepares, Stages, Publishes, Expands):
        assert isinstance(driver, capability)
    options = life.volume(driver).options
    assert driver.phases(options, VolumeMode.FILESYSTEM) == tuple(Phase)
    assert driver.backend(options) == "local"


@pytest.mark.parametrize("path", ["relative", "/a/../b", "", "/a\0b"])
def test_local_path_is_absolute_and_plain(path):
    driver = LocalDirectory(FakeWorld()).driver()
    with pytest.raises(Rejected, match=r"local\.path"):
        driver.read_options(VolumeSource("local", {"path": path}, persistent=True))


def read_image(**body):
    life = Life(FakeWorld())
    whole = {"driver": IMAGE, "volumeHandle": "db", **body}
    return life.driver().read_options(VolumeSource("csi", whole, 7 * MIB, persistent=True))


def test_image_is_named_after_its_handle_and_sized_after_its_volume():
    options = read_image()
    assert options.path.endswith("/db.img")
    assert options.size_bytes == 7 * MIB
    assert options.fs_type == "ext4"
    assert options.create


def test_image_attributes_are_read():
    attributes = {"path": "/srv//x.img", "size": "1Gi", "create": "false",
                  "storage.kubernetes.io/csiProvisionerIdentity": "x"}  # fmt: skip
    options = read_image(fsType="xfs", volumeAttributes=attributes)
    assert (options.path, options.size_bytes, options.fs_type, options.create) == (
        "/srv/x.img", 1 << 30, "xfs", False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"volumeHandle": "../x"}, "volumeHandle"),
        ({"volumeHandle": ".x"}, "volumeHandle"),
        ({"volumeHandle": ""}, "volumeHandle"),
        ({"fsType": "zfs"}, "fsType: 'zfs' is not offered"),
        ({"volumeAttributes": {"path": "../../etc/shadow"}}, "path"),
        ({"volumeAttributes": {"path": "a/"}}, "path"),
        ({"volumeAttributes": {"path": "/"}}, "path"),
        ({"volumeAttributes": {"size": "many"}}, "size"),
        ({"volumeAttributes": {"size": "0"}}, "greater than 0"),
        ({"volumeAttributes": {"create": "yes"}}, "create: 'yes'"),
        ({"volumeAttributes": {"colour": "red"}}, "unknown attribute 'colour'"),
        ({"colour": "red"}, "unknown field `colour`"),
    ],
)
def test_image_is_rejected_when_declared_wrongly(body, words):
    with pytest.raises(Rejected, match=words) as caught:
        read_image(**body)
    assert caught.value.remedy or "greater" in words


def test_image_is_rejected_inline():
    life = Life(FakeWorld())
    with pytest.raises(Rejected, match="not offered inline"):
        life.driver().read_options(VolumeSource("csi", {"driver": IMAGE}))
