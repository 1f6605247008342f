"""Loop devices and image files: one device per file, found by what the file is."""

import asyncio
import fcntl
import os
import signal
import subprocess
import sys
from itertools import pairwise

import pytest

from tests.kernel.block.conftest import run, until
from volagent.host import loop
from volagent.host.contract import BlockDevice
from volagent.host.errors import Absent, Busy, HostError
from volagent.host.uevents import watch_devices

MIB = 1 << 20


def put_image(path, size_bytes=MIB):
    with open(path, "wb") as file:
        file.truncate(size_bytes)
    return str(path)


# -- images ---------------------------------------------------------------------------------


async def test_image_is_made_once_sparse_and_private(devices, images):
    path = images / "new.img"
    assert await devices.create_image(str(path), size_bytes=1 << 40)
    found = path.stat()
    assert (found.st_size, found.st_blocks, found.st_mode & 0o777) == (1 << 40, 0, 0o600)
    assert not await devices.create_image(str(path), size_bytes=MIB)
    assert path.stat().st_size == 1 << 40
    assert os.listdir(images) == ["new.img"]


async def test_image_is_made_when_an_interrupted_try_left_its_remains(devices, images):
    put_image(images / ".new.img.volagent-new", 5)
    assert await devices.create_image(str(images / "new.img"), size_bytes=MIB)
    assert os.listdir(images) == ["new.img"]


async def test_image_is_not_made_where_something_else_is(devices, images):
    (images / "directory").mkdir()
    os.mkfifo(images / "fifo")
    for name in ("directory", "fifo"):
        with pytest.raises(HostError, match="not a regular file"):
            await devices.create_image(str(images / name), size_bytes=MIB)
    with pytest.raises(Absent, match="missing"):
        await devices.create_image(str(images / "missing/a.img"), size_bytes=MIB)


async def test_image_grows_and_never_shrinks(devices, images):
    path = put_image(images / "a.img", 4 * MIB)
    assert not await devices.grow_image(path, size_bytes=MIB)
    assert not await devices.grow_image(path, size_bytes=4 * MIB)
    assert os.stat(path).st_size == 4 * MIB
    assert await devices.grow_image(path, size_bytes=8 * MIB)
    assert os.stat(path).st_size == 8 * MIB
    with pytest.raises(Absent):
        await devices.grow_image(f"{path}.missing", size_bytes=MIB)


# -- attaching ------------------------------------------------------------------------------


async def test_device_shows_the_file_and_goes_with_its_detach(devices, images):
    path = put_image(images / "a.img", 3 * MIB)
    device = await devices.attach_loop(path, read_only=False)
    found = os.stat(path)
    assert device.identity == f"loop:{found.st_dev}:{found.st_ino}"
    assert device.size_bytes == 3 * MIB
    assert not device.read_only
    number = os.stat(device.path).st_rdev
    assert device.number == f"{os.major(number)}:{os.minor(number)}"
    assert devices.find_loops()[device.path] == device
    assert devices.identify(device.path) == device
    await devices.detach_loop(device)
    assert device.path not in devices.find_loops()
    await devices.detach_loop(device)


async def test_passing_look_does_not_keep_a_device(devices, images):
    device = await devices.attach_loop(put_image(images / "a.img"), read_only=False)
    looking = os.open(device.path, os.O_RDONLY | os.O_CLOEXEC)
    asyncio.get_running_loop().call_later(0.05, os.close, looking)
    await devices.detach_loop(device)
    assert device.path not in devices.find_loops()


async def test_device_that_somebody_keeps_open_is_busy(devices, images):
    device = await devices.attach_loop(put_image(images / "a.img"), read_only=False)
    with open(device.path, "rb"), pytest.raises(Busy, match="last user"):
        await devices.detach_loop(device)
    await devices.detach_loop(device)
    assert device.path not in devices.find_loops()


async def test_file_has_one_device_however_it_is_named(devices, images):
    path = put_image(images / "a.img")
    os.link(path, images / "hard")
    os.symlink("a.img", images / "soft")
    device = await devices.attach_loop(path, read_only=False)
    for name in ("a.img", "hard", "soft"):
        assert await devices.attach_loop(str(images / name), read_only=False) == device
    os.rename(path, images / "renamed")
    put_image(path)
    assert await devices.attach_loop(str(images / "renamed"), read_only=False) == device
    other = await devices.attach_loop(path, read_only=False)
    assert other.path != device.path
    await devices.detach_loop(device)
    await devices.detach_loop(other)


async def test_concurrent_attaches_agree_on_devices(devices, images):
    paths = [put_image(images / f"{number}.img") for number in range(4)]
    found = await asyncio.gather(
        *(devices.attach_loop(path, read_only=False) for path in paths for _ in range(3))
    )
    assert len({device.path for device in found}) == 4
    for first, second in pairwise(found):
        assert (first.identity == second.identity) == (first.path == second.path)
    for device in set(found):
        await devices.detach_loop(device)


async def test_other_device_is_left_alone_when_the_described_one_is_gone(devices, images):
    path = put_image(images / "a.img")
    device = await devices.attach_loop(path, read_only=False)
    described = BlockDevice(device.path, device.number, "loop:1:1", device.size_bytes)
    await devices.detach_loop(described)
    assert device.path in devices.find_loops()
    await devices.detach_loop(device)
    await devices.detach_loop(BlockDevice("/dev/loop-none", "7:1", "loop:1:1", 0))


