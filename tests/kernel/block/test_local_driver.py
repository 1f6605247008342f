"""local on this kernel: directories are shown and left, disks are looked at before anything."""

import os

import pytest

from tests.kernel.block.test_devices import MBR
from tests.kernel.block.volumes import LOCAL
from volagent.drivers.contract import VolumeMode
from volagent.drivers.errors import Rejected, Transient

MIB = 1 << 20


async def test_directory_of_the_machine_is_shown_and_left(declare, images):
    directory = images / "ssd"
    directory.mkdir()
    (directory / "data").write_bytes(b"precious")
    volume = declare(LOCAL, {"path": str(directory)}, mount_options=("noexec", "nodev"))
    target = await volume.set_up()
    assert (target / "data").read_bytes() == b"precious"
    options = volume.host.mounts.find_mount_at(volume.target).options
    assert {"noexec", "nodev", "rw"} <= set(options)
    (target / "new").write_text("x")
    await volume.take_down()
    assert sorted(os.listdir(directory)) == ["data", "new"]


async def test_option_that_no_bind_has_is_refused_by_name(declare, images):
    volume = declare(LOCAL, {"path": str(images)}, mount_options=("commit=5",))
    with pytest.raises(Rejected, match=r"mountOptions commit=5"):
        await volume.set_up()


async def test_directory_is_read_only_when_its_claim_is(declare, images):
    target = await declare(LOCAL, {"path": str(images)}).set_up(read_only=True, fs_group=2000)
    with pytest.raises(OSError, match="Read-only file system"):
        (target / "new").write_text("x")
    assert images.stat().st_gid == 0


@pytest.mark.parametrize(
    ("thing", "words"), [("missing", "does not exist"), ("file", "is a file, not a directory")]
)
async def test_path_of_another_kind_is_named(declare, images, thing, words):
    (images / "file").write_text("x")
    with pytest.raises(Transient, match=words) as caught:
        await declare(LOCAL, {"path": f"{images}/{thing}"}).set_up()
    assert caught.value.remedy


async def test_directory_cannot_be_a_raw_device(declare, images):
    volume = declare(LOCAL, {"path": str(images)}, mode=VolumeMode.BLOCK)
    with pytest.raises(Transient, match="is a directory, not a block device"):
        await volume.set_up()


async def test_blank_disk_is_formatted_only_when_its_file_system_is_declared(declare, loops):
    device = await loops.attach("disk", 32 * MIB)
    with pytest.raises(Rejected, match="is blank, and is not formatted because nothing says"):
        await declare(LOCAL, {"path": device.path}).set_up()
    assert (await loops.devices.probe(device.path)).blank
    volume = declare(LOCAL, {"path": device.path, "fsType": "ext4"})
    target = await volume.set_up()
    (target / "data").write_bytes(b"precious")
    await volume.take_down()
    # From now on it need not be declared.
    os.symlink(device.path, loops.images / "by-id")
    volume = declare(LOCAL, {"path": f"{loops.images}/by-id"})
    target = await volume.set_up()
    assert (target / "data").read_bytes() == b"precious"
    assert volume.host.mounts.find_mount_at(volume.stage_path).fs_type == "ext4"
    await volume.take_down()
    assert device.path in loops.devices.find_loops()


async def test_disk_with_a_partition_table_is_refused(declare, loops):
    device = await loops.attach("disk", 32 * MIB)
    with open(device.path, "r+b", buffering=0) as end:
        end.write(bytes(MBR))
    with pytest.raises(Rejected, match="a partition table"):
        await declare(LOCAL, {"path": device.path, "fsType": "ext4"}).set_up()


async def test_raw_disk_is_linked(declare, loops):
    device = await loops.attach("disk", MIB)
    volume = declare(LOCAL, {"path": device.path}, mode=VolumeMode.BLOCK)
    assert os.readlink(await volume.set_up()) == device.path
