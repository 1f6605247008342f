"""What the disks of a storage node are kept in: files here, thin volumes in `thin_content.py`.

A disk's directory is what makes it ours (`export.py`): it is made before its content and goes after
it. Content is found by its disk's name; each method may be called again after it was cut off.
"""

import os
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from volagent.drivers.provisioning.image import FILE, explain_image
from volagent.drivers.provisioning.image_copies import ImageCopies
from volagent.drivers.provisioning.storage_pool import StoragePool
from volagent.host.contract import Host
from volagent.host.errors import HostError


class DiskContent(Protocol):
    """The content of the disks in one directory. Raises `DriverError`."""

    def path(self, name: str) -> str:
        """What leads to a disk's content: a file, or a link to a device."""

    def room_for(self, size_bytes: int) -> int:
        """What has to be free on the directory's file system before so much is made there."""

    async def round_up(self, size_bytes: int) -> int:
        """The size that a disk of at least so much has."""

    async def refuse_overcommitment(self, more_bytes: int, like: str = "") -> None:
        """Raises `OutOfSpace` when so much more may not be promised, to a disk `like` another."""

    async def size_of(self, name: str) -> int | None:
        """A disk's size in bytes; None when it has no content."""

    async def made_ns(self, name: str) -> int:
        """When its content was made, in nanoseconds since 1970."""

    async def make(self, name: str, owner: str, size_bytes: int) -> None:
        """Empty content, in a directory that is there; what has content is made as large."""

    async def copy(
        self, source: str, name: str, owner: str, *, fresh_identity: bool, in_use: bool
    ) -> bool:
        """Content that another disk has now; whether its blocks are shared. Made already: done."""

    async def grow(self, name: str, size_bytes: int) -> None:
        """At least that size, in use too."""

    async def activate(self, names: Collection[str]) -> None:
        """What has to be done before content can be shown, once after each boot."""

    async def remove(self, name: str) -> None:
        """Remove what a disk in the trash has outside of its directory."""


@dataclass(frozen=True, slots=True)
class FileContent:
    """Sparse files; copies share blocks where the file system below can (xfs, btrfs)."""

    directory: str
    pool: StoragePool
    host: Host
    copies: ImageCopies

    def path(self, name: str) -> str:
        """Its file."""
        return f"{self.directory}/{name}/{FILE}"

    def room_for(self, size_bytes: int) -> int:
        """All of it, unless more is promised than there is."""
        return 0 if self.pool.overcommit > 1 else size_bytes

    async def round_up(self, size_bytes: int) -> int:
        """Files have any size."""
        return size_bytes

    async def refuse_overcommitment(self, more_bytes: int, like: str = "") -> None:
        """By the size of the file system."""
        self.pool.refuse_overcommitment(more_bytes)

    async def size_of(self, name: str) -> int | None:
        """The file's size."""
        try:
            return os.stat(self.path(name)).st_size
        except FileNotFoundError:
            return None

    async def made_ns(self, name: str) -> int:
        """Since nothing writes to a copy, the last change is when it was made."""
        return min(os.stat(self.path(name)).st_ctime_ns, time.time_ns())

    async def make(self, name: str, owner: str, size_bytes: int) -> None:
        """A hole of that size."""
        path = self.path(name)
        try:
            await self.host.devices.create_image(path, size_bytes=size_bytes)
            await self.host.devices.grow_image(path, size_bytes=size_bytes)
        except HostError as error:
            raise explain_image(error, path) from error

    async def copy(
        self, source: str, name: str, owner: str, *, fresh_identity: bool, in_use: bool
    ) -> bool:
        """By reflink, or as a whole when nobody uses it."""
        return await self.copies.copy(
            self.path(source), self.path(name), fresh_identity=fresh_identity, in_use=in_use
        )

    async def grow(self, name: str, size_bytes: int) -> None:
        """A larger hole at its end."""
        path = self.path(name)
        try:
            await self.host.devices.grow_image(path, size_bytes=size_bytes)
        except HostError as error:
            raise explain_image(error, path) from error

    async def activate(self, names: Collection[str]) -> None:
        """A file is there when its file system is."""

    async def remove(self, name: str) -> None:
        """The file goes with its directory."""
