"""Mounting, binding and unmounting on the real kernel, beyond what the contract suite says."""

import dataclasses
import errno
import os
import subprocess
from pathlib import Path

import pytest

from volagent.host.contract import BindOptions, Propagation, TmpfsOptions
from volagent.host.errors import Absent, Busy, Escapes, HostError, Unsupported
from volagent.host.features import detect_features
from volagent.host.mountinfo import MountinfoReader
from volagent.host.mounts import RealMounts
from volagent.host.statmount import StatmountReader, statmount_is_complete


@pytest.fixture
def target(scratch):
    path = scratch / "target"
    path.mkdir()
    return str(path)


@pytest.fixture
def source(scratch):
    path = scratch / "source"
    path.mkdir()
    (path / "file").write_text("content")
    return str(path)


@pytest.fixture
def image(scratch):
    """A blank loop device."""
    path = scratch / "image"
    path.touch()
    os.truncate(path, 32 << 20)
    device = run("losetup", "--find", "--show", str(path)).strip()
    yield device
    run("losetup", "--detach", device)


def run(*argv):
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def options_of(mounts, mount_id):
    return mounts.find_mount(mount_id).options


def test_both_readers_tell_the_same_of_every_mount_when_names_are_awkward(mounts, scratch):
    if not statmount_is_complete():
        pytest.skip("statmount tells too little before Linux 6.13")
    awkward = scratch / "a b\tc\\d\nü"
    awkward.mkdir()
    mounts.mount_tmpfs(str(awkward), TmpfsOptions(size_bytes=1 << 20))
    inside = awkward / "in side"
    inside.mkdir()
    bound = scratch / "bound"
    bound.mkdir()
    mounts.bind(str(inside), str(bound), BindOptions(options=("noexec", "noatime"), read_only=True))

    def comparable(table):
        return [dataclasses.replace(e, mount_id=0, parent_id=0) for e in table.entries]

    by_statmount = comparable(StatmountReader().read_table())
    by_mountinfo = comparable(MountinfoReader().read_table())
    mounts.unmount(str(bound))
    mounts.unmount(str(awkward))
    assert by_statmount == by_mountinfo
    assert [e.mount_point for e in by_mountinfo][-2:] == [str(awkward), str(bound)]
    assert by_mountinfo[-1].root == "/in side"


def test_reader_answers_by_the_ids_that_mounting_returned(helpers, each_reader, target):
    mounts = RealMounts(helpers=helpers, reader=each_reader)
    mount_id = mounts.mount_tmpfs(target, TmpfsOptions(size_bytes=4096))
    found = mounts.find_mount(mount_id)
    listed = [e for e in mounts.read_table().entries if e.mount_id == mount_id]
    at_target = mounts.find_mount_at(target)
    newest = each_reader.find_newest(target)
    mounts.unmount(target, expect=mount_id)
    assert found.mount_point == target
    assert found.fs_type == "tmpfs"
    assert "size=4k" in found.super_options
    assert [found] == listed == [at_target] == [newest]
    assert mounts.find_mount(mount_id) is None
    assert each_reader.find_newest(target) is None


def test_table_puts_a_mount_after_its_parent_when_it_was_made_before(helpers, each_reader, scratch):
    early, late = scratch / "early", scratch / "late"
    early.mkdir()
    late.mkdir()
    mounts = RealMounts(helpers=helpers, reader=each_reader)
    mounts.mount_tmpfs(str(early), TmpfsOptions())
    mounts.mount_tmpfs(str(late), TmpfsOptions())
    (late / "inside").mkdir()
    run("mount", "--move", str(early), str(late / "inside"))
    points = [e.mount_point for e in mounts.read_table().entries]
    mounts.unmount(str(late / "inside"))
    mounts.unmount(str(late))
    assert points.index(str(late)) < points.index(str(late / "inside"))


def test_tmpfs_has_exactly_what_was_asked_for(mounts, target):
    no_swap = next(f.available for f in detect_features() if f.name == "tmpfs noswap")
    asked = TmpfsOptions(size_bytes=1 << 20, mode=0o2770, uid=1000, gid=2000, no_swap=True)
    mount_id = mounts.mount_tmpfs(target, asked)
    found = os.stat(target)
    space = os.statvfs(target)
    entry = mounts.find_mount(mount_id)
    mounts.unmount(target)
    assert found.st_mode & 0o7777 == 0o2770
    assert (found.st_uid, found.st_gid) == (1000, 2000)
    assert space.f_blocks * space.f_frsize == 1 << 20
    assert {"nosuid", "nodev"} <= set(entry.options)
    assert ("noswap" in entry.super_options) is no_swap


