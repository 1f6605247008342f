"""Two machines for the drivers' contract: the fake kernel and this one, asked the same questions.

The questions look at the world directly (paths, mounts, contents); no driver and no record is
believed. `interrupt` kills whoever works on a host, between or after any two of its calls.
"""

import dataclasses
import inspect
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from tests.simulation.fake_host import make_fake_host
from tests.simulation.fake_initiator import FakeInitiator
from tests.simulation.fake_kernel import FakeKernel, Tree
from volagent.aio.clock import SystemClock
from volagent.drivers import make_drivers
from volagent.drivers.contract import DriverTable, HeldMount
from volagent.drivers.ebs.cloud import EbsConfig
from volagent.drivers.ebs.store import make_block_store
from volagent.drivers.layout import Layout
from volagent.host import libc
from volagent.host.contract import Host
from volagent.host.nbd import RealNbd
from volagent.host.process import Helpers


class World(Protocol):
    """A machine as a bystander sees it."""

    host: Host
    root: str

    def exists(self, path: str) -> bool: ...
    def mounts_at(self, path: str) -> int: ...
    def files(self, path: str) -> dict[str, bytes]: ...
    def write(self, path: str, data: bytes) -> None: ...
    def unmount_by_hand(self, path: str) -> None: ...
    def cover(self, path: str) -> Callable[[], None]: ...
    def hold(self, path: str) -> Callable[[], None]: ...


class FakeWorld:
    root = "/var/lib/kubelet"

    def __init__(self):
        self.kernel = FakeKernel()
        self.host = make_fake_host(self.kernel)

    def exists(self, path):
        return self.kernel.inode(path) is not None

    def mounts_at(self, path):
        return sum(mount.entry.mount_point == path for mount in self.kernel.mounts)

    def files(self, path):
        return self.kernel.files(path)

    def write(self, path, data):
        self.kernel.write(path, data)

    def unmount_by_hand(self, path):
        self.kernel.remove_mount(path)

    def cover(self, path):
        self.kernel.add_mount(path, Tree("ext4", "/dev/vdb"), "", read_only=False)
        return lambda: self.kernel.remove_mount(path)

    def hold(self, path):
        self.kernel.held_open.add(path)
        return lambda: self.kernel.held_open.discard(path)


class RealWorld:
    def __init__(self, host: Host, scratch: Path):
        self.host = host
        self.root = str(scratch)

    def exists(self, path):
        return os.path.lexists(path)

    def mounts_at(self, path):
        return sum(e.mount_point == path for e in self.host.mounts.read_table().entries)

    def files(self, path):
        found = {}
        for name in os.listdir(path):
            if not name.startswith(".."):
                self._collect(os.path.join(path, name), name, found)
        return found

    def _collect(self, path, relative, found):
        if stat.S_ISREG(os.stat(path).st_mode):
            found[relative] = Path(path).read_bytes()
            return
        for name in os.listdir(path):
            self._collect(os.path.join(path, name), f"{relative}/{name}", found)

    def write(self, path, data):
        Path(path).write_bytes(data)

    def unmount_by_hand(self, path):
        libc.umount2(os.fsencode(path), libc.MNT_DETACH)

    def cover(self, path):
        """Show another file system there."""
        tree = libc.open_tree(libc.AT_FDCWD, b"/proc", libc.OPEN_TREE_CLONE)
        libc.move_mount(tree, libc.AT_FDCWD, os.fsencode(path))
        os.close(tree)
        return lambda: self.unmount_by_hand(path)

    def hold(self, path):
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        return lambda: os.close(fd)


def drivers_on(host: Host) -> DriverTable:
    """All drivers, with settings that these kinds do not look at."""
    return make_drivers(
        host,
        Layout("/var/lib/kubelet"),
        image_dir="/var/lib/volagent/images",
        nfs_mount_timeout_s=30.0,
        nfs_unmount_timeout_s=30.0,
        block_store=make_block_store(EbsConfig(cluster="vm1"), SystemClock()),
        initiator=FakeInitiator(host),
        nbd=RealNbd(helpers=Helpers(), directory="/run/volagent/nbd"),
    )


class Killed(BaseException):
    """The agent dies here; not an Exception, so nothing may swallow it."""


class _Countdown:
    def __init__(self, moments: int):
        self.left = moments

    def pass_moment(self) -> None:
        if self.left == 0:
            raise Killed
        self.left -= 1


class _Interrupted:
    def __init__(self, part, countdown: _Countdown):
        self._part = part
        self._countdown = countdown

    def __getattr__(self, name):
        method, countdown = getattr(self._part, name), self._countdown
        if inspect.iscoroutinefunction(method):

            async def call_slowly(*args, **kwargs):
                countdown.pass_moment()
                answer = await method(*args, **kwargs)
                countdown.pass_moment()
                return answer

            return call_slowly

        def call(*args, **kwargs):
            countdown.pass_moment()
            answer = method(*args, **kwargs)
            countdown.pass_moment()
            return answer

        return call


def interrupt(host: Host, moments: int) -> Host:
    """The host, for somebody who dies after that many moments: one before, one after each call."""
    countdown = _Countdown(moments)
    parts = {
        field.name: _Interrupted(getattr(host, field.name), countdown)
        for field in dataclasses.fields(host)
    }
    return Host(**parts)


def find_standing(world: World, path: str) -> HeldMount:
    """What the node knows of a path after a kill: the path, and the mount that stands there."""
    standing = world.host.mounts.find_mount_at(path)
    return HeldMount(path, standing.mount_id if standing is not None else 0)
