"""What local storage there is in a directory, and how it is emptied.

`scan` looks at each entry of a directory: a mounted file system, a block device or a link to one, a
plain directory. `empty` and `wipe` remove data, each only after it has looked again that the place
is what the caller means and that nothing else uses it. File systems that a server could hold up are
never touched. Everything that reads a disk runs in a helper process or in the pool.
"""

import errno
import os
import stat
from dataclasses import dataclass
from typing import Final, Literal

from volagent.host import block_devices, paths, removal
from volagent.host.contract import Host, MountEntry, MountTable
from volagent.host.errors import Absent, Busy, HostError
from volagent.host.process import LOCAL_BACKEND, Helpers

REMOTE_TYPES: Final = frozenset({"nfs", "nfs4", "cifs", "smb3", "ceph", "9p", "autofs"})
KEPT: Final = frozenset({"lost+found"})
MEASURE_TIMEOUT_S: Final = 10.0
WIPE_TIMEOUT_S: Final = 6 * 3600.0
"""Zeroing a large disk takes hours where it cannot discard."""


@dataclass(frozen=True, slots=True)
class Place:
    """One usable entry of a directory."""

    path: str
    kind: Literal["filesystem", "directory", "block"]
    size_bytes: int
    identity: str
    """`uuid:<of the file system>:<path inside it>`, the disk's own identity, or
    `directory:<device>:<inode>`."""


@dataclass(frozen=True, slots=True)
class Unusable:
    """An entry that cannot be a volume, and why."""

    path: str
    reason: str


class LocalStorage:
    """The local disks and directories of this VM."""

    def __init__(self, host: Host, helpers: Helpers) -> None:
        self._host = host
        self._helpers = helpers

    async def scan(
        self, directory: str, *, plain_directories: bool
    ) -> tuple[list[Place], list[Unusable]]:
        """What is in a directory, by name. Raises `HostError` when it cannot be listed."""
        try:
            names = sorted(os.listdir(directory))
        except FileNotFoundError as error:
            raise Absent("listdir", directory, errno.ENOENT) from error
        except OSError as error:
            raise HostError("listdir", directory, error.errno or 0) from error
        table = self._host.mounts.read_table()
        places: list[Place] = []
        unusable: list[Unusable] = []
        for name in names:
            if name.startswith("."):
                continue
            path = f"{directory.rstrip('/')}/{name}"
            try:
                found = await self._look(path, table, plain_directories=plain_directories)
            except HostError as error:
                found = Unusable(path, str(error))
            if isinstance(found, Place):
                places.append(found)
            else:
                unusable.append(found)
        return places, unusable

    async def empty(self, place: Place) -> int:
        """Remove everything in a mounted file system or directory, which stays; how many entries.

        Raises `Busy` when something is mounted inside or shows it elsewhere, `Absent` when the
        place is not the one described.
        """
        await self._check(place)
        return await self._helpers.run_in_pool(_empty, place.path)

    async def wipe(self, place: Place) -> None:
        """Zero (or discard) a whole disk. Raises `Busy`, `Absent`, `HostError`."""
        await self._check(place)
        # blkdiscard opens the device exclusively: one that is mounted or held is refused.
        device = block_devices.identify(place.path).path
        argv = ["blkdiscard", "--zeroout", device]
        done = await self._helpers.run(argv, backend=LOCAL_BACKEND, timeout_s=WIPE_TIMEOUT_S)
        if done.returncode:
            kind = Busy if "busy" in done.complaint.lower() else HostError
            raise kind("blkdiscard", device, errno.EBUSY if kind is Busy else 0, done.complaint)

    async def _check(self, place: Place) -> None:
        """The place is what it was, and nothing else shows it."""
        table = self._host.mounts.read_table()
        found = await self._look(place.path, table, plain_directories=place.kind == "directory")
        if not isinstance(found, Place) or found.identity != place.identity:
            seen = found.identity if isinstance(found, Place) else found.reason
            raise Absent("look at", place.path, errno.ESTALE, f"it is {seen} now")
        for entry in _showing(place, table):
            raise Busy(
                "empty", place.path, errno.EBUSY, f"it is also mounted at {entry.mount_point}"
            )

    async def _look(
        self, path: str, table: MountTable, *, plain_directories: bool
    ) -> Place | Unusable:
        mount = _topmost(path, table)
        if mount is not None:
            return await self._look_at_mount(path, mount)
        try:
            found = os.lstat(path)
        except OSError as error:
            return Unusable(path, error.strerror or "cannot be looked at")
        if stat.S_ISLNK(found.st_mode) or stat.S_ISBLK(found.st_mode):
            try:
                device = block_devices.identify(path)
            except HostError as error:
                return Unusable(path, f"no block device: {error}")
            if device.size_bytes == 0:
                return Unusable(path, "the device has no medium")
            return Place(path, "block", device.size_bytes, device.identity)
        if not stat.S_ISDIR(found.st_mode):
            return Unusable(path, "neither a mount point, a block device nor a directory")
        if not plain_directories:
            return Unusable(path, "a plain directory; is its disk not mounted?")
        size_bytes = await self._measure(path)
        return Place(path, "directory", size_bytes, f"directory:{found.st_dev}:{found.st_ino}")

    async def _look_at_mount(self, path: str, mount: MountEntry) -> Place | Unusable:
        if mount.fs_type in REMOTE_TYPES or mount.fs_type.startswith("fuse"):
            return Unusable(path, f"a {mount.fs_type} mount is not local storage")
        if not mount.source.startswith("/dev/"):
            return Unusable(path, f"a {mount.fs_type} mount is on no disk")
        signature = await self._host.devices.probe(mount.source)
        if not signature.uuid:
            return Unusable(path, f"the file system on {mount.source} has no UUID")
        identity = f"uuid:{signature.uuid}:{mount.root}"
        return Place(path, "filesystem", await self._measure(path), identity)

    async def _measure(self, path: str) -> int:
        usage = await self._host.gauges.measure(
            path, backend=f"local:{path}", timeout_s=MEASURE_TIMEOUT_S
        )
        return usage.capacity_bytes


