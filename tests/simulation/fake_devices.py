"""`Devices` on the fake kernel."""

from dataclasses import dataclass

from tests.simulation.fake_calls import FakeCalls
from tests.simulation.fake_kernel import Tree
from volagent.host.contract import BlockDevice, CheckReport, Signature
from volagent.host.errors import Absent, Busy, HostError


@dataclass
class FakeDevices(FakeCalls):
    async def create_image(self, path: str, *, size_bytes: int) -> bool:
        with self.change("create image", path):
            if path in self.kernel.disks:
                return False
            self.kernel.add_image(path, size_bytes)
            return True

    async def grow_image(self, path: str, *, size_bytes: int) -> bool:
        with self.change("grow image", path):
            if path not in self.kernel.disks:
                raise Absent("open", path, 2)
            disk = self.kernel.disks[path]
            grows = disk.size < size_bytes
            disk.size = max(disk.size, size_bytes)
            return grows

    async def attach_loop(self, path: str, *, read_only: bool) -> BlockDevice:
        await self.pause()
        with self.change("attach loop", path):
            if path not in self.kernel.disks:
                raise Absent("open", path, 2)
            for device, backing in self.kernel.loops.items():
                if backing == path:
                    return self._describe(device)
            device = f"/dev/loop{next(self.kernel.loop_numbers)}"
            self.kernel.loops[device] = path
            return self._describe(device)

    async def detach_loop(self, device: BlockDevice) -> None:
        await self.pause()
        with self.change("detach loop", device.path):
            if self.find_loops().get(device.path) is None:
                return
            if self._describe(device.path).identity != device.identity:
                return
            del self.kernel.loops[device.path]

    def find_loops(self) -> dict[str, BlockDevice]:
        return {device: self._describe(device) for device in self.kernel.loops}

    def identify(self, path: str) -> BlockDevice:
        if path not in self.kernel.loops:
            raise Absent("open", path, 2)
        return self._describe(path)

    def find_disk(self, serial: str) -> BlockDevice | None:
        return None

    async def find_partition(self, disk: BlockDevice, number: int) -> BlockDevice:
        """A loop device named for it, which is a disk of its own here."""
        await self.pause()
        path = f"{disk.path}p{number}"
        if path not in self.kernel.loops:
            raise Absent("partition", disk.path, 2, f"it has no partition {number}")
        return self._describe(path)

    async def flush(self, device: BlockDevice) -> None:
        await self.pause()
        if self.identify(device.path).identity != device.identity:
            raise Absent("open", device.path, 19)
        if any(mount.entry.source == device.path for mount in self.kernel.mounts):
            raise Busy("open", device.path, 16)

    def _describe(self, device: str) -> BlockDevice:
        path = self.kernel.loops[device]
        number = f"7:{device.removeprefix('/dev/loop')}"
        return BlockDevice(device, number, f"loop:1:{path}", self.kernel.disks[path].size)

    async def probe(self, device: str) -> Signature:
        await self.pause()
        disk = self.kernel.disk_of(device)
        if not disk.readable:
            raise HostError("read", device, 5)
        if not disk.signature:
            return Signature(blank=True)
        if disk.signature in ("ext4", "xfs", "btrfs"):
            return Signature(blank=False, fs_type=disk.signature)
        return Signature(blank=False, found=disk.signature)

    async def make_filesystem(self, device: BlockDevice, *, fs_type: str) -> None:
        await self.pause()
        with self.change("mkfs", device.path):
            disk = self.kernel.disk_of(device.path)
            if disk.signature or not disk.readable:
                raise HostError("mkfs", device.path, 17, "not blank")
            disk.signature = fs_type
            disk.tree = Tree(fs_type, device.path)
            disk.formats += 1
            disk.grown_to = disk.size

    async def check_filesystem(self, device: BlockDevice, *, fs_type: str) -> CheckReport:
        await self.pause()
        return CheckReport(clean=True)

    async def grow(self, device: BlockDevice, *, fs_type: str, mounted_at: str) -> bool:
        await self.pause()
        with self.change("grow file system", device.path):
            disk = self.kernel.disk_of(device.path)
            grows = disk.grown_to < disk.size
            disk.grown_to = disk.size
            return grows
