"""Taking disks away without writing to them: they are, or may be, somebody else's by now."""

import errno
from collections.abc import Sequence
from dataclasses import dataclass

from volagent.host.contract import BlockDevice
from volagent.host.errors import Busy, HostError
from volagent.host.iscsi.contract import LunHandle
from volagent.host.iscsi.multipath import Multipath
from volagent.host.iscsi.paths import Paths
from volagent.host.iscsi.sysfs import Map, Path, Session, Sysfs


@dataclass(frozen=True, slots=True)
class Unwritten:
    """What can be done to disks that nothing may be sent to."""

    sysfs: Sysfs
    paths: Paths
    multipath: Multipath

    async def cut(self, handle: LunHandle, paths: Sequence[Path]) -> tuple[str, ...]:
        """Set the disk's paths offline, and have its map refuse what it would queue.

        A path whose session is down stays as it is: the kernel refuses for it already, and should
        the session come back meanwhile, this fails and is tried again.
        """
        mine = [path for path in paths if path.wwid == handle.wwid]
        maps = self.maps_over(mine)
        for path in mine:
            await self.paths.cut(path)
        for found in maps:
            await self.multipath.fail_now(found)
        left = [path.device for path in mine if self._takes_requests(path)]
        if left:
            detail = "the kernel sends requests to it still"
            raise HostError("offline", ", ".join(left), errno.EBUSY, detail)
        return tuple(f"{path.device} by {path.session.portal}" for path in mine)

    async def discard(self, handle: LunHandle, device: BlockDevice, paths: Sequence[Path]) -> str:
        """Take a disk away that was cut off; paths to another one stay as they are."""
        mine = [path for path in paths if path.wwid == handle.wwid]
        for found in self.maps_over(mine):
            await self.remove_map(found, mine[0].session)
        for path in mine:
            await self.paths.delete(path, write_out=False)
        return f"{device.path} ({handle.wwid}) taken away unwritten"

    async def remove_map(self, found: Map, session: Session) -> None:
        """Take a map away, and those of its partitions. Raises `Busy`."""
        await self.multipath.remove_parts(found)
        if await self.paths.is_held(found.device, session):
            raise Busy("remove map", found.device, errno.EBUSY, "somebody uses it")
        await self.multipath.remove(found)

    def maps_over(self, paths: Sequence[Path]) -> set[Map]:
        """The maps that these paths belong to."""
        return {found for path in paths if (found := self.sysfs.map_over(path)) is not None}

    def _takes_requests(self, path: Path) -> bool:
        now = self.sysfs.refresh(path)
        return now is not None and now.state == "running"
