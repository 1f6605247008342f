"""What is on a device, formatting it, checking it, growing it: with the real tools."""

import asyncio
import fcntl
import hashlib
import os
import struct

import pytest

from tests.kernel.block.conftest import run
from volagent.host import devices
from volagent.host import images as image_files
from volagent.host.errors import Busy, HostError
from volagent.host.mounts import RealMounts
from volagent.host.mounttable import choose_reader

MIB = 1 << 20
SIZES = {"ext4": 32 * MIB, "xfs": 320 * MIB, "btrfs": 128 * MIB}


def write_at(device, offset, data):
    fd = os.open(device.path, os.O_WRONLY)
    os.pwrite(fd, data, offset)
    os.fsync(fd)
    os.close(fd)


def has_sys_resource():
    with open("/proc/self/status") as file:
        effective = next(line for line in file if line.startswith("CapEff:"))
    return bool(int(effective.split()[1], 16) >> 24 & 1)


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@pytest.fixture
def mounts(helpers):
    return RealMounts(helpers=helpers, reader=choose_reader())


@pytest.fixture(params=SIZES)
async def formatted(request, loops):
    """A device with each of the file systems."""
    fs_type = request.param
    device = await loops.attach("a.img", SIZES[fs_type])
    await loops.devices.make_filesystem(device, fs_type=fs_type)
    return device, fs_type


# -- looking --------------------------------------------------------------------------------


@pytest.mark.parametrize("size_bytes", [512, 4096, 5 * MIB + 512, 130 * MIB, 1 << 40])
async def test_untouched_image_is_blank(loops, size_bytes):
    device = await loops.attach("a.img", size_bytes)
    assert (await loops.devices.probe(device.path)).blank


async def test_file_system_is_recognised(formatted, devices):
    device, fs_type = formatted
    found = await devices.probe(device.path)
    assert (found.blank, found.fs_type, found.found) == (False, fs_type, "")
    assert found.uuid


MBR = bytearray(512)
struct.pack_into("<BBBBBBBBII", MBR, 446, 0, 0, 2, 0, 0x83, 0, 0, 0, 1, 2048)
MBR[510:] = b"\x55\xaa"

FOREIGN = {
    "a partition table (dos)": (0, bytes(MBR)),
    "crypto_LUKS (crypto)": (0, b"LUKS\xba\xbe\x00\x01".ljust(592, b"\0")),
    "unknown data (at byte 0)": (0, b"x"),
    "unknown data (at byte 2097153)": (2 * MIB + 1, b"\x01"),
    "unknown data (at byte 67112960)": (64 * MIB + 4096, b"x"),
    "unknown data (at byte 134217727)": (128 * MIB - 1, b"x"),
    "unknown data (at byte 98566144)": (94 * MIB, b"x" * MIB),
}


async def foreign_device(loops, found):
    device = await loops.attach("a.img", 128 * MIB)
    write_at(device, *FOREIGN[found])
    return device


@pytest.mark.parametrize("found", FOREIGN)
async def test_foreign_content_is_found_and_never_formatted(loops, found):
    device = await foreign_device(loops, found)
    signature = await loops.devices.probe(device.path)
    assert (signature.blank, signature.fs_type, signature.found) == (False, "", found)
    before = digest(loops.images / "a.img")
    for fs_type in ("ext4", "btrfs"):
        with pytest.raises(HostError, match="refused: it holds"):
            await loops.devices.make_filesystem(device, fs_type=fs_type)
    assert digest(loops.images / "a.img") == before


@pytest.mark.parametrize("tool", [("mkswap",), ("mkfs.xfs", "-q")])
async def test_device_of_another_tool_is_never_formatted(loops, helpers, tool):
    device = await loops.attach("a.img", 320 * MIB)
    await run(helpers, *tool, device.path)
    before = digest(loops.images / "a.img")
    with pytest.raises(HostError, match=r"refused: it holds (swap|xfs)"):
        await loops.devices.make_filesystem(device, fs_type="ext4")
    assert digest(loops.images / "a.img") == before


