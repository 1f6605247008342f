"""image.volagent.dev on this kernel: what is on the disk decides what happens."""

import hashlib
import os

import pytest

from tests.kernel.block.conftest import run
from tests.kernel.block.test_devices import MBR, has_sys_resource
from tests.kernel.block.volumes import IMAGE, Volume
from volagent.drivers.contract import HeldDevice, VolumeMode
from volagent.drivers.errors import Rejected, Transient, Uncertain
from volagent.host import libc
from volagent.host.contract import OwnershipPolicy

MIB = 1 << 20
SIZES = {"ext4": 32 * MIB, "xfs": 320 * MIB, "btrfs": 128 * MIB}


def image_of(images):
    return images / "db.img"


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# -- the whole way --------------------------------------------------------------------------


@pytest.mark.parametrize("fs_type", SIZES)
async def test_image_is_made_formatted_once_and_keeps_its_data(declare, images, fs_type):
    volume = declare(body={"fsType": fs_type}, capacity_bytes=SIZES[fs_type])
    target = await volume.set_up()
    assert any(f"formatted as {fs_type}" in words for words in volume.evidence)
    (target / "data").write_bytes(b"precious")
    await volume.take_down()
    assert image_of(images).stat().st_size == SIZES[fs_type]
    again = declare(body={"fsType": fs_type}, capacity_bytes=SIZES[fs_type])
    target = await again.set_up()
    assert (target / "data").read_bytes() == b"precious"
    assert not any("formatted" in words for words in again.evidence)


async def test_image_in_a_directory_of_its_own_is_made_there(declare, images):
    attributes = {"path": "team/a/db.img", "size": "16Mi"}
    target = await declare(body={"volumeAttributes": attributes}).set_up()
    assert target.is_dir()
    assert (images / "team/a/db.img").stat().st_size == 16 * MIB
    assert (images / "team/a").stat().st_mode & 0o777 == 0o700


async def test_missing_image_is_waited_for_when_it_must_not_be_made(declare, images):
    body = {"volumeAttributes": {"create": "false"}}
    volume = declare(body=body, capacity_bytes=32 * MIB)
    with pytest.raises(Transient, match="does not exist, and is not made here") as caught:
        await volume.set_up()
    assert caught.value.remedy
    image_of(images).touch()
    os.truncate(image_of(images), 32 * MIB)
    assert (await volume.set_up()).is_dir()


async def test_missing_directory_is_named(declare, images):
    volume = declare(
        body={"volumeAttributes": {"path": f"{images}-gone/db.img"}}, capacity_bytes=32 * MIB
    )
    with pytest.raises(Transient, match="gone") as caught:
        await volume.set_up()
    assert caught.value.remedy == f"make the directory {images}-gone on this node"


async def test_group_gets_the_files_and_new_ones_too(declare, images):
    volume = declare(capacity_bytes=32 * MIB)
    target = await volume.set_up(fs_group=2000)
    assert target.stat().st_gid == 2000
    (target / "new").write_text("x")
    assert (target / "new").stat().st_gid == 2000
    await volume.take_down()
    again = declare(capacity_bytes=32 * MIB)
    target = await again.set_up(fs_group=3000, fs_group_policy=OwnershipPolicy.ON_ROOT_MISMATCH)
    assert (target / "new").stat().st_gid == 3000
    assert "group 3000" in again.evidence[-1]


# -- what must never be formatted -----------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "found"),
    [((0, bytes(MBR)), "a partition table"), ((5 * MIB, b"x" * MIB), "unknown data")],
)
async def test_foreign_content_is_refused_and_left(declare, images, content, found):
    image_of(images).touch()
    os.truncate(image_of(images), 32 * MIB)
    with open(image_of(images), "r+b") as file:
        file.seek(content[0])
        file.write(content[1])
    before = digest(image_of(images))
    volume = declare(capacity_bytes=64 * MIB)
    with pytest.raises(Rejected, match=f"db.img holds {found}") as caught:
        await volume.set_up()
    assert "wipefs -a" in caught.value.remedy
    await volume.take_down()
    assert digest(image_of(images)) == before
    assert image_of(images).stat().st_size == 32 * MIB


async def test_other_file_system_is_refused_and_left(declare, images):
    volume = declare(body={"fsType": "btrfs"}, capacity_bytes=128 * MIB)
    await volume.set_up()
    await volume.take_down()
    before = digest(image_of(images))
    other = declare(body={"fsType": "ext4"}, capacity_bytes=128 * MIB)
    with pytest.raises(Rejected, match="holds btrfs, but fsType is ext4") as caught:
        await other.set_up()
    assert caught.value.reason == "FailedMountOnFilesystemMismatch"
    assert "set fsType to btrfs" in caught.value.remedy
    await other.take_down()
    assert digest(image_of(images)) == before


