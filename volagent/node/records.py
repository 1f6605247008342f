"""What the agent has made, written before it is made: the book of records on tmpfs.

A record shares the fate of what it describes: mounts and loop devices die with the kernel, so the
book lies under the run directory and names the boot it belongs to; one of another boot is empty.
It is a log of JSON lines, last one per key wins, rewritten when mostly superseded. A line is one
`write(2)`; a torn last line (a kill in the middle) is the record of a step that had not begun, and
is cut off. No fsync: what survives the process is in the page cache, what does not survive the
kernel need not. Only the event loop's thread writes.
"""

import enum
import errno
import os

import msgspec

from volagent.drivers.contract import (
    DriverName,
    HeldDevice,
    HeldMount,
    VolumeKey,
    VolumeMode,
    VolumeSource,
)
from volagent.objects.meta import PodUid

FORMAT = 1
COMPACT_AFTER_LINES = 4096


class Held(enum.Enum):
    """Whether something is there: reality has three values."""

    NO = "no"
    YES = "yes"
    UNKNOWN = "unknown"


class UseRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """One pod's publication of a volume."""

    held: Held
    mount: HeldMount
    pod_name: str = ""


class VolumeRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """Everything that was made, or may have been, for one volume on this node."""

    key: VolumeKey
    driver: DriverName
    name: str
    mode: VolumeMode = VolumeMode.FILESYSTEM
    backend: str = "local"
    source: VolumeSource | None = None
    """The declaration, kept for volumes with a device: to find a device that may be attached."""
    identity: str = ""
    """Of a networked disk: what the storage calls it."""
    shared: bool = False
    """Of a networked disk: other nodes may have it at the same time."""
    attachment_uid: str = ""
    """Of the VolumeAttachment that this node has the disk by, where that is known."""
    lost: str = ""
    """Why nothing may be written to the disk any more: this node was fenced off it."""
    cut: bool = False
    """The kernel sends nothing more to a lost disk."""
    attached: Held = Held.NO
    device: HeldDevice | None = None
    prepared: bool = False
    staged: Held = Held.NO
    stage: HeldMount | None = None
    uses: dict[PodUid, UseRecord] = {}

    @property
    def empty(self) -> bool:
        """Nothing is left: the record can be dropped."""
        return self.attached is Held.NO and self.staged is Held.NO and not self.uses

    @property
    def exclusive(self) -> bool:
        """A disk that no other node may have while this one has it."""
        return bool(self.identity) and not self.shared


class _Header(msgspec.Struct, frozen=True):
    format: int
    boot: str


class _Line(msgspec.Struct, frozen=True, omit_defaults=True):
    key: VolumeKey
    record: VolumeRecord | None = None


class RecordBook:
    """The records by volume, in memory and on tmpfs."""

    def __init__(self, path: str, *, boot_id: str) -> None:
        self._path = path
        self._boot_id = boot_id
        self._encoder = msgspec.json.Encoder()
        self._records: dict[VolumeKey, VolumeRecord] = {}
        self._fd = -1
        self._lines = 0

    def open(self) -> None:
        """Read the book of this boot, or begin a new one. Raises `OSError`."""
        self._records = self._read()
        self._rewrite()

    def get(self, key: VolumeKey) -> VolumeRecord | None:
        """The record of a volume."""
        return self._records.get(key)

    def keys(self) -> list[VolumeKey]:
        """All volumes with a record."""
        return list(self._records)

    def put(self, record: VolumeRecord) -> None:
        """Write a record; an empty one is dropped. Raises `OSError` (the tmpfs is full)."""
        if record.empty:
            self._append(_Line(record.key))
            self._records.pop(record.key, None)
        else:
            self._append(_Line(record.key, record))
            self._records[record.key] = record

    def close(self) -> None:
        """Give the file back."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _append(self, line: _Line) -> None:
        data = self._encoder.encode(line) + b"\n"
        written = os.write(self._fd, data)
        if written != len(data):
            # What was begun would spoil the line that comes next.
            end = os.lseek(self._fd, -written, os.SEEK_CUR)
            os.ftruncate(self._fd, end)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._path)
        self._lines += 1
        if self._lines > COMPACT_AFTER_LINES and self._lines > 4 * len(self._records):
            self._compact()

    def _compact(self) -> None:
        """Without room for it the book stays as it is: long, and right."""
        try:
            self._rewrite()
        except OSError:
            self._lines = len(self._records)  # tried again only after as many lines more

    def _read(self) -> dict[VolumeKey, VolumeRecord]:
        try:
            with open(self._path, "rb") as file:
                lines = file.read().split(b"\n")
        except FileNotFoundError:
            return {}
        lines.pop()  # what follows the last newline: nothing, or a torn line
        records: dict[VolumeKey, VolumeRecord] = {}
        if not lines:
            return records
        header = msgspec.json.decode(lines[0], type=_Header)
        if header.boot != self._boot_id or header.format != FORMAT:
            return records
        decoder = msgspec.json.Decoder(_Line)
        for text in lines[1:]:
            line = decoder.decode(text)
            if line.record is None:
                records.pop(line.key, None)
            else:
                records[line.key] = line.record
        return records

    def _rewrite(self) -> None:
        fresh = f"{self._path}.new"
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        lines: list[object] = [_Header(FORMAT, self._boot_id)]
        lines += [_Line(record.key, record) for record in self._records.values()]
        try:
            with os.fdopen(os.dup(fd), "wb") as file:
                file.writelines(self._encoder.encode(line) + b"\n" for line in lines)
            os.rename(fresh, self._path)
        except OSError:
            os.close(fd)
            os.unlink(fresh)
            raise
        old, self._fd = self._fd, fd
        if old >= 0:
            os.close(old)
        self._lines = len(self._records)
