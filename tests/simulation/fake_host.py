"""`volagent.host.contract.Host` over a `FakeKernel`; passes the same suite as the real one."""

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.simulation.fake_kernel import FakeKernel, Inode, Tree
from volagent.host.contract import (
    BindOptions,
    BlockDevice,
    CheckReport,
    FileKind,
    Holder,
    Host,
    MountEntry,
    MountId,
    MountTable,
    OwnershipPolicy,
    Payload,
    Signature,
    TmpfsOptions,
    Usage,
)
from volagent.host.errors import Absent, Escapes, HostError, TimedOut


@dataclass
class _Part:
    kernel: FakeKernel
    chance: random.Random = field(default_factory=lambda: random.Random(0))
    delay_s: float = 0.0

    @contextmanager
    def change(self, call: str, subject: str):
        steps = self.kernel.changing(call, subject)
        next(steps)
        yield
        next(steps, None)

    async def pause(self, backend: str = "local", timeout_s: float = 30.0, what: str = "") -> None:
        if backend in self.kernel.hung:
            await asyncio.sleep(timeout_s)
            raise TimedOut(what, backend, 110)
        if self.delay_s:
            await asyncio.sleep(self.chance.random() * self.delay_s)


@dataclass
class FakeMounts(_Part):
    def read_table(self) -> MountTable:
        return self.kernel.table()

    def find_mount(self, mount_id: MountId) -> MountEntry | None:
        return next((e for e in self.kernel.table().entries if e.mount_id == mount_id), None)

    def find_mount_at(self, target: str) -> MountEntry | None:
        mount = self.kernel.at(target)
        return mount.entry if mount is not None else None

    def mount_tmpfs(self, target: str, options: TmpfsOptions) -> MountId:
        with self.change("mount tmpfs", target):
            tree = Tree("tmpfs", "tmpfs")
            tree.inodes[""].mode = options.mode
            tree.inodes[""].gid = options.gid
            return self.kernel.add_mount(target, tree, "", read_only=False)

    def bind(self, source: str, target: str, options: BindOptions) -> MountId:
        with self.change("bind", target):
            tree, root = self.kernel.locate(source)
            if root not in tree.inodes:
                raise Absent("open_tree", source, 2)
            return self.kernel.add_mount(target, tree, root, read_only=options.read_only)

    def bind_sub_path(
        self, volume_root: str, sub_path: str, target: str, options: BindOptions, mode: int
    ) -> MountId:
        if ".." in sub_path.split("/"):
            raise Escapes("openat2", sub_path)
        with self.change("bind sub-path", target):
            if self.kernel.inode(volume_root) is None:
                raise Absent("openat2", volume_root, 2)
            self.kernel.make_dir(f"{volume_root}/{sub_path}", mode)
            self.kernel.make_dir(target, 0o750)
            tree, root = self.kernel.locate(f"{volume_root}/{sub_path}")
            return self.kernel.add_mount(target, tree, root, read_only=options.read_only)

    def unmount(self, target: str, *, expect: MountId | None = None) -> None:
        with self.change("unmount", target):
            self.kernel.remove_mount(target, expect)

    async def mount_device(
        self, device: str, target: str, *, fs_type: str, options: Sequence[str], read_only: bool
    ) -> MountId:
        await self.pause()
        with self.change("mount device", target):
            disk = self.kernel.disk_of(device)
            if disk.signature != fs_type or disk.tree is None:
                raise HostError("mount", device, 22, "wrong fs type, bad superblock")
            disk.tree.device = f"7:{device.removeprefix('/dev/loop')}"
            disk.tree.source = device
            return self.kernel.add_mount(target, disk.tree, "", read_only=read_only)

    async def mount_network(
        self,
        source: str,
        target: str,
        *,
        fs_type: str,
        options: Sequence[str],
        backend: str,
        timeout_s: float,
    ) -> MountId:
        await self.pause(backend, timeout_s, "mount.nfs")
        with self.change("mount network", target):
            tree = self.kernel.exports.setdefault(source, Tree(fs_type, source))
            return self.kernel.add_mount(target, tree, "", read_only="ro" in options)

    async def unmount_slowly(
        self, target: str, *, backend: str, timeout_s: float, force: bool, lazy: bool
    ) -> None:
        if not lazy:
            await self.pause(backend, timeout_s, "umount2")
        with self.change("unmount slowly", target):
            self.kernel.remove_mount(target)

    def watch_mounts(self, on_change: Callable) -> "_Watch":
        return _Watch(self.kernel, on_change)