def _topmost(path: str, table: MountTable) -> MountEntry | None:
    found = None
    for entry in table.entries:
        if entry.mount_point == path:
            found = entry
    return found


def _showing(place: Place, table: MountTable) -> list[MountEntry]:
    """Other mounts that show the place's data."""
    if place.kind == "block":
        return []  # the exclusive open tells
    mount = _topmost(place.path, table)
    if mount is not None:
        device, inside = mount.device, mount.root
        return [
            entry
            for entry in table.entries
            if entry.device == device
            and entry.mount_id != mount.mount_id
            and _is_within(entry.root, inside)
        ]
    found = os.stat(place.path)
    device = f"{os.major(found.st_dev)}:{os.minor(found.st_dev)}"
    holder = max(
        (entry for entry in table.entries if _is_within(place.path, entry.mount_point)),
        key=lambda entry: len(entry.mount_point),
    )
    inside = holder.root.rstrip("/") + place.path.removeprefix(holder.mount_point.rstrip("/"))
    return [e for e in table.entries if e.device == device and _is_within(e.root, inside)]


def _is_within(path: str, directory: str) -> bool:
    """By components: `/a/bc` is not within `/a/b`."""
    parts = [part for part in path.split("/") if part]
    above = [part for part in directory.split("/") if part]
    return parts[: len(above)] == above


def _empty(path: str) -> int:
    directory = paths.open_listing(path)
    try:
        removed = 0
        for name in sorted(os.listdir(directory)):
            if name in KEPT:
                continue
            if stat.S_ISDIR(os.lstat(name, dir_fd=directory).st_mode):
                removal.remove_below(directory, name)
                os.rmdir(name, dir_fd=directory)
            else:
                os.unlink(name, dir_fd=directory)
            removed += 1
        os.fsync(directory)
        return removed
    except OSError as error:
        code = error.errno or 0
        if code in (errno.EXDEV, errno.EBUSY):
            raise Busy("empty", path, errno.EBUSY, "something is mounted inside") from error
        raise HostError("empty", path, code) from error
    finally:
        os.close(directory)
