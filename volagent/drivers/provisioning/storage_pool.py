"""What the disks of a storage node are promised, and what they have: over-commitment is refused.

A volume's file is sparse, so its whole size is a promise, as a directory's is; so are those of
snapshots and of what is in the trash. The sum may be `overcommit` times the file system's size.
Blocks for microseconds per volume: for the pool of threads.
"""

import json
import os
import stat
from dataclasses import dataclass
from typing import Final

import msgspec

from volagent.drivers.provisioning.contract import OutOfSpace
from volagent.objects.storage_nodes import ISCSI_PROVISIONER

_RECORDS: Final = ".volagent"
_TRASH: Final = ".volagent/trash"


class Room(msgspec.Struct, frozen=True):
    """What a pool has, in bytes."""

    total_bytes: int
    """Of the file system."""
    free_bytes: int
    promised_bytes: int
    """To all volumes, snapshots and trash together."""
    limit_bytes: int
    """What may be promised."""

    @property
    def left_bytes(self) -> int:
        """What may still be promised."""
        return max(0, self.limit_bytes - self.promised_bytes)


@dataclass(frozen=True, slots=True)
class StoragePool:
    """The directory with a storage node's volumes."""

    directory: str
    file: str
    """The name of a volume's file in its directory."""
    overcommit: float

    def measure(self) -> Room:
        """What there is now. Raises `OSError`."""
        found = os.statvfs(self.directory)
        total_bytes = found.f_blocks * found.f_frsize
        trash = f"{self.directory}/{_TRASH}"
        promised = self._sizes_in(self.directory, f"{self.directory}/{_RECORDS}")
        promised += self._sizes_in(trash, trash)
        return Room(
            total_bytes, found.f_bavail * found.f_frsize, promised,
            int(total_bytes * self.overcommit),
        )  # fmt: skip

    def refuse_overcommitment(self, more_bytes: int) -> None:
        """Raises `OutOfSpace` when so much more may not be promised."""
        room = self.measure()
        if more_bytes > room.left_bytes:
            raise OutOfSpace(
                f"{self.directory} has {room.total_bytes >> 20} MiB, of which"
                f" {room.promised_bytes >> 20} are promised: {more_bytes >> 20} more would be over"
                f" {self.overcommit:g} times its size",
                remedy="ask for less, make the disk larger, empty the trash (`volagent trash"
                " list`), or allow more: storage.overcommit in the settings",
            )

    def size_of(self, volume: str) -> int:
        """What a volume is promised: its file's size, or what its owner marker says."""
        return self._size_of(f"{self.directory}/{volume}", f"{self.directory}/{_RECORDS}/{volume}")

    def _sizes_in(self, folder: str, records: str) -> int:
        try:
            with os.scandir(folder) as entries:
                names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        except FileNotFoundError:
            return 0
        return sum(self._size_of(f"{folder}/{name}", f"{records}/{name}") for name in names)

    def _size_of(self, directory: str, record: str) -> int:
        try:
            found = os.lstat(f"{directory}/{self.file}")
        except (FileNotFoundError, NotADirectoryError):
            found = None
        if found is not None and stat.S_ISREG(found.st_mode):
            return found.st_size
        try:
            with open(f"{record}.json", "rb") as file:
                marker = json.load(file)
            if found is not None and marker.get("provisioner") == ISCSI_PROVISIONER:
                return 0  # a link: its content is promised by the thin pool where it is
            return int(marker.get("capacity_bytes", 0))
        except (OSError, ValueError):
            return 0  # it went meanwhile, or is no volume's
