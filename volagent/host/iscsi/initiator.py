"""This machine's initiator: `Initiator` over open-iscsi, sysfs and multipath-tools.

Attaching a LUN, under the lock of its target, so that a login and a logout never cross:

1. log in to every portal without a session; one that answers is enough;
2. delete what the kernel knows under the number and is not current, unless it is in use;
3. scan for this one number (sessions of ours never scan by themselves);
4. wait for the disks, and compare what they say of themselves;
5. several paths become one device when multipathd runs;
6. compare with what was noted for this number when it was attached, and note it.

A session is closed when no device is left below it, whoever made those: sysfs counts, not a
register of ours that a crash could falsify. A session that was not made here (its record lets it
scan) is never closed.
"""

import asyncio
import dataclasses
import enum
import errno
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

from volagent.host import block_devices
from volagent.host.contract import BlockDevice
from volagent.host.errors import Absent, Busy, HostError, TimedOut
from volagent.host.iscsi.admin import IscsiAdmin, interface_of
from volagent.host.iscsi.contract import (
    FoundLun,
    LunChanged,
    LunHandle,
    LunMissing,
    LunNameless,
    LunWish,
    NoSession,
    PortalFailure,
)
from volagent.host.iscsi.known import KnownDisks
from volagent.host.iscsi.logins import Logins
from volagent.host.iscsi.multipath import Multipath, runs_daemon
from volagent.host.iscsi.paths import Paths, wait_until
from volagent.host.iscsi.records import Records
from volagent.host.iscsi.sysfs import Map, Path, Session, Sysfs

if TYPE_CHECKING:
    from volagent.host.process import Helpers

DEVICE_TIMEOUT_S: Final = 30.0
"""How long the kernel may take to make a disk of what was found; as in Kubernetes."""
PROTECT_TIMEOUT_S: Final = 15.0
FLUSH_TIMEOUT_S: Final = 300.0


class _Verdict(enum.Enum):
    CURRENT = "current"
    CHANGED = "another disk answers, or none"
    UNUSABLE = "no size, or taken out of service by the kernel"
    SILENT = "no answer"