def test_huge_pages_have_the_size_that_was_asked_for(mounts, target):
    if not os.path.isdir("/sys/kernel/mm/hugepages/hugepages-2048kB"):
        pytest.skip("this machine has no huge pages of 2 MiB")
    mount_id = mounts.mount_tmpfs(target, TmpfsOptions(mode=0o770, huge_page_bytes=2 << 20))
    entry, mode = mounts.find_mount(mount_id), os.stat(target).st_mode & 0o7777
    mounts.unmount(target)
    assert entry.fs_type == "hugetlbfs"
    assert "pagesize=2M" in entry.super_options
    assert mode == 0o770


def test_mounts_are_private_when_the_mount_they_stand_on_is_shared(mounts, target, source):
    mounts.mount_tmpfs(target, TmpfsOptions(propagation=Propagation.SHARED))
    below, bound = f"{target}/below", f"{target}/bound"
    os.mkdir(below)
    os.mkdir(bound)
    made = [mounts.mount_tmpfs(below, TmpfsOptions()), mounts.bind(source, bound, BindOptions())]
    told = [mounts.find_mount(mount_id).propagation for mount_id in made]
    parent = mounts.find_mount_at(target).propagation
    mounts.unmount(bound)
    mounts.unmount(below)
    mounts.unmount(target)
    assert parent == "shared"
    assert told == ["private", "private"]


def test_shared_bind_is_no_peer_of_its_source(mounts, target, scratch):
    source = scratch / "shared"
    source.mkdir()
    mounts.mount_tmpfs(str(source), TmpfsOptions(propagation=Propagation.SHARED))
    (source / "below").mkdir()
    bound = mounts.bind(str(source), target, BindOptions(propagation=Propagation.SHARED))
    mounts.mount_tmpfs(str(source / "below"), TmpfsOptions())
    propagated = mounts.find_mount_at(f"{target}/below")
    mounts.unmount(str(source / "below"))
    propagation = mounts.find_mount(bound).propagation
    mounts.unmount(target)
    mounts.unmount(str(source))
    assert propagation == "shared"
    assert propagated is None


def test_slave_bind_shows_what_is_mounted_below_its_source_later(mounts, target, scratch):
    source = scratch / "shared"
    source.mkdir()
    mounts.mount_tmpfs(str(source), TmpfsOptions(propagation=Propagation.SHARED))
    (source / "below").mkdir()
    mounts.bind(str(source), target, BindOptions(propagation=Propagation.SLAVE))
    mounts.mount_tmpfs(str(source / "below"), TmpfsOptions())
    propagated = mounts.find_mount_at(f"{target}/below")
    mounts.unmount(str(source / "below"))
    gone = mounts.find_mount_at(f"{target}/below")
    mounts.unmount(target)
    mounts.unmount(str(source))
    assert propagated is not None
    assert gone is None


def test_bind_options_become_attributes_of_the_bind_only(mounts, target, source):
    options = ("noexec", "nodev", "nosuid", "noatime")
    mount_id = mounts.bind(source, target, BindOptions(read_only=True, options=options))
    told = options_of(mounts, mount_id)
    with pytest.raises(OSError, match="Read-only"):
        open(f"{target}/file", "w").close()
    open(f"{source}/file", "w").close()
    mounts.unmount(target)
    assert {"ro", *options} <= set(told)


def test_bind_fails_without_a_trace_when_an_option_is_none_of_a_bind(mounts, target, source):
    with pytest.raises(HostError, match="no bind mount option: size=5"):
        mounts.bind(source, target, BindOptions(options=("size=5",)))
    assert mounts.find_mount_at(target) is None


@pytest.mark.parametrize("everywhere", [True, False])
def test_recursive_bind_is_read_only_below_when_asked_for(mounts, target, scratch, everywhere):
    source = scratch / "source"
    (source / "below").mkdir(parents=True)
    mounts.mount_tmpfs(str(source / "below"), TmpfsOptions())
    asked = BindOptions(recursive=True, read_only=True, recursive_read_only=everywhere)
    mounts.bind(str(source), target, asked)
    top, below = mounts.find_mount_at(target), mounts.find_mount_at(f"{target}/below")
    original = mounts.find_mount_at(str(source / "below"))
    mounts.unmount(f"{target}/below")
    mounts.unmount(target)
    mounts.unmount(str(source / "below"))
    assert "ro" in top.options
    assert ("ro" in below.options) is everywhere
    assert below.propagation == "private"
    assert "rw" in original.options


def test_bind_shows_a_file_and_a_device(mounts, scratch):
    file, device = scratch / "file", scratch / "device"
    file.touch()
    device.touch()
    (scratch / "real").write_text("content")
    mounts.bind(str(scratch / "real"), str(file), BindOptions())
    mounts.bind("/dev/null", str(device), BindOptions())
    content, is_device = file.read_text(), device.is_char_device()
    mounts.unmount(str(file))
    mounts.unmount(str(device))
    assert content == "content"
    assert is_device


def test_bind_fails_without_a_trace_when_source_and_target_differ_in_kind(mounts, target, source):
    with pytest.raises(HostError, match="move_mount"):
        mounts.bind(f"{source}/file", target, BindOptions())
    assert mounts.find_mount_at(target) is None


