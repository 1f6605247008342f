"""Real disks in a discovery directory: found, recognised, emptied, never confused."""

import os

import pytest

from tests.kernel.block.conftest import run, until
from volagent.host.contract import BindOptions
from volagent.host.directory_watch import DirectoryWatch
from volagent.host.errors import Absent, Busy, HostError
from volagent.host.local_storage import LocalStorage

MIB = 1 << 20


@pytest.fixture
def storage(host, helpers):
    return LocalStorage(host, helpers)


@pytest.fixture
async def disk(loops, host, helpers, images):
    """A directory of disks with a mounted ext4 in it."""
    device = await loops.attach("ssd.img", 64 * MIB)
    await run(helpers, "mkfs.ext4", "-q", device.path)
    point = images / "disks" / "ssd"
    point.mkdir(parents=True)
    await host.mounts.mount_device(
        device.path, str(point), fs_type="ext4", options=(), read_only=False
    )
    yield point
    host.mounts.unmount(str(point))


async def test_mounted_disk_is_found_with_its_identity_and_size(storage, disk):
    (place,), unusable = await storage.scan(str(disk.parent), plain_directories=False)
    assert unusable == []
    assert (place.path, place.kind) == (str(disk), "filesystem")
    assert place.identity.startswith("uuid:")
    assert place.identity.endswith(":/")
    assert 32 * MIB < place.size_bytes <= 64 * MIB


async def test_disk_and_link_to_a_disk_are_found_raw(storage, loops, images):
    device = await loops.attach("raw.img", 8 * MIB)
    (images / "disks").mkdir()
    os.symlink(device.path, images / "disks" / "by-id-raw")
    (place,), _ = await storage.scan(str(images / "disks"), plain_directories=False)
    assert (place.kind, place.size_bytes, place.identity) == ("block", 8 * MIB, device.identity)


async def test_what_is_no_storage_is_named_with_its_reason(storage, images):
    (images / "disks" / "plain").mkdir(parents=True)
    (images / "disks" / "file").write_text("x")
    os.symlink("/etc", images / "disks" / "link")
    places, unusable = await storage.scan(str(images / "disks"), plain_directories=False)
    assert places == []
    reasons = {os.path.basename(entry.path): entry.reason for entry in unusable}
    assert "is its disk not mounted?" in reasons["plain"]
    assert "neither" in reasons["file"]
    assert "no block device" in reasons["link"]
    places, _ = await storage.scan(str(images / "disks"), plain_directories=True)
    assert [place.kind for place in places] == ["directory"]


async def test_emptying_keeps_the_disk_and_what_the_file_system_needs(storage, disk):
    (disk / "a" / "b").mkdir(parents=True)
    (disk / "a" / "b" / "file").write_text("x")
    os.symlink("/etc/passwd", disk / "link")
    (place,), _ = await storage.scan(str(disk.parent), plain_directories=False)
    assert await storage.empty(place) == 2
    assert os.listdir(disk) == ["lost+found"]
    assert os.path.exists("/etc/passwd")


async def test_emptying_is_refused_while_a_pod_still_shows_it(storage, disk, host, images):
    (disk / "file").write_text("x")
    (place,), _ = await storage.scan(str(disk.parent), plain_directories=False)
    shown = images / "shown"
    shown.mkdir()
    host.mounts.bind(str(disk), str(shown), BindOptions())
    with pytest.raises(Busy, match="also mounted at"):
        await storage.empty(place)
    host.mounts.unmount(str(shown))
    assert (disk / "file").exists()
    assert await storage.empty(place) == 1


async def test_emptying_another_disk_than_the_one_found_is_refused(
    storage, disk, host, loops, helpers
):
    (place,), _ = await storage.scan(str(disk.parent), plain_directories=False)
    other = await loops.attach("other.img", 32 * MIB)
    await run(helpers, "mkfs.ext4", "-q", other.path)
    await host.mounts.mount_device(
        other.path, str(disk), fs_type="ext4", options=(), read_only=False
    )
    (disk / "precious").write_text("x")
    with pytest.raises(Absent, match="it is uuid:"):
        await storage.empty(place)
    assert (disk / "precious").exists()
    host.mounts.unmount(str(disk))


async def test_plain_directory_is_emptied_but_not_what_is_mounted_inside(
    storage, images, host, disk
):
    plain = images / "plain" / "dir"
    (plain / "mnt").mkdir(parents=True)
    host.mounts.bind(str(disk), str(plain / "mnt"), BindOptions())
    (disk / "precious").write_text("x")
    (place,), _ = await storage.scan(str(images / "plain"), plain_directories=True)
    with pytest.raises(Busy):
        await storage.empty(place)
    assert (disk / "precious").exists()
    host.mounts.unmount(str(plain / "mnt"))
    await storage.empty(place)
    assert os.listdir(plain) == []


async def test_wiping_zeroes_a_disk_and_refuses_one_in_use(storage, loops, images, disk, helpers):
    device = await loops.attach("raw.img", 4 * MIB)
    with open(device.path, "r+b", buffering=0) as end:
        end.seek(2 * MIB)
        end.write(b"secret" * 100)
    (images / "raw").mkdir()
    os.symlink(device.path, images / "raw" / "disk")
    (place,), _ = await storage.scan(str(images / "raw"), plain_directories=False)
    await storage.wipe(place)
    with open(device.path, "rb") as end:
        assert end.read() == bytes(4 * MIB)
    mounted = storage._host.mounts.find_mount_at(str(disk)).source
    os.symlink(mounted, images / "raw" / "mounted")
    places, _ = await storage.scan(str(images / "raw"), plain_directories=False)
    with pytest.raises(HostError):
        await storage.wipe(next(p for p in places if p.path.endswith("mounted")))


async def test_directory_watch_tells_of_new_and_gone_entries(images):
    told = []
    watch = DirectoryWatch(str(images), lambda: told.append(1))
    (images / "new").mkdir()
    await until(lambda: len(told) >= 1)
    told.clear()
    (images / "new").rmdir()
    await until(lambda: len(told) >= 1)
    watch.close()
    watch.close()