async def test_image_that_is_too_small_is_refused_with_the_size_it_needs(declare):
    with pytest.raises(Rejected, match=r"too small: xfs needs at least 300 MiB"):
        await declare(body={"fsType": "xfs"}, capacity_bytes=64 * MIB).set_up()


async def test_blank_image_is_not_formatted_for_a_read_only_volume(declare, images):
    image_of(images).touch()
    os.truncate(image_of(images), 32 * MIB)
    with pytest.raises(Rejected, match="is blank, and is not formatted because the volume is"):
        await declare(body={"readOnly": True}, capacity_bytes=32 * MIB).set_up()
    assert image_of(images).read_bytes().strip(b"\0") == b""


# -- damage ---------------------------------------------------------------------------------


async def make_filled(declare):
    volume = declare(capacity_bytes=32 * MIB)
    target = await volume.set_up()
    (target / "data").write_bytes(b"precious")
    await volume.take_down()


async def test_corrupt_image_waits_for_a_person_and_works_when_repaired(declare, images, helpers):
    await make_filled(declare)
    image = str(image_of(images))
    await run(helpers, "debugfs", "-w", "-R", "clri <2>", image)
    await run(helpers, "debugfs", "-w", "-R", "set_super_value state 2", image)
    volume = declare(capacity_bytes=32 * MIB)
    with pytest.raises(Transient, match=r"ext4 on .*db.img is damaged: .*INCONSISTENCY") as caught:
        await volume.set_up()
    assert caught.value.remedy == f"copy it first, then repair it: `e2fsck -f {image}`"
    await volume.take_down()
    await helpers.run(("e2fsck", "-f", "-y", image), backend="tests", timeout_s=60)
    await volume.set_up()


async def test_image_with_garbage_inside_is_refused_by_the_kernel_with_a_remedy(declare, images):
    volume = declare(body={"fsType": "xfs"}, capacity_bytes=320 * MIB)
    await volume.set_up()
    await volume.take_down()
    with open(image_of(images), "r+b") as file:
        file.seek(512)
        file.write(os.urandom(64 * 1024))  # the headers of the first allocation group
    again = declare(body={"fsType": "xfs"}, capacity_bytes=320 * MIB)
    with pytest.raises((Transient, Uncertain)) as caught:
        await again.set_up()
    assert "xfs" in str(caught.value)
    assert caught.value.remedy
    await again.take_down()


async def test_unclean_file_system_is_repaired_before_it_is_mounted(declare, images, helpers):
    await make_filled(declare)
    commands = images / "commands"
    commands.write_text("set_super_value state 0\n")
    await run(helpers, "debugfs", "-w", "-f", str(commands), str(image_of(images)))
    volume = declare(capacity_bytes=32 * MIB)
    target = await volume.set_up()
    assert (target / "data").read_bytes() == b"precious"
    assert any("repaired" in words for words in volume.evidence)


