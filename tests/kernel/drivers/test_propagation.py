"""mountPropagation: what is mounted in a volume later, seen from a container's mount namespace."""

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.contract.drivers.test_sub_path import Case
from tests.contract.drivers.worlds import RealWorld, drivers_on
from volagent.drivers.binding import bind_into_pod, unbind_from_pod
from volagent.drivers.contract import DriverName, Publication, VolumeKey, VolumeSource, VolumeSpec
from volagent.host.contract import TmpfsOptions
from volagent.objects.meta import PodUid

UID = PodUid("0f8fad5b-d9cb-469f-a165-70867728950e")
EMPTY_DIR = DriverName("kubernetes.io/empty-dir")

# What a runtime does for a container: a namespace of its own, the volume bound there.
_CONTAINER = """
import sys
from volagent.host import libc
volume, place, kind = sys.argv[1:]
shared = kind == "shared"
libc.unshare(libc.CLONE_NEWNS)
tree = libc.open_tree(libc.AT_FDCWD, volume.encode(), libc.OPEN_TREE_CLONE | libc.AT_RECURSIVE)
libc.move_mount(tree, libc.AT_FDCWD, place.encode())
if not shared:
    libc.mount_setattr(tree, libc.AT_RECURSIVE, libc.MountAttr(propagation=libc.MS_SLAVE))
print("runs", flush=True)
for line in sys.stdin:
    if line.startswith("mount"):
        context = libc.fsopen(b"tmpfs")
        libc.fsconfig(context, libc.FSCONFIG_CMD_CREATE, None, None)
        mount = libc.fsmount(context, 0)
        libc.move_mount(mount, libc.AT_FDCWD, (place + "/below").encode())
    table = open("/proc/self/mountinfo").read()
    print("seen" if place + "/below " in table else "unseen", flush=True)
"""


@contextmanager
def container(volume, place, kind):
    """Ask a process in a namespace of its own: `look`, or `mount` at `below` first."""
    argv = [sys.executable, "-c", _CONTAINER, str(volume), str(place), kind]
    with subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    ) as process:

        def ask(what):
            process.stdin.write(f"{what}\n")
            process.stdin.flush()
            return process.stdout.readline().strip()

        try:
            assert process.stdout.readline().strip() == "runs"
            yield ask
        finally:
            process.kill()


class Memory:
    """An emptyDir in memory."""

    def __init__(self, host, scratch):
        self.driver = drivers_on(host)[EMPTY_DIR]
        self.target = str(scratch / "pods" / "empty-dir")

    async def publish(self):
        options = self.driver.read_options(VolumeSource("emptyDir", {"medium": "Memory"}))
        volume = VolumeSpec(VolumeKey("pod/x/v"), EMPTY_DIR, "v", options)
        use = Publication(UID, "shop/web", self.target)
        return await self.driver.publish(volume, use, staged=None, device=None)

    async def unpublish(self, held):
        await self.driver.unpublish(held)


class Bound:
    """What a volume of a disk or a directory becomes for a pod."""

    def __init__(self, host, scratch):
        self.host = host
        self.source = str(scratch / "source")
        self.target = str(scratch / "pods" / "bound")
        os.mkdir(self.source)

    async def publish(self):
        use = Publication(UID, "shop/web", self.target)
        return await bind_into_pod(self.host, self.source, use, read_only=False)

    async def unpublish(self, held):
        await unbind_from_pod(self.host, held)


class SubPath:
    """A part of a volume."""

    def __init__(self, host, scratch):
        self.case = Case(RealWorld(host, scratch), "local")
        self.target = self.case.target

    async def publish(self):
        return await self.case.publish()

    async def unpublish(self, held):
        await self.case.unpublish(held)


@pytest.fixture(params=[Memory, Bound, SubPath])
def volume(request, real_host, scratch):
    return request.param(real_host, scratch)


@pytest.fixture
def place(scratch):
    path = scratch / "container"
    path.mkdir()
    return path


async def test_mount_made_in_a_volume_later_reaches_a_container(real_host, volume, place):
    held = (await volume.publish()).mount
    below = f"{volume.target}/below"
    os.mkdir(below)
    with container(volume.target, place, "slave") as ask:
        assert ask("look") == "unseen"
        made = real_host.mounts.mount_tmpfs(below, TmpfsOptions())
        assert ask("look") == "seen"
        real_host.mounts.unmount(below, expect=made)
        assert ask("look") == "unseen"
    os.rmdir(below)
    await volume.unpublish(held)


async def test_mount_made_by_a_container_reaches_the_node_when_it_is_shared(
    real_host, volume, place
):
    held = (await volume.publish()).mount
    below = f"{volume.target}/below"
    os.mkdir(below)
    with container(volume.target, place, "shared") as ask:
        assert ask("mount") == "seen"
        assert real_host.mounts.find_mount_at(below).fs_type == "tmpfs"
    real_host.mounts.unmount(below)
    os.rmdir(below)
    await volume.unpublish(held)


async def test_mount_made_by_a_container_stays_its_own_when_it_is_not_shared(
    real_host, volume, place
):
    held = (await volume.publish()).mount
    below = f"{volume.target}/below"
    os.mkdir(below)
    with container(volume.target, place, "slave") as ask:
        assert ask("mount") == "seen"
        assert real_host.mounts.find_mount_at(below) is None
    os.rmdir(below)
    await volume.unpublish(held)
