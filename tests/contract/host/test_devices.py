"""`Devices`: loop devices and what is on them, on the fake and on the real kernel."""

from pathlib import Path

import pytest

from tests.loop_leftovers import give_back, owned_directory
from volagent.host.contract import BlockDevice
from volagent.host.errors import Absent, Busy, HostError

MIB = 1 << 20
SIZE = 32 * MIB


@pytest.fixture
def image(world):
    """Where an image may be made."""
    directory = str(owned_directory(Path(world.root)))
    world.host.trees.ensure_dir(directory, mode=0o700)
    yield f"{directory}/a.img"
    if "Fake" not in type(world).__name__:
        give_back(Path(directory))


@pytest.fixture
def devices(world):
    return world.host.devices


async def test_image_is_made_once(devices, image):
    assert await devices.create_image(image, size_bytes=SIZE)
    assert not await devices.create_image(image, size_bytes=2 * SIZE)
    device = await devices.attach_loop(image, read_only=False)
    assert device.size_bytes == SIZE
    await devices.detach_loop(device)


async def test_image_grows_and_never_shrinks(devices, image):
    with pytest.raises(Absent):
        await devices.grow_image(image, size_bytes=SIZE)
    await devices.create_image(image, size_bytes=SIZE)
    assert await devices.grow_image(image, size_bytes=2 * SIZE)
    assert not await devices.grow_image(image, size_bytes=SIZE)
    device = await devices.attach_loop(image, read_only=False)
    assert device.size_bytes == 2 * SIZE
    await devices.detach_loop(device)


async def test_missing_image_is_absent(devices, image):
    with pytest.raises(Absent):
        await devices.attach_loop(image, read_only=False)


async def test_image_has_one_device_and_it_is_found(devices, image):
    await devices.create_image(image, size_bytes=SIZE)
    device = await devices.attach_loop(image, read_only=False)
    assert await devices.attach_loop(image, read_only=False) == device
    assert device.identity.startswith("loop:")
    assert devices.find_loops()[device.path] == device
    assert devices.identify(device.path) == device
    await devices.detach_loop(device)
    assert device.path not in devices.find_loops()


async def test_detaching_leaves_alone_what_is_gone_or_another(devices, image):
    await devices.create_image(image, size_bytes=SIZE)
    device = await devices.attach_loop(image, read_only=False)
    await devices.detach_loop(BlockDevice(device.path, device.number, "loop:0:0", 0))
    assert device.path in devices.find_loops()
    await devices.detach_loop(device)
    await devices.detach_loop(device)


async def test_new_image_is_blank_until_it_is_formatted(devices, image):
    await devices.create_image(image, size_bytes=SIZE)
    device = await devices.attach_loop(image, read_only=False)
    found = await devices.probe(device.path)
    assert (found.blank, found.fs_type, found.found) == (True, "", "")
    await devices.make_filesystem(device, fs_type="ext4")
    found = await devices.probe(device.path)
    assert (found.blank, found.fs_type, found.found) == (False, "ext4", "")
    assert (await devices.check_filesystem(device, fs_type="ext4")).clean
    await devices.detach_loop(device)


async def test_nothing_is_formatted_twice(devices, image):
    await devices.create_image(image, size_bytes=SIZE)
    device = await devices.attach_loop(image, read_only=False)
    await devices.make_filesystem(device, fs_type="ext4")
    with pytest.raises(HostError):
        await devices.make_filesystem(device, fs_type="ext4")
    await devices.detach_loop(device)


async def test_file_system_survives_its_device(world, devices, image):
    await devices.create_image(image, size_bytes=SIZE)
    device = await devices.attach_loop(image, read_only=False)
    await devices.make_filesystem(device, fs_type="ext4")
    target = f"{world.root}/mnt"
    world.host.trees.ensure_dir(target, mode=0o755)
    for content in (None, b"precious"):
        mount_id = await world.host.mounts.mount_device(
            device.path, target, fs_type="ext4", options=(), read_only=False
        )
        entry = world.host.mounts.find_mount(mount_id)
        assert (entry.device, entry.source) == (device.number, device.path)
        assert world.read(f"{target}/data") == content
        world.write(f"{target}/data", b"precious")
        await world.host.mounts.unmount_slowly(
            target, backend="local", timeout_s=30, force=False, lazy=False
        )
        await devices.detach_loop(device)
        device = await devices.attach_loop(image, read_only=False)
    await devices.detach_loop(device)


async def test_device_is_flushed_only_while_nobody_has_it(world, devices, image):
    await devices.create_image(image, size_bytes=SIZE)
    device = await devices.attach_loop(image, read_only=False)
    await devices.make_filesystem(device, fs_type="ext4")
    await devices.flush(device)
    target = f"{world.root}/held"
    world.host.trees.ensure_dir(target, mode=0o755)
    await world.host.mounts.mount_device(
        device.path, target, fs_type="ext4", options=(), read_only=False
    )
    with pytest.raises(Busy):
        await devices.flush(device)
    await world.host.mounts.unmount_slowly(
        target, backend="device", timeout_s=30, force=False, lazy=False
    )
    await devices.flush(device)
    with pytest.raises(Absent):
        await devices.flush(BlockDevice(device.path, device.number, "loop:0:0", 0))
    await devices.detach_loop(device)


def test_disk_is_not_found_by_a_serial_number_that_none_has(devices):
    assert devices.find_disk("vol0123456789abcdef0") is None


async def test_partition_that_a_disk_does_not_have_is_absent(devices, image):
    await devices.create_image(image, size_bytes=SIZE)
    device = await devices.attach_loop(image, read_only=False)
    with pytest.raises(Absent, match="no partition 2"):
        await devices.find_partition(device, 2)
    await devices.detach_loop(device)


async def test_unknown_device_is_absent(devices, world):
    with pytest.raises(Absent):
        devices.identify(f"{world.root}/no-such-device")
