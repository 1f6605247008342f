"""Who keeps a mount busy, and which namespaces still show it."""

import os
import subprocess
import sys
from contextlib import contextmanager

import pytest

from volagent.host.contract import BindOptions, Propagation, TmpfsOptions
from volagent.host.errors import Busy


@contextmanager
def process(*argv, **options):
    """A process that has said that it is ready, and lives until the end of the block."""
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options
    ) as child:
        assert child.stdout.readline() == "ready\n"
        yield child
        child.stdin.close()


WAITING = "print('ready', flush=True); import sys; sys.stdin.read()"


@contextmanager
def namespace(*commands, unshare=("--propagation", "private")):
    """A process in a mount namespace of its own, after some commands there."""
    script = "; ".join([*commands, "echo ready", "read x"])
    with process("unshare", "--mount", *unshare, "sh", "-ec", script) as child:
        yield child


@pytest.fixture
def target(mounts, scratch):
    path = scratch / "target"
    path.mkdir()
    mounts.mount_tmpfs(str(path), TmpfsOptions())
    yield path
    mounts.unmount(str(path))


@pytest.fixture
def entry(mounts, target):
    return mounts.find_mount_at(str(target))


async def test_open_file_is_named(mounts, holders, target):
    with open(target / "file", "w") as file:
        with pytest.raises(Busy):
            mounts.unmount(str(target))
        found = await holders.find_holders(str(target))
    assert [(h.pid, h.kind, h.path) for h in found] == [(os.getpid(), "open file", file.name)]
    assert found[0].command
    assert await holders.find_holders(str(target)) == ()


async def test_working_directory_is_named(holders, target):
    with process(sys.executable, "-S", "-c", WAITING, cwd=target) as child:
        found = await holders.find_holders(str(target))
    assert [(h.pid, h.kind, h.path) for h in found] == [
        (child.pid, "working directory", str(target))
    ]


async def test_mapped_file_is_named(holders, target):
    """Without Python's mmap, which keeps a descriptor open."""
    (target / "file").write_bytes(b"content")
    program = (
        "import ctypes, os, sys\n"
        "fd = os.open(sys.argv[1], os.O_RDWR)\n"
        "libc = ctypes.CDLL(None); libc.mmap.restype = ctypes.c_void_p\n"
        "assert libc.mmap(None, 4096, 1, 1, fd, 0) not in (None, 2**64 - 1)\n"
        "os.close(fd)\n" + WAITING
    )
    with process(sys.executable, "-S", "-c", program, str(target / "file")) as child:
        found = await holders.find_holders(str(target))
    assert [(h.pid, h.kind, h.path) for h in found] == [
        (child.pid, "mapped file", f"{target}/file")
    ]


async def test_mount_below_is_named(mounts, holders, target):
    (target / "below").mkdir()
    mounts.mount_tmpfs(str(target / "below"), TmpfsOptions())
    found = await holders.find_holders(str(target))
    mounts.unmount(str(target / "below"))
    assert [(h.kind, h.path) for h in found] == [("mount below", f"{target}/below")]


async def test_nobody_is_named_who_uses_a_bind_of_the_same_directory(
    mounts, holders, target, scratch
):
    """Two mounts of one file system are two mounts: only the one in use is busy."""
    other = scratch / "other"
    other.mkdir()
    mounts.bind(str(target), str(other), BindOptions())
    with open(other / "file", "w"):
        here = await holders.find_holders(str(target))
        there = await holders.find_holders(str(other))
    mounts.unmount(str(other))
    assert here == ()
    assert [h.kind for h in there] == ["open file"]


async def test_loop_device_is_named_that_is_backed_by_a_file_of_the_mount(holders, target):
    image = target / "image"
    image.touch()
    os.truncate(image, 1 << 20)
    device = subprocess.run(
        ["losetup", "--find", "--show", str(image)], check=True, capture_output=True, text=True
    ).stdout.strip()
    try:
        found = await holders.find_holders(str(target))
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)
    assert (device, "open file", str(image)) in [(h.command, h.kind, h.path) for h in found]


async def test_limit_is_kept(holders, target):
    argv = (sys.executable, "-S", "-c", WAITING)
    with process(*argv, cwd=target), process(*argv, cwd=target):
        assert len(await holders.find_holders(str(target), limit=1)) == 1
        assert len(await holders.find_holders(str(target), limit=8)) == 2


async def test_nobody_is_named_when_nothing_is_mounted_there(holders, scratch):
    assert await holders.find_holders(f"{scratch}/missing") == ()
    (scratch / "plain").mkdir()
    assert await holders.find_holders(f"{scratch}/plain") == ()


# --- other namespaces -----------------------------------------------------------------------------


async def test_namespace_that_copied_the_mount_is_named(holders, target, entry):
    with namespace() as child:
        found = await holders.namespaces_holding([entry])
        named = await holders.find_holders(str(target))
    assert {id: (h.pid, h.kind, h.path) for id, h in found.items()} == {
        entry.mount_id: (child.pid, "mount namespace", str(target))
    }
    assert found[entry.mount_id] in named
    assert await holders.namespaces_holding([entry]) == {}


async def test_namespace_that_bound_a_part_of_the_mount_elsewhere_is_named(
    holders, target, entry, scratch
):
    (target / "part").mkdir()
    elsewhere = scratch / "elsewhere"
    elsewhere.mkdir()
    commands = [f"mount --bind {target}/part {elsewhere}", f"umount {target}"]
    with namespace(*commands) as child:
        found = await holders.namespaces_holding([entry])
    assert found[entry.mount_id].path == str(elsewhere)
    assert found[entry.mount_id].pid == child.pid


async def test_namespace_that_let_go_is_not_named(holders, target, entry):
    with namespace(f"umount {target}"):
        assert await holders.namespaces_holding([entry]) == {}


async def test_only_the_mounts_that_are_held_are_named(mounts, holders, target, entry, scratch):
    late = scratch / "late"
    late.mkdir()
    with namespace():
        mounts.mount_tmpfs(str(late), TmpfsOptions())
        later = mounts.find_mount_at(str(late))
        found = await holders.namespaces_holding([entry, later])
        mounts.unmount(str(late))
    assert set(found) == {entry.mount_id}
    assert await holders.namespaces_holding([]) == {}


async def test_namespace_that_follows_our_mounts_is_not_named(mounts, holders, scratch):
    """As a service's namespace does: it receives what is mounted and unmounted here."""
    parent = scratch / "parent"
    parent.mkdir()
    mounts.mount_tmpfs(str(parent), TmpfsOptions(propagation=Propagation.SHARED))
    (parent / "volume").mkdir()
    with namespace(unshare=("--propagation", "slave")) as child:
        mounts.mount_tmpfs(str(parent / "volume"), TmpfsOptions())
        volume = mounts.find_mount_at(str(parent / "volume"))
        with open(f"/proc/{child.pid}/mountinfo") as file:
            received = f"{parent}/volume" in file.read()
        found = await holders.namespaces_holding([volume])
        mounts.unmount(str(parent / "volume"))
        with open(f"/proc/{child.pid}/mountinfo") as file:
            followed = f"{parent}/volume" not in file.read()
    mounts.unmount(str(parent))
    assert received
    assert followed
    assert found == {}