async def test_format_on_a_full_disk_fails_and_works_when_there_is_room(host, images, helpers):
    small = images / "small"
    small.mkdir()
    await run(helpers, "mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(small))
    try:
        volume = Volume(host, small, IMAGE, {"driver": IMAGE, "volumeHandle": "db"},
                        capacity_bytes=64 * MIB)  # fmt: skip
        with pytest.raises(Uncertain, match=r"cannot format .*db.img") as caught:
            await volume.set_up()
        assert "full" in caught.value.remedy
        await volume.take_down()
        await run(helpers, "mount", "-o", "remount,size=100m", str(small))
        target = await volume.set_up()
        (target / "data").write_text("x")
        await volume.take_down()
    finally:
        libc.umount2(os.fsencode(small), 0)


# -- read-only ------------------------------------------------------------------------------


async def test_read_only_volume_writes_nothing_to_its_image(declare, images):
    await make_filled(declare)
    before = digest(image_of(images))
    volume = declare(body={"readOnly": True}, capacity_bytes=64 * MIB)
    target = await volume.set_up(fs_group=2000)
    assert volume.device.read_only
    assert (target / "data").read_bytes() == b"precious"
    with pytest.raises(OSError, match="Read-only file system"):
        (target / "new").write_text("x")
    await volume.take_down()
    assert digest(image_of(images)) == before


@pytest.mark.parametrize(("fs_type", "way_out"), [("ext4", "noload"), ("xfs", "norecovery")])
async def test_read_only_volume_with_an_open_journal_is_refused(declare, images, fs_type, way_out):
    body = {"fsType": fs_type}
    volume = declare(body=body, capacity_bytes=SIZES[fs_type])
    target = await volume.set_up()
    (target / "data").write_bytes(b"precious")
    fd = os.open(target / "data", os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    open_journal = image_of(images).read_bytes()  # as after a power cut
    await volume.take_down()
    image_of(images).write_bytes(open_journal)

    read_only = {**body, "readOnly": True}
    refused = declare(body=read_only, capacity_bytes=SIZES[fs_type])
    with pytest.raises(Rejected, match="cannot be repaired read-only") as caught:
        await refused.set_up()
    assert way_out in caught.value.remedy
    await refused.take_down()
    as_it_is = declare(body=read_only, capacity_bytes=SIZES[fs_type], mount_options=(way_out,))
    await as_it_is.set_up()
    await as_it_is.take_down()
    assert image_of(images).read_bytes() == open_journal

    replayed = declare(body=body, capacity_bytes=SIZES[fs_type])
    target = await replayed.set_up()
    assert (target / "data").read_bytes() == b"precious"


async def test_wrong_mount_option_is_refused_by_name(declare):
    volume = declare(capacity_bytes=32 * MIB, mount_options=("noatime", "colour=red"))
    with pytest.raises(Rejected, match=r"mountOptions noatime, colour=red: .*colour"):
        await volume.set_up()
    assert not os.path.exists(volume.stage_path)


# -- growing --------------------------------------------------------------------------------


@pytest.mark.parametrize("fs_type", SIZES)
async def test_volume_grows_while_it_is_used(declare, fs_type):
    if fs_type == "ext4" and not has_sys_resource():
        pytest.skip("ext4 grows online only with CAP_SYS_RESOURCE: run as root of a machine")
    size = SIZES[fs_type]
    small = declare(body={"fsType": fs_type}, capacity_bytes=size)
    target = await small.set_up()
    (target / "data").write_bytes(b"precious")
    before = os.statvfs(target)
    large = Volume(
        small.host, small.root.parent / f"p{os.getpid()}", IMAGE, small.source.body,
        capacity_bytes=2 * size,
    )  # fmt: skip
    done = await large.driver.expand(large.spec, small.device, small.staged)
    assert done.evidence == "grown to its device"
    assert os.statvfs(target).f_blocks > 1.7 * before.f_blocks
    done = await large.driver.expand(large.spec, small.device, small.staged)
    assert done.evidence == "fills its device already"
    assert (target / "data").read_bytes() == b"precious"


@pytest.mark.parametrize("fs_type", ["xfs", "btrfs"])
async def test_volume_that_was_declared_larger_meanwhile_grows_when_mounted(declare, fs_type):
    size = SIZES[fs_type]
    small = declare(body={"fsType": fs_type}, capacity_bytes=size)
    before = os.statvfs(await small.set_up())
    await small.take_down()
    large = declare(body={"fsType": fs_type}, capacity_bytes=2 * size)
    after = os.statvfs(await large.set_up())
    assert after.f_blocks > 1.7 * before.f_blocks
    assert any("grown to its device" in words for words in large.evidence)


async def test_volume_is_mounted_in_its_old_size_when_it_cannot_grow(declare, host):
    small = declare(capacity_bytes=32 * MIB)
    await small.set_up()
    await small.take_down()
    if has_sys_resource():
        pytest.skip("needs a machine without CAP_SYS_RESOURCE, where ext4 cannot grow online")
    large = declare(capacity_bytes=64 * MIB)
    await large.set_up()
    assert any("in its old size: resize2fs" in words for words in large.evidence)
    with pytest.raises(Uncertain) as caught:
        await large.driver.expand(large.spec, large.device, large.staged)
    assert "CAP_SYS_RESOURCE" in caught.value.remedy


# -- raw devices ----------------------------------------------------------------------------


async def test_raw_device_shows_the_image(declare, images):
    volume = declare(capacity_bytes=MIB, mode=VolumeMode.BLOCK)
    target = await volume.set_up()
    assert os.readlink(target) == volume.device.path
    with open(target, "r+b", buffering=0) as device:
        device.write(b"raw".ljust(512, b"\0"))
        os.fsync(device.fileno())
    assert image_of(images).read_bytes()[:3] == b"raw"
    await volume.take_down()
    larger = declare(capacity_bytes=2 * MIB, mode=VolumeMode.BLOCK)
    await larger.set_up()
    assert larger.device.size_bytes == 2 * MIB


async def test_exchanged_device_is_not_touched(declare):
    volume = declare(capacity_bytes=32 * MIB)
    await volume.set_up()
    other = HeldDevice(volume.device.path, volume.device.number, "loop:1:1")
    words = r"is loop:\d+:\d+ now, and was loop:1:1"
    with pytest.raises(Uncertain, match=words):
        await volume.driver.prepare(volume.spec, other)
    with pytest.raises(Uncertain, match=words):
        await volume.driver.stage(volume.spec, other, f"{volume.root}/elsewhere")
