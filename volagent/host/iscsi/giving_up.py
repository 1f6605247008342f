"""How a disk leaves this machine: written out or, when it is not ours any more, cut off."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from volagent.host.contract import BlockDevice
from volagent.host.errors import Absent
from volagent.host.iscsi.claims import Claims
from volagent.host.iscsi.contract import LunHandle
from volagent.host.iscsi.paths import Paths, Verdict
from volagent.host.iscsi.sysfs import Path
from volagent.host.iscsi.unwritten import Unwritten

if TYPE_CHECKING:
    from volagent.host.process import Helpers

FLUSH_TIMEOUT_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class GivingUp:
    """Takes the paths of a disk away."""

    helpers: "Helpers"
    paths: Paths
    claims: Claims
    unwritten: Unwritten

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
            await self.unwritten.cut(handle, paths)
        elif same:
            await self._flush(device, paths)
        for found in self.unwritten.maps_over(paths):
            await self.unwritten.remove_map(found, paths[0].session)
        text = ""
        if handle.key and same and not fenced:
            for path in paths:
                await self.paths.demand_unheld(path)
            text = await self.claims.give_back(handle, [path for path in paths if path.usable])
        for path in paths:
            await self.paths.delete(path, write_out=same and not fenced)
        return "; ".join(filter(None, (_tell(handle, device, same, fenced, up), text)))

    async def _flush(self, device: BlockDevice, paths: Sequence[Path]) -> None:
        for found in self.unwritten.maps_over(paths):
            if found.number == device.number:
                await self.unwritten.multipath.remove_parts(found)
        try:
            await self.helpers.call(
                "flush_device",
                {"path": device.path, "identity": device.identity},
                backend=f"device:{device.path}",
                timeout_s=FLUSH_TIMEOUT_S,
            )
        except Absent:
            return


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
