"""Sessions, their scsi devices and the maps over those, as sysfs shows them.

Reads attributes that the kernel keeps in memory: microseconds, never a question to storage. What
goes away while it is read is left out. Nothing is written here.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from volagent.host.partitions import disk_below

_SECTOR_BYTES: Final = 512
_MAP_PREFIX: Final = "mpath-"
LOGGED_IN: Final = "LOGGED_IN"


@dataclass(frozen=True, slots=True)
class Session:
    """A login to one portal, whatever became of it."""

    name: str
    iqn: str
    portal: str
    """As it was asked for, whatever address answered."""
    interface: str
    state: str
    host: str
    """`host3`."""
    target_id: str
    directory: str

    @property
    def usable(self) -> bool:
        """It is logged in, so questions to its disks are answered."""
        return self.state == LOGGED_IN


@dataclass(frozen=True, slots=True)
class Path:
    """A LUN as one session shows it: a scsi device."""

    session: Session
    lun: int
    directory: str
    wwid: str
    """What the device said of itself when the kernel last asked; "" if it says nothing."""
    page: bytes = field(repr=False)
    """Its identification page, of the same time."""
    state: str
    disk: str
    """`sda`; "" as long as the kernel has not made it a disk."""
    number: str
    size_bytes: int

    @property
    def usable(self) -> bool:
        """It is a disk with a size, on a session that works."""
        return (
            self.session.usable
            and bool(self.disk)
            and self.size_bytes > 0
            and self.state == "running"
        )

    @property
    def device(self) -> str:
        """`/dev/sda`."""
        return f"/dev/{self.disk}"


@dataclass(frozen=True, slots=True)
class Map:
    """Several paths as one device, made by multipath-tools."""

    disk: str
    """`dm-0`."""
    name: str
    uuid: str
    size_bytes: int
    number: str

    @property
    def device(self) -> str:
        """`/dev/dm-0`."""
        return f"/dev/{self.disk}"


@dataclass(frozen=True, slots=True)
class Sysfs:
    """The tree that the kernel shows; `root` is `/sys`."""

    root: str = "/sys"

    def sessions(self, iqn: str) -> tuple[Session, ...]:
        """All sessions with a target, in the order in which they were made."""
        return tuple(session for session in self.all_sessions() if session.iqn == iqn)

    def all_sessions(self) -> tuple[Session, ...]:
        """All sessions with any target, in the order in which they were made."""
        found = []
        where = f"{self.root}/class/iscsi_session"
        for name in sorted(_list(where), key=_natural):
            session = self._session(f"{where}/{name}", name)
            if session is not None:
                found.append(session)
        return tuple(found)

    def _session(self, attributes: str, name: str) -> Session | None:
        directory = os.path.realpath(f"{attributes}/device")
        iqn, state = _read(f"{attributes}/targetname"), _read(f"{attributes}/state")
        if not iqn:
            return None
        portal = ""
        for connection in _list(directory):
            if not connection.startswith("connection"):
                continue
            where = f"{directory}/{connection}/iscsi_connection/{connection}"
            address, port = _read(f"{where}/persistent_address"), _read(f"{where}/persistent_port")
            portal = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        return Session(
            name,
            iqn.lower(),
            portal,
            _read(f"{attributes}/ifacename"),
            state,
            next((part for part in directory.split("/") if _is_host(part)), ""),
            _read(f"{attributes}/target_id") or "0",
            directory,
        )

    def paths(self, session: Session, lun: int | None = None) -> tuple[Path, ...]:
        """The scsi devices below a session, or the one of that number."""
        found = []
        for target in _list(session.directory):
            if not target.startswith("target"):
                continue
            where = f"{session.directory}/{target}"
            for name in sorted(_list(where), key=_natural):
                parts = name.split(":")
                if len(parts) != 4 or not parts[3].isdigit():
                    continue
                if lun is None or int(parts[3]) == lun:
                    found.append(self._path(session, int(parts[3]), f"{where}/{name}"))
        return tuple(found)

    def usable_paths(self, sessions: Sequence[Session], lun: int) -> list[Path]:
        """The disks of that number below sessions, that take requests now."""
        found = [path for session in sessions for path in self.paths(session, lun)]
        return [path for path in found if path.usable]

    def _path(self, session: Session, lun: int, where: str) -> Path:
        disk = next(iter(sorted(_list(f"{where}/block"))), "")
        block = f"{where}/block/{disk}"
        size = _read(f"{block}/size") if disk else ""
        return Path(
            session,
            lun,
            where,
            _read(f"{where}/wwid"),
            _read_bytes(f"{where}/vpd_pg83"),
            _read(f"{where}/state"),
            disk,
            _read(f"{block}/dev") if disk else "",
            int(size or 0) * _SECTOR_BYTES,
        )

    def refresh(self, path: Path) -> Path | None:
        """The same device as it is now, or None when it is gone."""
        if not os.path.isdir(path.directory):
            return None
        return self._path(path.session, path.lun, path.directory)

    def map_over(self, path: Path) -> Map | None:
        """The map that a path belongs to."""
        for holder in _list(f"{path.directory}/block/{path.disk}/holders"):
            where = f"{self.root}/block/{holder}"
            uuid = _read(f"{where}/dm/uuid")
            if uuid.startswith(_MAP_PREFIX):
                size = _read(f"{where}/size")
                name = _read(f"{where}/dm/name")
                number = _read(f"{where}/dev")
                return Map(holder, name, uuid, int(size or 0) * _SECTOR_BYTES, number)
        return None

    def names_below(self, found: Map) -> frozenset[str]:
        """What the paths of a map say of themselves."""
        where = f"{self.root}/block/{found.disk}/slaves"
        return frozenset(_read(f"{where}/{name}/device/wwid") for name in _list(where))

    def is_running(self, number: str) -> bool:
        """Whether a scsi disk, or a disk below a map, or that of a partition, takes requests."""
        blocks = f"{self.root}/dev/block"
        where = f"{blocks}/{disk_below(number, sysfs=blocks)}"
        below = [f"{where}/slaves/{name}" for name in _list(f"{where}/slaves")] or [where]
        return any(_read(f"{disk}/device/state") == "running" for disk in below)

    def has_map(self, name: str) -> bool:
        """Whether there is a map of that name."""
        return any(
            _read(f"{self.root}/block/{disk}/dm/name") == name
            for disk in _list(f"{self.root}/block")
            if disk.startswith("dm-")
        )


def _natural(name: str) -> tuple[int, str]:
    return len(name), name


def _is_host(part: str) -> bool:
    return part.startswith("host") and part[4:].isdigit()


def _list(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _read(path: str) -> str:
    return _read_bytes(path).decode(errors="replace").strip()


def _read_bytes(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""
