"""Copies of image files, of those in use too, each with a file system that can be mounted beside.

What a copy needs after it was taken: xfs and btrfs refuse, or confuse, two file systems with one
UUID, so a copy that will be a volume gets another. ext4 does not mind.
"""

import os
import stat
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from volagent.drivers.errors import Transient, Uncertain
from volagent.host import clone
from volagent.host.contract import Host
from volagent.host.errors import HostError, TimedOut
from volagent.host.process import LOCAL_BACKEND, Helpers

FREEZE_TIMEOUT_S: Final = 20.0
COPY_TIMEOUT_S: Final = 6 * 3600.0
RENEW_TIMEOUT_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class ImageCopies:
    """Takes copies of images of this VM."""

    host: Host
    helpers: Helpers

    def find_device(self, image: str) -> str:
        """The loop device that shows an image, or ""."""
        try:
            found = os.stat(image)
        except FileNotFoundError:
            return ""
        identity = f"loop:{found.st_dev}:{found.st_ino}"
        for path, device in self.host.devices.find_loops().items():
            if device.identity == identity:
                return path
        return ""

    async def copy(
        self, source: str, target: str, *, fresh_identity: bool, in_use: bool = False
    ) -> bool:
        """Copy an image; whether the blocks are shared. An existing target is done.

        `in_use`: by somebody who cannot be seen here, as another machine.

        Raises `Rejected` when the source is in use and its blocks cannot be shared.
        """
        shared = await self._take(source, target, in_use=in_use)
        if fresh_identity:
            await self.renew_identity(target)
        return shared

    async def _take(self, source: str, target: str, *, in_use: bool) -> bool:
        device = self.find_device(source)
        freeze = self._mount_point_of(device) if device else ""
        arguments = {"path": source, "target": target, "freeze": freeze}
        try:
            answer = await self.helpers.call(
                "share_file", arguments, backend=LOCAL_BACKEND, timeout_s=FREEZE_TIMEOUT_S
            )
        except TimedOut as error:
            raise Transient(f"the copy took too long: {error}", remedy="it is tried again") from (
                error
            )
        except HostError as error:
            raise Uncertain(f"cannot copy {source}: {error}") from error
        finally:
            if freeze:
                await self.helpers.run_in_pool(_thaw_quietly, freeze)
        if answer["shared"]:
            return True
        if device or in_use:
            raise Transient(  # nobody tells when the pods are gone
                f"{source} is in use, and its file system cannot share blocks (no reflink)",
                remedy="delete the pods that use the volume first, or put the image directory on"
                " xfs or btrfs",
            )
        await self.helpers.call(
            "copy_file", {"path": source, "target": target},
            backend=LOCAL_BACKEND, timeout_s=COPY_TIMEOUT_S,
        )  # fmt: skip
        return False

    def _mount_point_of(self, device: str) -> str:
        number = os.stat(device).st_rdev
        wanted = f"{os.major(number)}:{os.minor(number)}"
        for entry in self.host.mounts.read_table().entries:
            # btrfs has device numbers of its own: it is known by its source.
            if entry.device == wanted or entry.source == device:
                return entry.mount_point
        return ""

    async def renew_identity(self, image: str) -> None:
        """Give the file system in an image, or on a device, a UUID of its own where it has to."""
        try:
            signature = await self.host.devices.probe(image)
            if signature.fs_type == "xfs":
                await self._renew_xfs(image)
            elif signature.fs_type == "btrfs":
                await self._run("btrfstune", "-f", "-u", image)
        except HostError as error:
            raise Uncertain(f"cannot give {image} a UUID of its own: {error}") from error

    async def _renew_xfs(self, image: str) -> None:
        """xfs changes its UUID only with an empty log: a mount replays it."""
        point = tempfile.mkdtemp(prefix=".volagent-", dir=os.path.dirname(image))
        try:
            async with self._device_of(image) as device:
                mount_id = await self.host.mounts.mount_device(
                    device, point, fs_type="xfs", options=("nouuid",), read_only=False
                )
                self.host.mounts.unmount(point, expect=mount_id)
                await self._run("xfs_admin", "-U", "generate", device)
        finally:
            os.rmdir(point)

    @asynccontextmanager
    async def _device_of(self, image: str) -> AsyncIterator[str]:
        """The device itself, or one for the moment."""
        if stat.S_ISBLK(os.stat(image).st_mode):
            yield os.path.realpath(image)
            return
        device = await self.host.devices.attach_loop(image, read_only=False)
        try:
            yield device.path
        finally:
            await self.host.devices.detach_loop(device)

    async def _run(self, *argv: str) -> None:
        done = await self.helpers.run(argv, backend=LOCAL_BACKEND, timeout_s=RENEW_TIMEOUT_S)
        if done.returncode:
            raise Uncertain(f"{argv[0]}: {done.complaint}", remedy="is its package installed?")


def _thaw_quietly(mount_point: str) -> None:
    try:
        clone.thaw(mount_point)
    except OSError:
        return  # it is not mounted any more, so nothing is frozen
