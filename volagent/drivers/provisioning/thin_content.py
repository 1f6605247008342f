"""Disks whose content is a thin volume of an LVM pool; copies share their blocks, in use, too.

A disk that was a file before the pool was set stays one, and so do its copies. What is written
while a copy is taken waits for that moment, so that a copy of a disk that is shown is what the disk
held then, as after a power cut.

A pool that does not zero blocks before a volume gets them makes no disks: another volume's remains
would be in them. One that is nearly full takes no new ones, whatever may be promised.
"""

import errno
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from volagent.drivers.errors import DriverError, Rejected, Transient, Uncertain
from volagent.drivers.provisioning.contract import OutOfSpace
from volagent.drivers.provisioning.disk_content import FileContent
from volagent.drivers.provisioning.image import FILE
from volagent.drivers.provisioning.image_copies import ImageCopies
from volagent.drivers.provisioning.storage_pool import Room
from volagent.host import thin_links
from volagent.host.errors import Busy, HostError, NotTried, Unsupported
from volagent.host.thin_pool import PoolState, ThinPool, ThinVolume

DATA_PERCENT_MAX: Final = 95.0
METADATA_PERCENT_MAX: Final = 90.0


@dataclass(frozen=True, slots=True)
class ThinContent:
    """Thin volumes, and the files that are there from before."""

    directory: str
    pool: ThinPool
    overcommit: float
    copies: ImageCopies
    files: FileContent

    def path(self, name: str) -> str:
        """The link to its device, or its file."""
        return f"{self.directory}/{name}/{FILE}"

    def room_for(self, size_bytes: int) -> int:
        """None: what a link takes is too little to ask for."""
        return 0

    async def round_up(self, size_bytes: int) -> int:
        """LVM counts in extents."""
        return (await self.fetch_state()).round_up(size_bytes)

    async def refuse_overcommitment(self, more_bytes: int, like: str = "") -> None:
        """By the size of the pool, of which its volumes of others have their part."""
        if like and self._is_file(like):
            await self.files.refuse_overcommitment(more_bytes)
            return
        state = await self.fetch_state()
        if not state.zeroes:
            raise OutOfSpace(
                f"the thin pool {self.pool.name} does not zero what it gives: a new disk could show"
                " what another one held",
                remedy=f"lvchange --zero y {self.pool.name}",
            )
        self._refuse_nearly_full(state)
        room = await self.measure(state)
        if more_bytes > room.left_bytes:
            raise OutOfSpace(
                f"the thin pool {self.pool.name} has {room.total_bytes >> 20} MiB, of which"
                f" {room.promised_bytes >> 20} are promised: {more_bytes >> 20} more would be over"
                f" {self.overcommit:g} times its size",
                remedy="ask for less, make the pool larger (lvextend), empty the trash (`volagent"
                " trash list`), or allow more: storage.overcommit in the settings",
            )

    def _refuse_nearly_full(self, state: PoolState) -> None:
        if state.metadata_percent >= METADATA_PERCENT_MAX:
            raise OutOfSpace(
                f"the metadata of the thin pool {self.pool.name} are full to"
                f" {state.metadata_percent:g} %",
                remedy=f"lvextend --poolmetadatasize +SIZE {self.pool.name}",
            )
        if state.data_percent >= DATA_PERCENT_MAX:
            raise OutOfSpace(
                f"the thin pool {self.pool.name} is full to {state.data_percent:g} %",
                remedy=f"lvextend --size +SIZE {self.pool.name}, or empty the trash",
            )

    async def measure(self, state: PoolState) -> Room:
        """What the pool has, and what is promised of it. Raises `DriverError`."""
        with self._explained():
            promised_bytes = await self.pool.count_promised()
        return Room(
            state.size_bytes, int(state.size_bytes * (1 - state.data_percent / 100)),
            promised_bytes, int(state.size_bytes * self.overcommit),
        )  # fmt: skip

    async def size_of(self, name: str) -> int | None:
        """The thin volume's size."""
        if self._is_file(name):
            return await self.files.size_of(name)
        found = await self._find(name)
        return found.size_bytes if found is not None else None

    async def made_ns(self, name: str) -> int:
        """As LVM has noted it."""
        if self._is_file(name):
            return await self.files.made_ns(name)
        found = await self._find(name)
        if found is None:
            raise Uncertain(f"{self.pool.device(name)} went while it was looked at")
        return found.made_s * 1_000_000_000

    async def make(self, name: str, owner: str, size_bytes: int) -> None:
        """A thin volume without a block."""
        if self._is_file(name):
            await self.files.make(name, owner, size_bytes)
            return
        with self._explained():
            thin_links.make(self.path(name), self.pool.group, name)
            found = await self.pool.find(name)
            if found is None:
                await self.pool.create(name, owner, size_bytes)
                return
            self._check_owner(name, owner, found)
            if found.size_bytes < size_bytes:
                await self.pool.grow(name, size_bytes)
            await self.activate((name,))

    async def copy(
        self, source: str, name: str, owner: str, *, fresh_identity: bool, in_use: bool
    ) -> bool:
        """A snapshot, which is a thin volume as any other."""
        if self._is_file(source):
            return await self.files.copy(
                source, name, owner, fresh_identity=fresh_identity, in_use=in_use
            )
        with self._explained():
            thin_links.make(self.path(name), self.pool.group, name)
            found = await self.pool.find(name)
            if found is None:
                await self.pool.copy(source, name, owner)
            else:
                self._check_owner(name, owner, found)
                await self.activate((name,))
        if fresh_identity:
            await self.copies.renew_identity(self.path(name))
        return True

    async def grow(self, name: str, size_bytes: int) -> None:
        """Larger by what nobody has written to."""
        if self._is_file(name):
            await self.files.grow(name, size_bytes)
            return
        with self._explained():
            found = await self.pool.find(name)
            if found is None:
                raise HostError("lvs", self.pool.device(name), errno.ENODEV)
            if found.size_bytes < size_bytes:
                await self.pool.grow(name, size_bytes)

    async def activate(self, names: Collection[str]) -> None:
        """Let the thin volumes among them have their devices."""
        with self._explained():
            dormant = [name for name in sorted(names) if not self._is_ready(name)]
            if dormant:
                await self.pool.activate(dormant)

    async def remove(self, name: str) -> None:
        """The thin volume, if the directory in the trash leads to one."""
        if os.path.islink(f"{self.directory}/.volagent/trash/{name}/{FILE}"):
            with self._explained():
                await self.pool.remove(name)

    async def fetch_state(self) -> PoolState:
        """How full the pool is. Raises `DriverError`."""
        with self._explained():
            return await self.pool.fetch_state()

    async def _find(self, name: str) -> ThinVolume | None:
        with self._explained():
            return await self.pool.find(name)

    def _is_file(self, name: str) -> bool:
        path = self.path(name)
        return os.path.isfile(path) and not os.path.islink(path)

    def _is_ready(self, name: str) -> bool:
        """Whether it is a file, or its device is there and goes on."""
        if self._is_file(name):
            return True
        try:
            number = os.stat(self.pool.device(name)).st_rdev
            where = f"/sys/dev/block/{os.major(number)}:{os.minor(number)}/dm/suspended"
            with open(where, encoding="ascii") as file:
                return file.read().strip() == "0"
        except OSError:
            return False

    def _check_owner(self, name: str, owner: str, found: ThinVolume) -> None:
        if found.owner != owner:
            raise Rejected(
                f"{self.pool.device(name)} was made for {found.owner or 'nobody'}, not for {owner}",
                remedy="nothing was touched; rename it (lvrename) if its data is wanted",
            )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Who must act next, of LVM's failures."""
        try:
            yield
        except HostError as error:
            raise self._explain(error) from error

    def _explain(self, error: HostError) -> DriverError:
        text, pool = str(error), self.pool.name
        if isinstance(error, NotTried):
            return Transient(text, remedy="it is tried again")
        if isinstance(error, Busy):
            return Transient(text, remedy="see who has it open: lsof, dmsetup info, findmnt")
        if isinstance(error, Unsupported):
            return OutOfSpace(text, remedy="apt-get install lvm2 thin-provisioning-tools")
        match error.errno:
            case errno.ENOSPC:
                remedy = f"make the pool larger: lvextend --size +SIZE {pool}"
                return OutOfSpace(text, remedy=remedy)
            case errno.EEXIST:
                return Rejected(text, remedy="nothing was touched; rename it (lvrename)")
            case errno.ENODEV:
                remedy = f"are its disks there (pvs, vgs), is storage.thin_pool {pool} right?"
                return Uncertain(text, remedy=remedy)
            case _:
                pass
        return Uncertain(text, remedy=f"see `lvs -a {self.pool.group}` on the storage node")