class _Watch:
    """Delivers on the loop, later, as the kernel's queue does."""

    def __init__(self, kernel, on_change):
        loop = asyncio.get_running_loop()
        self.kernel = kernel
        self.deliver = lambda changes: loop.call_soon(on_change, changes)
        kernel.watchers.append(self.deliver)

    def close(self):
        if self.deliver in self.kernel.watchers:
            self.kernel.watchers.remove(self.deliver)


@dataclass
class FakeTrees(_Part):
    def ensure_dir(
        self, path: str, *, mode: int, gid: int | None = None, follow_links: bool = False
    ) -> bool:
        with self.change("mkdir", path):
            made = self.kernel.make_dir(path, mode)
            inode = self.kernel.inode(path)
            if made and gid is not None and inode is not None:
                inode.gid = gid
            return made

    def remove_dir(self, path: str) -> None:
        with self.change("rmdir", path):
            self.kernel.remove_dir(path)

    def list_dir(self, path: str) -> list[str]:
        tree, inner = self.kernel.locate(path)
        return tree.names(inner) if inner in tree.inodes else []

    def inspect(self, path: str) -> FileKind | None:
        if path in self.kernel.loops:
            return FileKind.BLOCK_DEVICE
        inode = self.kernel.inode(path)
        if inode is None:
            return None
        return FileKind.DIRECTORY if inode.kind == "directory" else FileKind.FILE

    async def inspect_slowly(self, path: str, *, backend: str, timeout_s: float) -> FileKind | None:
        await self.pause(backend, timeout_s, "stat")
        return self.inspect(path)

    def ensure_file(self, path: str, *, mode: int, follow_links: bool = False) -> bool:
        with self.change("create", path):
            tree, inner = self.kernel.locate(path)
            if inner in tree.inodes:
                return False
            tree.inodes[inner] = Inode("file", mode)
            return True

    def ensure_link(self, path: str, destination: str) -> None:
        with self.change("symlink", path):
            tree, inner = self.kernel.locate(path)
            tree.inodes[inner] = Inode("link", data=destination.encode())

    def remove_file(self, path: str) -> None:
        with self.change("unlink", path):
            tree, inner = self.kernel.locate(path)
            tree.inodes.pop(inner, None)

    def write_payload(self, target: str, payload: Payload, *, gid: int | None) -> None:
        with self.change("write payload", target):
            tree, inner = self.kernel.locate(target)
            if inner not in tree.inodes:
                raise Absent("openat", target, 2)
            for path in tree.below(inner):
                del tree.inodes[path]
            prefix = f"{inner}/" if inner else ""
            for file in payload.files:
                inode = Inode("file", file.mode, gid or 0, file.content)
                tree.inodes[f"{prefix}{file.path}"] = inode
            tree.inodes[inner].data = payload.fingerprint.encode()

    def read_payload_fingerprint(self, target: str) -> str | None:
        inode = self.kernel.inode(target)
        return inode.data.decode() or None if inode is not None else None

    async def remove_tree(self, path: str) -> None:
        await self.pause()
        with self.change("remove tree", path):
            self.kernel.remove_tree(path)

    async def set_ownership(
        self, path: str, *, gid: int, policy: OwnershipPolicy, timeout_s: float
    ) -> int:
        await self.pause()
        with self.change("chown", path):
            tree, inner = self.kernel.locate(path)
            for found in (inner, *tree.below(inner)):
                tree.inodes[found].gid = gid
            return len(tree.below(inner)) + 1


@dataclass
class FakeDevices(_Part):
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

    async def check_filesystem(self, device: BlockDevice, *, fs_type: str) -> CheckReport:
        await self.pause()
        return CheckReport(clean=True)

    async def grow(self, device: BlockDevice, *, fs_type: str, mounted_at: str) -> bool:
        return False


@dataclass
class FakeHolders(_Part):
    async def find_holders(self, target: str, *, limit: int = 8) -> tuple[Holder, ...]:
        if target in self.kernel.held_open:
            return (Holder(4711, "cat", target, "open file"),)
        return ()


@dataclass
class FakeGauges(_Part):
    async def measure(self, path: str, *, backend: str, timeout_s: float) -> Usage:
        await self.pause(backend, timeout_s, "statvfs")
        return Usage(1 << 30, 1 << 29, 1 << 29, 1000, 500)


def make_fake_host(
    kernel: FakeKernel, *, chance: random.Random | None = None, delay_s: float = 0.0
) -> Host:
    """A host on that kernel; `delay_s` bounds how long slow calls take."""
    chance = chance or random.Random(0)
    parts = (FakeMounts, FakeTrees, FakeDevices, FakeHolders, FakeGauges)
    return Host(*(part(kernel, chance, delay_s) for part in parts))