def test_mounting_is_refused_when_a_link_leads_to_the_target(mounts, scratch, target, source):
    (scratch / "way").symlink_to(scratch)
    (scratch / "link").symlink_to(target)
    with pytest.raises(Escapes):
        mounts.mount_tmpfs(f"{scratch}/way/target", TmpfsOptions())
    with pytest.raises(HostError):
        mounts.bind(source, f"{scratch}/link", BindOptions())
    with pytest.raises(Escapes):
        mounts.unmount(f"{scratch}/way/target")
    assert mounts.find_mount_at(target) is None


def test_unmount_does_not_follow_a_link_at_the_target(mounts, scratch, target):
    mount_id = mounts.mount_tmpfs(target, TmpfsOptions())
    (scratch / "link").symlink_to(target)
    with pytest.raises(Absent):
        mounts.unmount(f"{scratch}/link")
    with pytest.raises(Absent):
        mounts.unmount(f"{scratch}/link", expect=mount_id)
    mounts.unmount(target, expect=mount_id)


def test_unmount_is_busy_when_something_is_mounted_below(mounts, target):
    mounts.mount_tmpfs(target, TmpfsOptions())
    os.mkdir(f"{target}/below")
    mounts.mount_tmpfs(f"{target}/below", TmpfsOptions())
    with pytest.raises(Busy):
        mounts.unmount(target)
    mounts.unmount(f"{target}/below")
    mounts.unmount(target)


def test_a_nul_in_a_path_cuts_nothing_short(mounts, target):
    with pytest.raises((HostError, ValueError)):
        mounts.mount_tmpfs(f"{target}\0/more", TmpfsOptions())
    assert mounts.find_mount_at(target) is None


async def test_device_is_mounted_with_options_of_both_kinds(mounts, target, image):
    run("mkfs.ext4", "-q", image)
    options = ["noatime,nodev", "commit=17", "defaults", "nofail", "x-systemd.automount"]
    mount_id = await mounts.mount_device(
        image, target, fs_type="ext4", options=options, read_only=False
    )
    entry = mounts.find_mount(mount_id)
    mounts.unmount(target, expect=mount_id)
    assert entry.source == image
    assert {"rw", "noatime", "nodev"} <= set(entry.options)
    assert "commit=17" in entry.super_options


async def test_device_is_read_only_altogether_when_asked_for(mounts, target, image):
    run("mkfs.ext4", "-q", image)
    mount_id = await mounts.mount_device(image, target, fs_type="ext4", options=(), read_only=True)
    entry = mounts.find_mount(mount_id)
    mounts.unmount(target, expect=mount_id)
    assert "ro" in entry.options
    assert "ro" in entry.super_options


async def test_device_failure_carries_the_kernels_words_when_an_option_is_unknown(
    mounts, target, image
):
    run("mkfs.ext4", "-q", image)
    with pytest.raises(HostError, match="wibble") as failure:
        await mounts.mount_device(
            image, target, fs_type="ext4", options=["wibble=1"], read_only=False
        )
    assert failure.value.errno == errno.EINVAL
    assert mounts.find_mount_at(target) is None


async def test_device_is_refused_when_it_has_another_file_system(mounts, target, image):
    with pytest.raises(HostError):
        await mounts.mount_device(image, target, fs_type="ext4", options=(), read_only=False)
    assert mounts.find_mount_at(target) is None


async def test_device_mount_is_unsupported_when_the_kernel_lacks_the_file_system(mounts, target):
    with pytest.raises(Unsupported, match="no file system of type 'wibblefs'"):
        await mounts.mount_device(
            "/dev/null", target, fs_type="wibblefs", options=(), read_only=False
        )


async def test_slow_unmount_is_busy_while_a_file_is_open_and_lazy_gets_it_out(mounts, target):
    mounts.mount_tmpfs(target, TmpfsOptions())
    slow = {"backend": "test", "timeout_s": 20.0}
    with open(f"{target}/open", "w"):
        with pytest.raises(Busy):
            await mounts.unmount_slowly(target, force=False, lazy=False, **slow)
        await mounts.unmount_slowly(target, force=False, lazy=True, **slow)
    assert mounts.find_mount_at(target) is None
    with pytest.raises(Absent):
        await mounts.unmount_slowly(target, force=False, lazy=False, **slow)


async def test_network_mount_says_what_is_missing_when_there_is_no_such_file_system(mounts, target):
    with pytest.raises(HostError):
        await mounts.mount_network(
            "127.0.0.1:/nothing",
            target,
            fs_type="wibblefs",
            options=(),
            backend="wibble:127.0.0.1",
            timeout_s=20.0,
        )


def test_mounts_of_these_tests_are_invisible_to_the_machine(mounts, target):
    mount_id = mounts.mount_tmpfs(target, TmpfsOptions())
    outside = Path(f"/proc/{os.getppid()}/mountinfo").read_text()
    mounts.unmount(target, expect=mount_id)
    assert target not in outside
