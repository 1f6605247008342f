"""How a disk leaves this machine: written out or, when it is not ours any more, cut off."""

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from volagent.host.contract import BlockDevice
from volagent.host.errors import Absent, Busy
from volagent.host.iscsi.claims import Claims
from volagent.host.iscsi.contract import LunHandle
from volagent.host.iscsi.multipath import Multipath
from volagent.host.iscsi.paths import Paths, Verdict
from volagent.host.iscsi.sysfs import Map, Path, Session, Sysfs

if TYPE_CHECKING:
    from volagent.host.process import Helpers

FLUSH_TIMEOUT_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class GivingUp:
    """Takes the paths of a disk away."""

    helpers: "Helpers"
    paths: Paths
    multipath: Multipath
    sysfs: Sysfs
    claims: Claims

    async def cut_off(self, paths: Sequence[Path]) -> None:
        """Have the kernel fail at once whatever it has still to write."""
        for path in paths:
            await self.paths.take_offline(path)
        for found in self.maps(paths):
            await self.multipath.fail_at_once(found)

    async def take_away(self, handle: LunHandle, device: BlockDevice, paths: Sequence[Path]) -> str:
        """Write out, register no more, delete the map and the paths; what was done, in words.

        What is another disk by now, or one that this node was fenced from, is not written to.
        Raises `Busy`, `TimedOut`, `HostError`.
        """
        same = all(path.wwid == handle.wwid for path in paths)
        for path in paths:
            same = same and await self.paths.judge(path) is not Verdict.CHANGED
        up = any(path.usable for path in paths)
        fenced = same and await self.claims.is_fenced(handle, paths)
        if fenced:
            await self.cut_off(paths)
        elif same:
            await self._flush(device)
        for found in self.maps(paths):
            await self.remove_map(found, paths[0].session)
        text = ""
        if handle.key and same and not fenced:
            for path in paths:
                await self.paths.demand_unheld(path)
            text = await self.claims.give_back(handle, [path for path in paths if path.usable])
        for path in paths:
            await self.paths.delete(path, write_out=same and not fenced)
        return "; ".join(filter(None, (_tell(handle, device, same, fenced, up), text)))

    def maps(self, paths: Sequence[Path]) -> set[Map]:
        """The maps over paths."""
        return {found for path in paths if (found := self.sysfs.map_over(path)) is not None}

    async def _flush(self, device: BlockDevice) -> None:
        try:
            await self.helpers.call(
                "flush_device",
                {"path": device.path, "identity": device.identity},
                backend=f"device:{device.path}",
                timeout_s=FLUSH_TIMEOUT_S,
            )
        except Absent:
            return

    async def remove_map(self, found: Map, session: Session) -> None:
        """Delete a map that nobody uses. Raises `Busy`."""
        if await self.paths.is_held(found.device, session):
            raise Busy("remove map", found.device, errno.EBUSY, "somebody uses it")
        await self.multipath.remove(found)


def _tell(handle: LunHandle, device: BlockDevice, same: bool, fenced: bool, up: bool) -> str:
    if not same:
        return f"{device.path} taken away unwritten: it was {handle.wwid}, and is another disk"
    if fenced:
        return (
            f"{device.path} ({handle.wwid}) taken away unwritten: its storage does not know this"
            " node's key any more"
        )
    if not up:
        return f"{device.path} ({handle.wwid}) taken away while no path to it was up"
    return f"{device.path} ({handle.wwid}) written out and taken away"