class RealInitiator:
    """`Initiator` on this machine."""

    def __init__(
        self, *, helpers: "Helpers", known: KnownDisks, sysfs: Sysfs, records: Records
    ) -> None:
        self._helpers = helpers
        self._known = known
        self._sysfs = sysfs
        self._admin = IscsiAdmin(helpers, records)
        self._logins = Logins(helpers, self._sysfs, records, self._admin)
        self._paths = Paths(helpers, self._sysfs)
        self._multipath = Multipath(helpers, self._sysfs)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def is_present(self, wish: LunWish) -> bool:
        """Whether the kernel shows anything under this number now."""
        return bool(self._all_paths(wish.iqn, interface_of(wish), wish.lun))

    async def attach(self, wish: LunWish) -> FoundLun:
        """Log in and find the disk."""
        self._admin.demand_installed()
        async with self._lock(wish.iqn):
            interface = await self._admin.ensure_interface(wish)
            try:
                failures = await self._logins.connect(wish, interface)  # (1)
                found = await self._open(wish, interface, failures)
            except (NoSession, LunMissing, LunNameless):
                await self._logins.close_idle(wish.iqn, interface)
                raise
            noted = self._known.find(wish.iqn, wish.lun, interface)
            if noted and noted != found.handle.wwid:
                text = f"was {noted} when it was attached, and is {found.handle.wwid} now"
                raise LunChanged("attach", f"{wish.iqn} LUN {wish.lun}", 0, text)
            self._known.note(found.handle)  # (6)
            return await self._protect(found) if wish.read_only else found

    # -- the disk ----------------------------------------------------------------------------

    async def _open(
        self, wish: LunWish, interface: str, failures: tuple[PortalFailure, ...]
    ) -> FoundLun:
        remarks = [str(failure) for failure in failures]
        sessions = self._logins.usable_sessions(wish, interface)
        silent = await self._drop_stale(wish, sessions, remarks)  # (2)
        remarks += [f"the path by {path.session.portal} does not answer" for path in silent]
        away = {path.directory for path in silent}
        before = {path.directory for path in self._ready(sessions, wish.lun)}
        fresh = [session for session in sessions if not self._sysfs.paths(session, wish.lun)]
        remarks += await self._scan(fresh, wish.lun)  # (3)
        paths = [
            path
            for path in await self._await_paths(wish, sessions)  # (4)
            if path.directory not in away
        ]
        if not paths:
            raise LunMissing("scan", f"{wish.iqn} LUN {wish.lun}", 0, "no path of it answers")
        handle = LunHandle(wish.iqn, wish.lun, _one_name(paths, wish.lun), interface)
        for path in paths:
            if path.directory in before:
                await self._paths.rescan(path)
        return await self._choose(handle, paths, remarks)

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
        ready = self._ready(sessions, wish.lun)
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
                verdict = await self._judge(path)
                if verdict is _Verdict.CURRENT:
                    continue
                if verdict is _Verdict.SILENT:
                    silent.append(path)
                    continue
                try:
                    await self._drop(path)
                except Busy as error:
                    if verdict is _Verdict.CHANGED:
                        raise _explain_exchange(path) from error
                    silent.append(path)
                else:
                    remarks.append(f"a left-over device by {path.session.portal} was removed")
        return silent

    async def _judge(self, path: Path) -> _Verdict:
        if not path.session.usable:
            return _Verdict.SILENT
        if not path.disk or not path.size_bytes or path.state not in ("running", "blocked"):
            return _Verdict.UNUSABLE
        try:
            current = await self._paths.is_current(path)
        except HostError:
            return _Verdict.SILENT
        return _Verdict.CURRENT if current else _Verdict.CHANGED

    async def _drop(self, path: Path) -> None:
        """Take a path away unwritten, and the map over it. Raises `Busy`."""
        found = self._sysfs.map_over(path)
        if found is not None:
            await self._remove_map(found, path.session)
        await self._paths.delete(path, write_out=False)

    async def _remove_map(self, found: Map, session: Session) -> None:
        if await self._paths.is_held(found.device, session):
            raise Busy("remove map", found.device, errno.EBUSY, "somebody uses it")
        await self._multipath.remove(found)

    async def _choose(
        self, handle: LunHandle, paths: Sequence[Path], remarks: list[str]
    ) -> FoundLun:
        """The device that stands for all paths.  # (5)"""
        used = None
        if self._multipath.find(paths) is None:
            used = await self._find_used(paths)
        found = await self._multipath.ensure_map(paths) if used is None else None
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

    async def _protect(self, found: FoundLun) -> FoundLun:
        """Have the kernel refuse every write to a device, a journal's replay among them."""
        await self._helpers.call(
            "refuse_writes", {"path": found.device.path}, backend=f"device:{found.device.path}",
            timeout_s=PROTECT_TIMEOUT_S,
        )  # fmt: skip
        device = block_devices.identify(found.device.path)
        return dataclasses.replace(found, device=device)

    async def _describe_map(
        self, handle: LunHandle, paths: Sequence[Path], found: Map, remarks: list[str]
    ) -> FoundLun:
        names = self._sysfs.names_below(found)
        if names != {handle.wwid}:
            others = ", ".join(sorted(names - {handle.wwid})) or "nothing"
            raise LunChanged("map", found.name, 0, f"has paths to {others} beside {handle.wwid}")
        size_bytes = min(
            (now.size_bytes for path in paths if (now := self._sysfs.refresh(path)) is not None),
            default=0,
        )
        if size_bytes > found.size_bytes:
            await self._multipath.resize(found)
        inside = [path for path in paths if self._sysfs.map_over(path) is not None]
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
                if await self._paths.is_held(path.device, path.session):
                    return path
        return None

    # -- later -------------------------------------------------------------------------------

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
            return await self._choose(handle, paths, [])

    async def detach(self, handle: LunHandle, device: BlockDevice) -> tuple[str, ...]:
        """Give exactly this disk back."""
        async with self._lock(handle.iqn):
            said: list[str] = []
            paths = self._all_paths(handle.iqn, handle.interface, handle.lun)
            if paths:
                said.append(await self._take_away(handle, device, paths))
            self._known.forget(handle)
            said += await self._logins.close_idle(handle.iqn, handle.interface)
            return tuple(said)

    async def _take_away(
        self, handle: LunHandle, device: BlockDevice, paths: Sequence[Path]
    ) -> str:
        same = all(path.wwid == handle.wwid for path in paths)
        for path in paths:
            same = same and await self._judge(path) is not _Verdict.CHANGED
        up = any(path.usable for path in paths)
        if same:
            await self._flush(device)
        maps = {found for path in paths if (found := self._sysfs.map_over(path)) is not None}
        for found in maps:
            await self._remove_map(found, paths[0].session)
        for path in paths:
            await self._paths.delete(path, write_out=same)
        if not same:
            return f"{device.path} taken away unwritten: it was {handle.wwid}, and is another disk"
        if not up:
            return f"{device.path} ({handle.wwid}) taken away while no path to it was up"
        return f"{device.path} ({handle.wwid}) written out and taken away"

    async def _flush(self, device: BlockDevice) -> None:
        try:
            await self._helpers.call(
                "flush_device",
                {"path": device.path, "identity": device.identity},
                backend=f"device:{device.path}",
                timeout_s=FLUSH_TIMEOUT_S,
            )
        except Absent:
            return

    # -- what sysfs shows --------------------------------------------------------------------

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

    def _ready(self, sessions: Sequence[Session], lun: int) -> list[Path]:
        return [
            path
            for session in sessions
            for path in self._sysfs.paths(session, lun)
            if path.usable
        ]  # fmt: skip


def _explain_exchange(path: Path) -> LunChanged:
    return LunChanged(
        "inquiry", path.device, 0,
        f"was {path.wwid} and is in use, but now another disk, or none, answers as LUN {path.lun}"
        f" of {path.session.iqn} by {path.session.portal}",
    )  # fmt: skip


def _one_name(paths: Sequence[Path], lun: int) -> str:
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


def make_initiator(*, helpers: "Helpers", run_dir: str) -> RealInitiator:
    """The initiator of this machine; what it notes lies in the daemon's run directory."""
    return RealInitiator(
        helpers=helpers, known=KnownDisks(f"{run_dir}/iscsi"), sysfs=Sysfs(), records=Records()
    )
