"""This machine's initiator: `Initiator` over open-iscsi, sysfs and multipath-tools.

Attaching a LUN, under the lock of its target, so that a login and a logout never cross:

1. log in to every portal without a session; one that answers is enough;
2. delete what the kernel knows under the number and is not current, unless it is in use;
3. scan for this one number (sessions of ours never scan by themselves);
4. wait for the disks, and compare what they say of themselves;
5. compare with what was noted for this number when it was attached;
6. have the storage keep others out, where that is asked for (`claims.py`), by every path;
7. several paths become one device when multipathd runs;
8. note who it is.

A session is closed when no device is left below it, whoever made those: sysfs counts, not a
register of ours that a crash could falsify. A session that was not made here (its record lets it
scan) is never closed.
"""

import asyncio
import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

from volagent.host import block_devices
from volagent.host.contract import BlockDevice
from volagent.host.errors import Busy, HostError, TimedOut
from volagent.host.iscsi.admin import IscsiAdmin, interface_of
from volagent.host.iscsi.claims import Claims
from volagent.host.iscsi.contract import (
    Fenced,
    FoundLun,
    LunChanged,
    LunHandle,
    LunMissing,
    LunNameless,
    LunWish,
    NoSession,
    PortalFailure,
    Withdrawn,
)
from volagent.host.iscsi.device import DeviceChoice, explain_exchange, name_of
from volagent.host.iscsi.giving_up import GivingUp
from volagent.host.iscsi.known import KnownDisks
from volagent.host.iscsi.left import list_attached
from volagent.host.iscsi.logins import Logins
from volagent.host.iscsi.multipath import Multipath
from volagent.host.iscsi.node_records import NodeRecords
from volagent.host.iscsi.paths import Paths, Verdict, wait_until
from volagent.host.iscsi.records import Records
from volagent.host.iscsi.sysfs import Path, Session, Sysfs
from volagent.host.iscsi.unwritten import Unwritten
from volagent.host.partitions import disk_below

if TYPE_CHECKING:
    from volagent.host.process import Helpers

DEVICE_TIMEOUT_S: Final = 30.0
"""How long the kernel may take to make a disk of what was found; as in Kubernetes."""
PROTECT_TIMEOUT_S: Final = 15.0