async def test_device_with_two_signatures_is_foreign(loops, helpers):
    device = await loops.attach("a.img", 128 * MIB)
    await loops.devices.make_filesystem(device, fs_type="btrfs")
    with open(loops.images / "other.img", "wb") as other:
        other.truncate(32 * MIB)
    await run(helpers, "mkfs.ext4", "-q", str(loops.images / "other.img"))
    write_at(device, 1024, (loops.images / "other.img").read_bytes()[1024:2048])
    found = await loops.devices.probe(device.path)
    assert (found.blank, found.found) == (False, "several signatures at once")


async def test_device_that_cannot_be_read_is_never_blank(loops):
    device = await loops.attach("a.img", 64 * MIB)
    os.truncate(loops.images / "a.img", 32 * MIB)  # the rest of the device has nothing behind it
    with pytest.raises(HostError, match="EIO"):
        await loops.devices.probe(device.path)
    with pytest.raises(HostError):
        await loops.devices.make_filesystem(device, fs_type="ext4")
    with open(loops.images / "a.img", "rb") as file:
        assert file.read().strip(b"\0") == b""


async def test_device_without_a_file_is_never_blank(loops):
    said = []
    for _ in range(10):  # another test may be given the device at this very moment
        device = await loops.attach("a.img", MIB)
        await loops.devices.detach_loop(device)
        try:
            await loops.devices.probe(device.path)
        except HostError as error:
            said.append(str(error))
    assert any("ENOMEDIUM" in each for each in said), said


# -- formatting -----------------------------------------------------------------------------


async def test_too_small_device_is_not_touched(loops):
    device = await loops.attach("a.img", 100 * MIB)
    for fs_type, least in (("xfs", 300), ("btrfs", 109)):
        with pytest.raises(HostError, match=f"{fs_type} needs at least {least} MiB"):
            await loops.devices.make_filesystem(device, fs_type=fs_type)
    assert (await loops.devices.probe(device.path)).blank


async def test_device_that_was_exchanged_is_not_formatted(loops):
    device = await loops.attach("a.img", 32 * MIB)
    await loops.devices.detach_loop(device)
    os.rename(loops.images / "a.img", loops.images / "b.img")
    other = await loops.attach("a.img", 32 * MIB)
    assert other.path == device.path
    with pytest.raises(HostError, match=r"this is loop:\d+:\d+ now, not loop:"):
        await loops.devices.make_filesystem(device, fs_type="ext4")
    assert (await loops.devices.probe(other.path)).blank


async def test_device_in_exclusive_use_is_busy(loops):
    device = await loops.attach("a.img", 32 * MIB)
    fd = os.open(device.path, os.O_RDONLY | os.O_EXCL)
    try:
        with pytest.raises(Busy):
            await loops.devices.make_filesystem(device, fs_type="ext4")
    finally:
        os.close(fd)


async def test_format_waits_for_who_only_looks_at_the_device(loops):
    device = await loops.attach("a.img", 32 * MIB)
    fd = os.open(device.path, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_SH)  # as udev does while its rules run
    asyncio.get_running_loop().call_later(1.5, os.close, fd)
    await loops.devices.make_filesystem(device, fs_type="ext4")
    assert (await loops.devices.probe(device.path)).fs_type == "ext4"


async def test_device_that_a_left_over_mkfs_holds_is_busy(loops, monkeypatch):
    monkeypatch.setattr(devices, "LOCK_WAIT_S", 0.3)
    device = await loops.attach("a.img", 32 * MIB)
    fd = os.open(device.path, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)  # as a child does that outlived the agent
    try:
        with pytest.raises(Busy, match="somebody else is formatting it"):
            await loops.devices.make_filesystem(device, fs_type="ext4")
    finally:
        os.close(fd)
    await loops.devices.make_filesystem(device, fs_type="ext4")


async def test_interrupted_format_is_taken_up_again(loops):
    device = await loops.attach("a.img", 32 * MIB)
    image_files.mark_formatting(device.path)
    write_at(device, 8192, b"half of a file system")
    assert (await loops.devices.probe(device.path)).blank
    await loops.devices.make_filesystem(device, fs_type="ext4")
    assert (await loops.devices.probe(device.path)).fs_type == "ext4"
    assert not image_files.is_marked(device.path)


