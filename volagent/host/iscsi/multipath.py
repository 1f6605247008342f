"""Several paths as one device, with multipath-tools.

multipathd makes the maps; it is only told that a disk has several paths (its own default is not to
believe that before somebody says so) and that a disk has grown. Whether it runs, and which map a
path belongs to, is read from the kernel.
"""

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from volagent.host.errors import Busy, HostError, TimedOut, Unsupported
from volagent.host.iscsi.paths import wait_until
from volagent.host.iscsi.sysfs import Map, Path, Sysfs
from volagent.host.partitions import has_maps_of_parts

if TYPE_CHECKING:
    from volagent.host.process import Helpers, Outcome

MAP_TIMEOUT_S: Final = 10.0
SETTLE_TIMEOUT_S: Final = 5.0
TOOL_TIMEOUT_S: Final = 20.0
REMOVE_ATTEMPTS_MAX: Final = 4
PARTS_TIMEOUT_S: Final = 0.5
_SOCKET: Final = "@/org/kernel/linux/storage/multipathd"
_UDEV_CONTROL: Final = "/run/udev/control"
_UDEV_DATA: Final = "/run/udev/data"


def runs_daemon() -> bool:
    """Whether multipathd listens."""
    try:
        with open("/proc/net/unix") as table:
            return any(line.rstrip().endswith(_SOCKET) for line in table)
    except OSError:
        return False


@dataclass(frozen=True, slots=True)
class Multipath:
    """The maps over paths."""

    helpers: "Helpers"
    sysfs: Sysfs

    def find(self, paths: Sequence[Path]) -> Map | None:
        """The map that some of these paths of one disk belong to. Raises `HostError` for two."""
        maps = {found for path in paths if (found := self.sysfs.map_over(path)) is not None}
        if len(maps) > 1:
            names = ", ".join(sorted(found.name for found in maps))
            raise HostError("multipath", paths[0].device, 0, f"one disk has several maps: {names}")
        return next(iter(maps), None)

    async def ensure_map(self, paths: Sequence[Path]) -> Map | None:
        """The map over these paths of one disk, or None when multipathd does not make one.

        A path that multipathd keeps out of it stays out. Raises `HostError`, `TimedOut`.
        """
        found = self.find(paths)
        missing = [path for path in paths if self.sysfs.map_over(path) is None]
        if not missing or not await self._is_wanted(paths):
            return found
        try:
            if found is None:
                await self._run(("multipath", "-a", paths[0].device), paths[0].device)
            for path in missing:
                await self._run(("multipathd", "add", "path", path.disk), path.device)
        except Unsupported:
            return found
        await wait_until(
            lambda: all(self.sysfs.map_over(path) is not None for path in paths), MAP_TIMEOUT_S
        )
        return self.find(paths)

    async def _is_wanted(self, paths: Sequence[Path]) -> bool:
        """Whether there is somebody to make a map, and something to make it of."""
        if not runs_daemon():
            return False
        # multipathd takes a disk's name from udev, and udev may have claimed even a single path.
        if os.path.exists(_UDEV_CONTROL):
            await wait_until(
                lambda: all(os.path.exists(f"{_UDEV_DATA}/b{path.number}") for path in paths),
                SETTLE_TIMEOUT_S,
            )
        return len(paths) > 1 or "E:DM_MULTIPATH_DEVICE_PATH=1" in _read_udev(paths[0])

    async def resize(self, found: Map) -> None:
        """Let a map take on the size of its paths. Raises `HostError`."""
        outcome = await self._run(("multipathd", "resize", "map", found.name), found.device)
        if outcome.returncode != 0 or b"fail" in outcome.stdout:
            raise HostError("multipathd resize", found.name, 0, outcome.complaint)

    async def fail_now(self, found: Map) -> None:
        """Have a map without paths refuse what it would queue. Raises `HostError`."""
        await self._run(("multipathd", "disablequeueing", "map", found.name), found.device)

    async def remove_parts(self, found: Map) -> None:
        """Take the maps of a map's partitions away, which hold it; those in use stay.

        On a machine with udev there are some as soon as a disk has a partition table.
        """
        if not has_maps_of_parts(found.number):
            return
        try:
            await self._run(("kpartx", "-d", "-n", found.device), found.device)
        except Unsupported:
            return
        await wait_until(lambda: not has_maps_of_parts(found.number), PARTS_TIMEOUT_S)

    async def remove(self, found: Map) -> None:
        """Take a map away that nobody holds. Raises `Busy`, `TimedOut`, `HostError`."""
        # What cannot be written anywhere must not be waited for.
        await self.fail_now(found)
        complaint = ""
        for _ in range(REMOVE_ATTEMPTS_MAX):
            outcome = await self._run(("multipath", "-f", found.name), found.device)
            if await wait_until(lambda: not self.sysfs.has_map(found.name), 0.5):
                return
            complaint = outcome.complaint  # udev may be looking at it
        raise Busy("multipath -f", found.name, errno.EBUSY, complaint)

    async def _run(self, argv: tuple[str, ...], device: str) -> "Outcome":
        try:
            return await self.helpers.run(
                argv, backend=f"device:{device}", timeout_s=TOOL_TIMEOUT_S
            )
        except Unsupported as error:
            detail = f"{argv[0]} is not installed: apt-get install multipath-tools"
            raise Unsupported("exec", argv[0], error.errno, detail) from error
        except TimedOut as error:
            raise TimedOut(argv[0], device, error.errno, error.detail) from error


def _read_udev(path: Path) -> str:
    try:
        with open(f"{_UDEV_DATA}/b{path.number}") as file:
            return file.read()
    except OSError:
        return ""
