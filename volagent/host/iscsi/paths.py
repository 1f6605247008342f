"""Scsi devices of iSCSI sessions: scanned for one by one, asked who they are, taken away.

All writes to sysfs here wait for storage, so each is made by a child that can be killed, in the
bulkhead of the session's portal.
"""

import asyncio
import enum
import errno
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from volagent.host import scsi
from volagent.host.errors import Busy, HostError, TimedOut
from volagent.host.iscsi.admin import backend_of
from volagent.host.iscsi.sysfs import Path, Session, Sysfs

if TYPE_CHECKING:
    from collections.abc import Callable

    from volagent.host.process import Helpers

SCAN_TIMEOUT_S: Final = 30.0
ASK_TIMEOUT_S: Final = 15.0
DELETE_TIMEOUT_S: Final = 30.0
NODE_TIMEOUT_S: Final = 5.0
"""From the kernel's first word of a disk until its node can be opened."""
POLL_FIRST_S: Final = 0.01
POLL_MAX_S: Final = 0.25
POLL_SHARE: Final = 0.1
"""sysfs tells nobody when it changes: it is looked at again after a tenth of the time so far."""
# A device that went meanwhile, or is on its way.
_GONE: Final = (errno.ENOENT, errno.ENXIO, errno.ENODEV, errno.EINVAL)


async def wait_until(holds: "Callable[[], bool]", within_s: float) -> bool:
    """Look at sysfs again and again; whether it came to hold."""
    begun = time.monotonic()
    while not holds():
        waited_s = time.monotonic() - begun
        if waited_s > within_s:
            return False
        await asyncio.sleep(min(max(waited_s * POLL_SHARE, POLL_FIRST_S), POLL_MAX_S))
    return True


class Verdict(enum.Enum):
    """What a path turned out to be."""

    CURRENT = "current"
    CHANGED = "another disk answers, or none"
    UNUSABLE = "no size, or taken out of service by the kernel"
    SILENT = "no answer"


@dataclass(frozen=True, slots=True)
class Paths:
    """What can be done to the paths of a disk."""

    helpers: "Helpers"
    sysfs: Sysfs

    async def scan(self, session: Session, lun: int) -> None:
        """Have the kernel look for exactly one LUN on a session. Raises `HostError`."""
        file = f"{self.sysfs.root}/class/scsi_host/{session.host}/scan"
        await self._write(session, file, f"0 {session.target_id} {lun}", SCAN_TIMEOUT_S)

    async def rescan(self, path: Path) -> None:
        """Have the kernel ask a device for its size and its names again. Raises `HostError`."""
        await self._write(path.session, f"{path.directory}/rescan", "1", SCAN_TIMEOUT_S)

    async def is_current(self, path: Path) -> bool:
        """Whether the disk behind a path is still the one that the kernel knows there.

        Raises `TimedOut`, `HostError` when it does not answer.
        """
        answer = await self.helpers.call(
            "fetch_disk_names",
            {"path": path.device},
            backend=backend_of(path.session.portal),
            timeout_s=ASK_TIMEOUT_S,
        )
        known = [name.hex() for name in scsi.read_names(path.page)]
        return bool(known) and answer["names"] == known

    async def judge(self, path: Path) -> Verdict:
        """Ask a path what it is."""
        if not path.session.usable:
            return Verdict.SILENT
        if not path.disk or not path.size_bytes or path.state not in ("running", "blocked"):
            return Verdict.UNUSABLE
        try:
            current = await self.is_current(path)
        except HostError:
            return Verdict.SILENT
        return Verdict.CURRENT if current else Verdict.CHANGED

    async def await_device(self, path: Path) -> None:
        """Until a disk that is new can be opened. Raises `TimedOut`, `HostError`."""
        await self.helpers.call(
            "await_device",
            {"path": path.device, "within_s": NODE_TIMEOUT_S},
            backend=backend_of(path.session.portal),
            timeout_s=ASK_TIMEOUT_S,
        )

    async def is_held(self, device: str, session: Session) -> bool:
        """Whether a device is mounted or used by another. Raises `TimedOut`, `HostError`."""
        answer = await self.helpers.call(
            "is_device_held",
            {"path": device},
            backend=backend_of(session.portal),
            timeout_s=ASK_TIMEOUT_S,
        )
        return bool(answer["held"])

    async def cut(self, path: Path) -> None:
        """Have the kernel refuse everything for a device from now on. Raises `HostError`."""
        # With its newline: the kernel refuses the bare word by EINVAL, which counts as gone here.
        await self._write(path.session, f"{path.directory}/state", "offline\n", ASK_TIMEOUT_S)

    async def delete(self, path: Path, *, write_out: bool) -> None:
        """Take a device away that nobody holds. Raises `Busy`, `TimedOut`, `HostError`.

        Unless `write_out`, the kernel sends nothing more to it: it could be another disk by now.
        """
        await self.demand_unheld(path)
        if not write_out:
            await self.cut(path)
        await self._write(path.session, f"{path.directory}/delete", "1", DELETE_TIMEOUT_S)
        if not await wait_until(lambda: self.sysfs.refresh(path) is None, DELETE_TIMEOUT_S):
            raise TimedOut("delete", path.device or path.directory, 0, "it does not go")

    async def demand_unheld(self, path: Path) -> None:
        """Raises `Busy` when somebody holds a device, `TimedOut`, `HostError`."""
        if path.disk and await self.is_held(path.device, path.session):
            raise Busy("delete", path.device, errno.EBUSY, "somebody uses it")

    async def _write(self, session: Session, file: str, value: str, timeout_s: float) -> None:
        try:
            await self.helpers.call(
                "write_attribute",
                {"path": file, "value": value},
                backend=backend_of(session.portal),
                timeout_s=timeout_s,
            )
        except HostError as error:
            if isinstance(error, TimedOut) or error.errno not in _GONE:
                raise