class RealInitiator:
    """`Initiator` on this machine."""

    def __init__(
        self, *, helpers: "Helpers", known: KnownDisks, claims: Claims, sysfs: Sysfs,
        records: Records, reserves: bool = False,
    ) -> None:  # fmt: skip
        self.reserves = reserves
        self._helpers = helpers
        self._known = known
        self.claims = claims
        self._sysfs = sysfs
        self._admin = IscsiAdmin(helpers, records, NodeRecords(records))
        self._logins = Logins(helpers, self._sysfs, records, self._admin)
        self._paths = Paths(helpers, self._sysfs)
        self._multipath = Multipath(helpers, self._sysfs)
        self._unwritten = Unwritten(self._sysfs, self._paths, self._multipath)
        self._leaving = GivingUp(helpers, self._paths, claims, self._unwritten)
        self._devices = DeviceChoice(self._paths, self._multipath, self._sysfs)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._reached: set[LunHandle] = set()

    def is_present(self, wish: LunWish) -> bool:
        """Whether the kernel shows anything under this number now."""
        return bool(self._all_paths(wish.iqn, interface_of(wish), wish.lun))

    async def anticipate(self, wish: LunWish) -> None:
        """Learn what attaching will need, without touching a disk and without leaving anything."""
        self._admin.demand_installed()
        await self._helpers.prepare()
        interface = interface_of(wish)
        if interface == wish.interface and wish.discovery_chap is None:
            await self._logins.look_up(wish, interface)

    async def attach(self, wish: LunWish) -> FoundLun:
        """Log in and find the disk."""
        self._admin.demand_installed()
        async with self._lock(wish.iqn):
            interface = await self._admin.ensure_interface(wish)
            try:
                failures = await self._connect(wish, interface)  # (1)
                found = await self._open(wish, interface, failures)
            except (NoSession, LunMissing, LunNameless, Withdrawn) as error:
                if isinstance(error, Withdrawn):
                    for path in self._all_paths(wish.iqn, interface, wish.lun):
                        await self._drop(path)
                await self._logins.close_idle(wish.iqn, interface)
                raise
            except Fenced as error:
                raise await self._give_up(wish, interface, error) from error
            return await self._protect(found) if wish.read_only else found

    async def reach(self, wish: LunWish) -> tuple[LunHandle, list[Path]]:
        """Log in and find the paths of a disk that is not to be used here. Raises as `attach`."""
        self._admin.demand_installed()
        async with self._lock(wish.iqn):
            interface = await self._admin.ensure_interface(wish)
            try:
                failures = await self._connect(wish, interface)
                handle, paths, _ = await self._find(wish, interface, failures)
            except (NoSession, LunMissing, LunNameless):
                await self._logins.close_idle(wish.iqn, interface)
                raise
            self._reached.add(handle)
            return handle, paths

    async def leave(self, handle: LunHandle, paths: Sequence[Path]) -> None:
        """Undo `reach`; nothing is written. Raises `Busy`, `TimedOut`, `HostError`."""
        self._reached.discard(handle)
        async with self._lock(handle.iqn):
            if self._known.find(handle.iqn, handle.lun, handle.interface):
                return  # it was attached meanwhile
            for found in self._unwritten.maps_over(paths):
                await self._unwritten.remove_map(found, paths[0].session)
            for path in paths:
                await self._paths.delete(path, write_out=False)
            await self._logins.close_idle(handle.iqn, handle.interface)

    def is_kept(self, wish: LunWish) -> bool:
        """Whether a disk is attached here, or shown by a session that is not ours."""
        interface = interface_of(wish)
        return bool(self._known.find(wish.iqn, wish.lun, interface)) or any(
            not self._logins.records.is_ours(wish.iqn, path.session.portal, interface)
            for path in self._all_paths(wish.iqn, interface, wish.lun)
        )

    async def _connect(self, wish: LunWish, interface: str) -> tuple[PortalFailure, ...]:
        """A disk that is reserved here gets no further sessions: `claims.py` says why."""
        reserved = self.claims.find(wish.iqn, wish.lun, interface) is not None
        if reserved and self._all_paths(wish.iqn, interface, wish.lun):
            return ()
        return await self._logins.connect(wish, interface)

    # -- the disk ----------------------------------------------------------------------------

    async def _open(
        self, wish: LunWish, interface: str, failures: tuple[PortalFailure, ...]
    ) -> FoundLun:
        handle, paths, remarks = await self._find(wish, interface, failures)
        noted = self._known.find(wish.iqn, wish.lun, interface)  # (5)
        if noted and noted != handle.wwid:
            text = f"was {noted} when it was attached, and is {handle.wwid} now"
            raise LunChanged("attach", f"{wish.iqn} LUN {wish.lun}", 0, text)
        handle = await self._claim(wish, handle, paths, remarks, attached=bool(noted))  # (6)
        found = await self._devices.choose(handle, paths, remarks)
        self._known.note(handle)  # (8)
        return found

    async def _give_up(self, wish: LunWish, interface: str, error: Fenced) -> Fenced:
        """Take a disk away that is not this node's any more, unless somebody still holds it.

        Only so may it be attached anew, when the cluster says so.
        """
        noted = self.claims.find(wish.iqn, wish.lun, interface)
        paths = self._all_paths(wish.iqn, interface, wish.lun)
        if noted is None or not paths:
            return error
        handle = LunHandle(wish.iqn, wish.lun, paths[0].wwid, interface, noted.key, noted.guard)
        try:
            device = block_devices.identify(paths[0].device)
            text = await self._leaving.take_away(handle, device, paths)
        except Busy as busy:
            return Fenced(error.call, error.subject, 0, f"{error.detail}; still in use ({busy})")
        self._known.forget(handle)
        self.claims.known.forget(handle)
        await self._logins.close_idle(wish.iqn, interface)
        return Fenced(error.call, error.subject, 0, f"{error.detail}; {text}")

    async def _find(
        self, wish: LunWish, interface: str, failures: tuple[PortalFailure, ...]
    ) -> tuple[LunHandle, list[Path], list[str]]:
        remarks = [str(failure) for failure in failures]
        sessions = self._logins.usable_sessions(wish, interface)
        silent = await self._drop_stale(wish, sessions, remarks)  # (2)
        remarks += [f"the path by {path.session.portal} does not answer" for path in silent]
        away = {path.directory for path in silent}
        before = {path.directory for path in self._sysfs.usable_paths(sessions, wish.lun)}
        fresh = [session for session in sessions if not self._sysfs.paths(session, wish.lun)]
        remarks += await self._scan(fresh, wish.lun)  # (3)
        paths = [
            path
            for path in await self._await_paths(wish, sessions)  # (4)
            if path.directory not in away
        ]
        if not paths:
            raise LunMissing("scan", f"{wish.iqn} LUN {wish.lun}", 0, "no path of it answers")
        handle = LunHandle(wish.iqn, wish.lun, name_of(paths, wish.lun), interface)
        for path in paths:
            known = path.directory in before
            await (self._paths.rescan(path) if known else self._paths.await_device(path))
        return handle, paths, remarks

    async def _claim(
        self, wish: LunWish, handle: LunHandle, paths: Sequence[Path], remarks: list[str],
        *, attached: bool,
    ) -> LunHandle:  # fmt: skip
        took, text = await self.claims.take(wish.claim, handle, paths, attached=attached)
        remarks += [text] if text else []
        if took.key:
            registered = {path.directory for path in paths}
            for path in self._all_paths(handle.iqn, handle.interface, handle.lun):
                if path.directory not in registered:
                    await self._drop(path)
        return took

    async def _scan(self, sessions: Sequence[Session], lun: int) -> list[str]:
        async def scan(session: Session) -> str:
            try:
                await self._paths.scan(session, lun)
            except HostError as error:
                return f"{session.portal} was scanned in vain ({error})"
            return ""

        return [text for text in await asyncio.gather(*map(scan, sessions)) if text]

    async def _await_paths(self, wish: LunWish, sessions: Sequence[Session]) -> list[Path]:
        def found() -> list[Path]:
            return [path for session in sessions for path in self._sysfs.paths(session, wish.lun)]

        subject = f"{wish.iqn} LUN {wish.lun}"
        if not found():
            by = ", ".join(session.portal for session in sessions)
            raise LunMissing("scan", subject, 0, f"the target shows no such disk by {by}")
        await wait_until(lambda: all(path.usable for path in found()), DEVICE_TIMEOUT_S)
        ready = self._sysfs.usable_paths(sessions, wish.lun)
        if not ready:
            text = f"no usable disk after {DEVICE_TIMEOUT_S:.0f} s"
            raise LunMissing("scan", subject, 0, text)
        return ready

    async def _drop_stale(
        self, wish: LunWish, sessions: Sequence[Session], remarks: list[str]
    ) -> list[Path]:
        """Delete the paths that are not current; those that do not answer are returned.

        Raises `LunChanged` when one is in use.
        """
        silent = []
        for session in sessions:
            for path in self._sysfs.paths(session, wish.lun):
                verdict = await self._paths.judge(path)
                if verdict is Verdict.CURRENT:
                    continue
                if verdict is Verdict.SILENT:
                    silent.append(path)
                    continue
                try:
                    await self._drop(path)
                except Busy as error:
                    if verdict is Verdict.CHANGED:
                        raise explain_exchange(path) from error
                    silent.append(path)
                else:
                    remarks.append(f"a left-over device by {path.session.portal} was removed")
        return silent

    async def _drop(self, path: Path) -> None:
        """Take a path away unwritten, and the map over it. Raises `Busy`."""
        found = self._sysfs.map_over(path)
        if found is not None:
            await self._unwritten.remove_map(found, path.session)
        await self._paths.delete(path, write_out=False)

    async def _protect(self, found: FoundLun) -> FoundLun:
        """Have the kernel refuse every write to a device, a journal's replay among them."""
        await self._helpers.call(
            "refuse_writes", {"path": found.device.path}, backend=f"device:{found.device.path}",
            timeout_s=PROTECT_TIMEOUT_S,
        )  # fmt: skip
        device = block_devices.identify(found.device.path)
        return dataclasses.replace(found, device=device)

    # -- later -------------------------------------------------------------------------------

    def list_attached(self) -> list[FoundLun]:
        """What the kernel shows by sessions that were made here, except to look at a disk."""
        found = list_attached(self._sysfs, self._logins.records, self.claims)
        return [each for each in found if each.handle not in self._reached]

    def is_up(self, number: str) -> bool:
        """Whether a device has a path that takes requests."""
        return self._sysfs.is_running(number)

    async def check(self, handle: LunHandle) -> None:
        """Ask the disk itself who it is."""
        paths = self._all_paths(handle.iqn, handle.interface, handle.lun)
        if not paths:
            raise LunMissing("check", handle.wwid, 0, "no session shows it any more")
        silence: HostError | None = None
        answered = 0
        for path in paths:
            if path.wwid != handle.wwid:
                text = f"is {path.wwid or 'nobody'} now, and was {handle.wwid}"
                raise LunChanged("check", path.device, 0, text)
            if not path.usable:
                continue
            try:
                current = await self._paths.is_current(path)
            except HostError as error:
                silence = error
                continue
            if not current:
                text = f"was {handle.wwid}, and now another disk answers there, or none"
                raise LunChanged("check", path.device, 0, text)
            answered += 1
        if not answered:
            raise silence or TimedOut("check", handle.wwid, 0, "no path to it is up")
        if handle.key:
            await self.claims.check(handle, [path for path in paths if path.usable])

    async def rescan(self, handle: LunHandle) -> FoundLun:
        """Have the kernel look at the disk's size again."""
        await self.check(handle)
        async with self._lock(handle.iqn):
            paths = [
                path
                for path in self._all_paths(handle.iqn, handle.interface, handle.lun)
                if path.usable
            ]
            for path in paths:
                await self._paths.rescan(path)
            if not paths:
                raise LunMissing("rescan", handle.wwid, 0, "no path to it is up")
            return await self._devices.choose(handle, paths, [])

    async def cut(self, handle: LunHandle) -> tuple[str, ...]:
        """No lock: an attaching that hangs must not keep this back."""
        paths = self._all_paths(handle.iqn, handle.interface, handle.lun)
        return await self._unwritten.cut(handle, paths)

    async def detach(
        self, handle: LunHandle, device: BlockDevice, *, write_out: bool = True
    ) -> tuple[str, ...]:
        """Give exactly this disk back."""
        async with self._lock(handle.iqn):
            said: list[str] = []
            paths = self._all_paths(handle.iqn, handle.interface, handle.lun)
            if paths:
                taken = self._leaving.take_away if write_out else self._unwritten.discard
                said.append(await taken(handle, device, paths))
            self._known.forget(handle)
            self.claims.known.forget(handle)
            said += await self._logins.close_idle(handle.iqn, handle.interface)
            return tuple(said)

    async def is_fenced(self, handle: LunHandle) -> bool:
        """By one of the paths that are up."""
        paths = self._all_paths(handle.iqn, handle.interface, handle.lun)
        return await self.claims.is_fenced(handle, paths)

    async def drop_if_fenced(self, number: str) -> bool:
        """Whether this node was fenced from a disk; nothing more is sent to it then."""
        for handle in self.claims.known.all():
            paths = self._all_paths(handle.iqn, handle.interface, handle.lun)
            numbers = {path.number for path in paths} | {
                each.number for each in self._unwritten.maps_over(paths)
            }
            if disk_below(number) in numbers and await self.claims.is_fenced(handle, paths):
                await self._unwritten.cut(handle, paths)
                return True
        return False

    def _lock(self, iqn: str) -> asyncio.Lock:
        lock = self._locks.get(iqn)
        if lock is None:
            lock = self._locks[iqn] = asyncio.Lock()
        return lock

    def _all_paths(self, iqn: str, interface: str, lun: int) -> list[Path]:
        return [
            path
            for session in self._logins.sessions(iqn, interface)
            for path in self._sysfs.paths(session, lun)
        ]
