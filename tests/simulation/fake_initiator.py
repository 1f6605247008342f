"""An iSCSI initiator over image files: LUN n of any target is `/luns/<n>.img` on the host.

Its disks show as loop devices, whose identity stays the file's. `swapped` and `refusing` make the
storage misbehave.
"""

from dataclasses import dataclass, field

from volagent.host.contract import BlockDevice, Host
from volagent.host.errors import Absent, Busy
from volagent.host.iscsi.contract import (
    Fenced,
    FoundLun,
    LunChanged,
    LunHandle,
    LunMissing,
    LunWish,
    NoSession,
    PortalFailure,
)


@dataclass
class FakeInitiator:
    host: Host
    directory: str = "/luns"
    refusing: tuple[PortalFailure, ...] = ()
    reserves: bool = False
    swapped: set[int] = field(default_factory=set)
    fenced: set[int] = field(default_factory=set)
    """Disks whose storage does not know this node any more."""
    forgives: bool = False
    """Whether who attaches such a disk anew is let in."""
    wishes: list[LunWish] = field(default_factory=list)
    anticipated: list[LunWish] = field(default_factory=list)
    offline: set[tuple[str, int]] = field(default_factory=set)
    """Disks that were cut off."""
    written_out: list[tuple[str, int]] = field(default_factory=list)
    """Disks that something could be written to when they were given back."""
    attached: dict[tuple[str, int], BlockDevice] = field(default_factory=dict)

    def is_present(self, wish: LunWish) -> bool:
        return (wish.iqn, wish.lun) in self.attached

    def is_up(self, number: str) -> bool:
        return not self.refusing

    async def anticipate(self, wish: LunWish) -> None:
        self.anticipated.append(wish)

    async def attach(self, wish: LunWish) -> FoundLun:
        self.wishes.append(wish)
        refusing = {failure.portal for failure in self.refusing}
        portals = tuple(portal for portal in wish.portals if portal not in refusing)
        if not portals:
            raise NoSession(wish.iqn, self.refusing)
        try:
            device = await self.host.devices.attach_loop(
                f"{self.directory}/{wish.lun}.img", read_only=False
            )
        except Absent as error:
            raise LunMissing("scan", f"LUN {wish.lun}", 0, "the target shows none") from error
        self.attached[wish.iqn, wish.lun] = device
        if self.forgives:
            self.fenced.discard(wish.lun)
        if wish.lun in self.fenced:
            raise Fenced("reservation", f"naa.{wish.lun}", 0, "the key is gone")
        claim = (wish.claim.key, wish.claim.guard) if wish.claim is not None else (0, 0)
        handle = LunHandle(wish.iqn, wish.lun, f"naa.{wish.lun}", wish.interface, *claim)
        return FoundLun(device, handle, portals, remarks=tuple(map(str, self.refusing)))

    def list_attached(self) -> list[FoundLun]:
        return [
            FoundLun(device, LunHandle(iqn, lun, f"naa.{lun}"), ())
            for (iqn, lun), device in self.attached.items()
        ]

    async def check(self, handle: LunHandle) -> None:
        if handle.lun in self.swapped:
            raise LunChanged("check", handle.wwid, 0, "now another disk answers")
        if handle.lun in self.fenced:
            raise Fenced("reservation", handle.wwid, 0, "the key is gone")

    async def is_fenced(self, handle: LunHandle) -> bool:
        return handle.lun in self.fenced

    async def rescan(self, handle: LunHandle) -> FoundLun:
        await self.check(handle)
        path = self.attached[handle.iqn, handle.lun].path
        device = self.host.devices.identify(path)
        return FoundLun(device, handle, ())

    async def cut(self, handle: LunHandle) -> tuple[str, ...]:
        self.offline.add((handle.iqn, handle.lun))
        return (handle.wwid,)

    async def detach(
        self, handle: LunHandle, device: BlockDevice, *, write_out: bool = True
    ) -> tuple[str, ...]:
        if any(entry.device == device.number for entry in self.host.mounts.read_table().entries):
            raise Busy("detach", device.path, 16)
        key = (handle.iqn, handle.lun)
        device = self.attached.get(key, device)  # and not its partition
        is_here = any(each == device for each in self.host.devices.find_loops().values())
        written = is_here and (key not in self.offline or write_out)
        if written and handle.lun not in self.fenced:
            self.written_out.append(key)
        await self.host.devices.detach_loop(device)
        self.offline.discard(key)
        gone = self.attached.pop((handle.iqn, handle.lun), None) is not None
        if handle.lun in self.fenced:
            return (f"{device.path} taken away unwritten",)
        return (f"{device.path} taken away",) if gone else ()

    async def drop_if_fenced(self, number: str) -> bool:
        return any(
            lun in self.fenced and device.number == number
            for (_, lun), device in self.attached.items()
        )
