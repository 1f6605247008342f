"""The one device that stands for all paths of a disk: the map over them, or one of them."""

from collections.abc import Sequence
from dataclasses import dataclass

from volagent.host import block_devices
from volagent.host.iscsi.contract import FoundLun, LunChanged, LunHandle, LunNameless
from volagent.host.iscsi.multipath import Multipath, runs_daemon
from volagent.host.iscsi.paths import Paths
from volagent.host.iscsi.sysfs import Map, Path, Sysfs


@dataclass(frozen=True, slots=True)
class DeviceChoice:
    """Finds or makes it."""

    paths: Paths
    multipath: Multipath
    sysfs: Sysfs

    async def choose(
        self, handle: LunHandle, paths: Sequence[Path], remarks: list[str]
    ) -> FoundLun:
        """The device that stands for all paths.  # (7)"""
        used = None
        if self.multipath.find(paths) is None:
            used = await self._find_used(paths)
        found = await self.multipath.ensure_map(paths) if used is None else None
        if found is not None:
            return await self._describe_map(handle, paths, found, remarks)
        chosen = used or paths[0]
        if len(paths) > 1:
            why = "multipathd makes no map of them" if runs_daemon() else "multipathd does not run"
            if used is not None and runs_daemon():
                why = "it was in use before multipathd ran"
            remarks.append(f"only the path by {chosen.session.portal} is used: {why}")
        device = block_devices.identify(chosen.device)
        return FoundLun(device, handle, (chosen.session.portal,), "", tuple(remarks))

    async def _describe_map(
        self, handle: LunHandle, paths: Sequence[Path], found: Map, remarks: list[str]
    ) -> FoundLun:
        names = self.sysfs.names_below(found)
        if names != {handle.wwid}:
            others = ", ".join(sorted(names - {handle.wwid})) or "nothing"
            raise LunChanged("map", found.name, 0, f"has paths to {others} beside {handle.wwid}")
        size_bytes = min(
            (now.size_bytes for path in paths if (now := self.sysfs.refresh(path)) is not None),
            default=0,
        )
        if size_bytes > found.size_bytes:
            await self.multipath.resize(found)
        inside = [path for path in paths if self.sysfs.map_over(path) is not None]
        remarks += [
            f"the path by {path.session.portal} is not in the map"
            for path in paths
            if path not in inside
        ]
        portals = tuple(path.session.portal for path in inside)
        device = block_devices.identify(found.device)
        return FoundLun(device, handle, portals, found.name, tuple(remarks))

    async def _find_used(self, paths: Sequence[Path]) -> Path | None:
        """The path that somebody has mounted, so that it stays the one."""
        if len(paths) > 1:
            for path in paths:
                if await self.paths.is_held(path.device, path.session):
                    return path
        return None


def name_of(paths: Sequence[Path], lun: int) -> str:
    """What all paths say they lead to. Raises `LunNameless`, `LunChanged`."""
    names = {path.wwid for path in paths}
    iqn = paths[0].session.iqn
    if len(names) > 1:
        shown = ", ".join(f"{path.wwid} by {path.session.portal}" for path in paths)
        raise LunChanged("inquiry", f"{iqn} LUN {lun}", 0, f"is not one disk: {shown}")
    (name,) = names
    if not name:
        raise LunNameless("inquiry", f"{iqn} LUN {lun}", 0, "it has no world-wide name")
    return name