async def test_device_that_is_open_is_not_given_back(devices, images, helpers, scratch):
    path = put_image(images / "a.img", 16 * MIB)
    device = await devices.attach_loop(path, read_only=False)
    exclusive = os.open(device.path, os.O_RDONLY | os.O_EXCL)
    with pytest.raises(Busy, match="loop detach"):
        await devices.detach_loop(device)
    os.close(exclusive)
    assert devices.find_loops()[device.path] == device
    # A user that is not exclusive: the device goes with it, unless it is wanted again.
    shared = os.open(device.path, os.O_RDONLY)
    with pytest.raises(Busy, match="when its last user closes it"):
        await devices.detach_loop(device)
    assert await devices.attach_loop(path, read_only=False) == device
    os.close(shared)
    assert devices.find_loops()[device.path] == device
    await devices.detach_loop(device)
    await until(lambda: device.path not in devices.find_loops())


async def test_read_only_device_cannot_be_written_or_shared_with_a_writer(devices, images):
    path = put_image(images / "a.img")
    device = await devices.attach_loop(path, read_only=True)
    assert device.read_only
    assert devices.identify(device.path).read_only
    with pytest.raises(PermissionError), open(device.path, "r+b", buffering=0) as end:
        end.write(bytes(512))
    with pytest.raises(Busy, match="attached read-only already"):
        await devices.attach_loop(path, read_only=False)
    assert await devices.attach_loop(path, read_only=True) == device
    await devices.detach_loop(device)


async def test_reader_shares_the_device_of_a_writer(devices, images):
    path = put_image(images / "a.img")
    device = await devices.attach_loop(path, read_only=False)
    assert await devices.attach_loop(path, read_only=True) == device
    await devices.detach_loop(device)


async def test_device_follows_its_file_when_attached_again(devices, images):
    path = put_image(images / "a.img")
    device = await devices.attach_loop(path, read_only=False)
    os.truncate(path, 2 * MIB)
    again = await devices.attach_loop(path, read_only=False)
    assert again.path == device.path
    assert again.size_bytes == 2 * MIB
    await devices.detach_loop(again)


async def test_image_of_which_a_part_is_attached_is_busy(devices, images, helpers):
    path = put_image(images / "a.img", 2 * MIB)
    part = (await run(helpers, "losetup", "-f", "--show", "-o", str(MIB), path)).strip()
    try:
        assert part not in devices.find_loops()
        with pytest.raises(Busy, match=f"{part} shows a part of it"):
            await devices.attach_loop(path, read_only=False)
    finally:
        await run(helpers, "losetup", "-d", part)


async def test_image_that_somebody_has_locked_is_busy(devices, images):
    path = put_image(images / "a.img")
    with open(path, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(Busy, match="somebody holds a lock"):
            await devices.attach_loop(path, read_only=False)
    device = await devices.attach_loop(path, read_only=False)
    with open(path, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the device holds no lock of ours
    await devices.detach_loop(device)


_KILLED_RIGHT_AFTER = """
import os, signal, sys
from volagent.host import loop
bound = False
def watch(event, arguments):
    global bound
    if bound and event == "fcntl.ioctl":
        os.kill(os.getpid(), signal.SIGKILL)
    bound = bound or event == "fcntl.ioctl" and arguments[1] == 0x4C0A  # LOOP_CONFIGURE
sys.addaudithook(watch)
loop.attach(sys.argv[1], read_only=False)
"""


async def test_image_is_attached_again_after_a_kill_right_after_it_was_bound(devices, images):
    path = put_image(images / "a.img")
    killed = subprocess.run([sys.executable, "-c", _KILLED_RIGHT_AFTER, path], check=False)
    assert killed.returncode == -signal.SIGKILL
    (bound,) = [d for d in devices.find_loops().values() if _shows_file(d, path)]

    device = await devices.attach_loop(path, read_only=False)

    assert device == bound
    await devices.detach_loop(device)


def _shows_file(device: BlockDevice, path: str) -> bool:
    found = os.stat(path)
    return device.identity == f"loop:{found.st_dev}:{found.st_ino}"


async def test_only_images_are_attached(devices, images):
    os.mkfifo(images / "fifo")
    (images / "directory").mkdir()
    put_image(images / "tiny", 511)
    for name, words in (("fifo", "not a regular file"), ("tiny", "511 bytes are no image")):
        with pytest.raises(HostError, match=words):
            await devices.attach_loop(str(images / name), read_only=False)
    with pytest.raises(HostError, match="EISDIR"):
        await devices.attach_loop(str(images / "directory"), read_only=False)
    with pytest.raises(Absent):
        await devices.attach_loop(str(images / "missing"), read_only=False)


async def test_backing_file_is_found_only_while_it_is_the_same(loops):
    device = await loops.attach("a.img", MIB)
    path = loops.images / "a.img"
    assert loop.find_backing_file(device.path) == str(path)
    path.unlink()
    assert loop.find_backing_file(device.path) is None
    put_image(path)
    assert loop.find_backing_file(device.path) is None


def test_only_block_devices_are_identified(devices, scratch):
    with pytest.raises(HostError, match="ENOTBLK"):
        devices.identify(str(scratch))
    with pytest.raises(Absent):
        devices.identify(f"{scratch}/missing")


async def test_device_is_identified_through_a_link(loops):
    device = await loops.attach("a.img", MIB)
    os.symlink(device.path, loops.images / "by-id")
    assert loops.devices.identify(str(loops.images / "by-id")) == device


async def test_kernel_tells_of_devices_that_come_and_go(helpers, devices, images):
    seen = []
    watch = await watch_devices(helpers, seen.append)
    device = await devices.attach_loop(put_image(images / "a.img"), read_only=False)
    await until(lambda: any(event.device == device.path for event in seen))
    event = next(event for event in seen if event.device == device.path)
    assert (event.action, event.number) == ("change", device.number)
    watch.close()
    watch.close()
    count = len(seen)
    await devices.detach_loop(device)
    await until(lambda: device.path not in devices.find_loops())
    assert len(seen) == count
