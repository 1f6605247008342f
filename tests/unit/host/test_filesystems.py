"""What the tools for file systems say, and what it means."""

import errno
import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volagent.host.blank import plan_areas
from volagent.host.errors import Busy, HostError, Unsupported
from volagent.host.filesystems import (
    SUPERBLOCKS_BYTES,
    check_command,
    find_maker,
    grow_command,
    read_blkid,
    read_check,
    read_size,
)

EXT4 = b"DEVNAME=/dev/loop0\nUUID=77b3\nLABEL=data\nBLOCK_SIZE=1024\nTYPE=ext4\nUSAGE=filesystem\n"


def test_file_system_is_named_with_its_uuid_and_label():
    found = read_blkid("/dev/loop0", 0, EXT4, "")
    assert (found.blank, found.fs_type, found.uuid, found.label) == (False, "ext4", "77b3", "data")
    assert not found.found


@pytest.mark.parametrize(
    ("stdout", "found"),
    [
        (b"DEVNAME=/dev/x\nPTTYPE=dos\n", "a partition table (dos)"),
        (b"DEVNAME=/dev/x\nPTTYPE=gpt\nPTUUID=1\n", "a partition table (gpt)"),
        (b"TYPE=swap\nUSAGE=other\n", "swap (other)"),
        (b"TYPE=LVM2_member\nUSAGE=raid\n", "LVM2_member (raid)"),
        (b"TYPE=crypto_LUKS\nUSAGE=crypto\n", "crypto_LUKS (crypto)"),
        (b"TYPE=novelty\n", "novelty (unknown use)"),
    ],
)
def test_foreign_signature_is_named(stdout, found):
    signature = read_blkid("/dev/x", 0, stdout, "")
    assert not signature.blank
    assert signature.fs_type == ""
    assert signature.found == found


def test_several_signatures_are_foreign():
    assert read_blkid("/dev/x", 8, b"", "ambivalent").found == "several signatures at once"


def test_nothing_found_is_not_yet_blank():
    assert read_blkid("/dev/x", 2, b"", "") is None
    partition = b"DEVNAME=/dev/sda1\nPART_ENTRY_SCHEME=gpt\nPART_ENTRY_NUMBER=1\n"
    assert read_blkid("/dev/sda1", 0, partition, "") is None


@pytest.mark.parametrize(("status", "complaint"), [(2, "blkid: error: /dev/x: EPERM"), (4, "")])
def test_blkid_that_cannot_tell_is_an_error(status, complaint):
    with pytest.raises(HostError, match=r"blkid /dev/x: (blkid: error|exit status 4)"):
        read_blkid("/dev/x", status, b"", complaint)


@pytest.mark.parametrize(
    ("status", "clean", "repaired"),
    [(0, True, False), (1, True, True), (2, True, True), (3, True, True), (4, False, False),
     (5, False, False), (12, False, False)],
)  # fmt: skip
def test_exit_status_of_fsck_is_understood(status, clean, repaired):
    report = read_check("/dev/x", status, "what it said")
    assert (report.clean, report.repaired) == (clean, repaired)


def test_fsck_of_a_mounted_device_is_busy():
    with pytest.raises(Busy):
        read_check("/dev/x", 8, "/dev/x is mounted.; e2fsck: Cannot continue, aborting.")


def test_fsck_without_a_superblock_finds_damage():
    assert not read_check("/dev/x", 8, "Bad magic number in super-block; superblock").clean


@pytest.mark.parametrize("status", [8, 16, -9])
def test_fsck_that_failed_itself_is_an_error(status):
    with pytest.raises(HostError):
        read_check("/dev/x", status, "")


def test_only_the_ext_family_is_checked_before_mounting():
    assert check_command("ext4", "/dev/x") == ("e2fsck", "-p", "/dev/x")
    assert check_command("xfs", "/dev/x") is None
    assert check_command("btrfs", "/dev/x") is None


@pytest.mark.parametrize(("fs_type", "least_mib"), [("ext4", 4), ("xfs", 300), ("btrfs", 109)])
def test_device_that_is_too_small_is_refused_with_the_size_it_needs(fs_type, least_mib):
    assert find_maker(fs_type, "/dev/x", least_mib << 20)
    with pytest.raises(HostError, match=f"{fs_type} needs at least {least_mib} MiB") as caught:
        find_maker(fs_type, "/dev/x", (least_mib << 20) - (1 << 20))
    assert caught.value.errno == errno.ENOSPC


def test_other_file_systems_are_not_made_or_grown():
    with pytest.raises(Unsupported, match="ext4, xfs, btrfs, not 'zfs'"):
        find_maker("zfs", "/dev/x", 1 << 40)
    with pytest.raises(Unsupported):
        grow_command("zfs", "/dev/x", "/mnt")


@pytest.mark.parametrize("fs_type", ["ext4", "xfs", "btrfs", "zfs"])
def test_size_is_unknown_when_there_is_no_such_superblock(fs_type):
    assert read_size(fs_type, bytes(SUPERBLOCKS_BYTES)) == 0
    assert read_size(fs_type, b"") == 0


def test_size_of_a_large_ext4_has_64_bits():
    head = bytearray(SUPERBLOCKS_BYTES)
    struct.pack_into("<I", head, 1028, 5)
    struct.pack_into("<I", head, 1048, 2)  # 4 KiB blocks
    struct.pack_into("<I", head, 1024 + 0x150, 1)
    assert read_size("ext4", bytes(head)) == 5 * 4096
    struct.pack_into("<I", head, 1024 + 0x60, 0x80)
    assert read_size("ext4", bytes(head)) == ((1 << 32) + 5) * 4096


@given(st.integers(min_value=1, max_value=1 << 31).map(lambda sectors: sectors * 512))
def test_looked_at_areas_lie_on_the_device_and_cover_its_ends(size_bytes):
    areas = plan_areas(size_bytes)
    seen = set()
    for offset, length in areas:
        assert offset % 4096 == 0
        assert length % 512 == 0
        assert 0 <= offset <= offset + length <= size_bytes
        seen.update((offset, offset + length))
    assert 0 in seen
    assert size_bytes in seen
    edge = min(size_bytes, 4 << 20)
    assert any(offset == 0 and length == edge for offset, length in areas)
    assert any(
        offset <= size_bytes - edge and offset + length == size_bytes for offset, length in areas
    )


@given(st.integers(min_value=64 << 20, max_value=1 << 40))
def test_no_stretch_of_a_device_stays_unlooked_at(size_bytes):
    offsets = sorted(offset for offset, _ in plan_areas(size_bytes))
    gaps = [after - before for before, after in itertools.pairwise(offsets)]
    assert max(gaps) <= size_bytes // 32