async def test_mark_of_an_interrupted_format_does_not_outweigh_a_signature(loops):
    device = await loops.attach("a.img", 32 * MIB)
    image_files.mark_formatting(device.path)
    write_at(device, 0, bytes(MBR))
    before = digest(loops.images / "a.img")
    assert (await loops.devices.probe(device.path)).found == "a partition table (dos)"
    with pytest.raises(HostError, match="refused"):
        await loops.devices.make_filesystem(device, fs_type="ext4")
    assert digest(loops.images / "a.img") == before


# -- checking -------------------------------------------------------------------------------


async def test_fresh_file_system_is_clean(formatted, devices):
    device, fs_type = formatted
    report = await devices.check_filesystem(device, fs_type=fs_type)
    assert report.clean
    assert not report.repaired
    assert report.detail


async def test_harmless_damage_is_repaired(loops, helpers):
    device = await loops.attach("a.img", 32 * MIB)
    await loops.devices.make_filesystem(device, fs_type="ext4")
    # Not unmounted cleanly, and the count of free blocks is wrong.
    command = "set_super_value state 0\nset_super_value free_blocks_count 7\n"
    (loops.images / "commands").write_text(command)
    await run(helpers, "debugfs", "-w", "-f", str(loops.images / "commands"), device.path)
    report = await loops.devices.check_filesystem(device, fs_type="ext4")
    assert report.clean
    assert report.repaired
    assert "not cleanly unmounted" in report.detail or "was not" in report.detail


async def test_serious_damage_is_left_to_a_person(loops, helpers):
    device = await loops.attach("a.img", 32 * MIB)
    await loops.devices.make_filesystem(device, fs_type="ext4")
    await run(helpers, "debugfs", "-w", "-R", "clri <2>", device.path)  # no root directory
    await run(helpers, "debugfs", "-w", "-R", "set_super_value state 2", device.path)
    report = await loops.devices.check_filesystem(device, fs_type="ext4")
    assert not report.clean
    assert "UNEXPECTED INCONSISTENCY" in report.detail


async def test_mounted_file_system_is_not_checked(loops, mounts, scratch):
    device = await loops.attach("a.img", 32 * MIB)
    await loops.devices.make_filesystem(device, fs_type="ext4")
    target = scratch / "mnt"
    target.mkdir()
    await mounts.mount_device(device.path, str(target), fs_type="ext4", options=(), read_only=False)
    try:
        with pytest.raises(Busy):
            await loops.devices.check_filesystem(device, fs_type="ext4")
        with pytest.raises(Busy):
            await loops.devices.make_filesystem(device, fs_type="ext4")
        with pytest.raises(Busy):
            await loops.devices.detach_loop(device)
    finally:
        mounts.unmount(str(target))


# -- growing --------------------------------------------------------------------------------


async def test_file_system_grows_online_with_its_file(formatted, devices, mounts, images, scratch):
    device, fs_type = formatted
    if fs_type == "ext4" and not has_sys_resource():
        pytest.skip("ext4 grows online only with CAP_SYS_RESOURCE: run as root of a machine")
    target = scratch / "mnt"
    target.mkdir()
    await mounts.mount_device(
        device.path, str(target), fs_type=fs_type, options=(), read_only=False
    )
    try:
        (target / "data").write_bytes(b"precious")
        before = os.statvfs(target)
        grow = {"fs_type": fs_type, "mounted_at": str(target)}
        assert not await devices.grow(device, **grow)
        await devices.grow_image(str(images / "a.img"), size_bytes=2 * SIZES[fs_type])
        assert await devices.grow(device, **grow)
        after = os.statvfs(target)
        grown_bytes = after.f_blocks * after.f_frsize - before.f_blocks * before.f_frsize
        assert grown_bytes >= SIZES[fs_type] * 0.8
        assert not await devices.grow(device, **grow)
        assert (target / "data").read_bytes() == b"precious"
    finally:
        mounts.unmount(str(target))
