"""`Mounts` on the fake kernel."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.simulation.fake_calls import FakeCalls
from tests.simulation.fake_kernel import Inode, Tree
from volagent.host.contract import (
    BindOptions,
    MountEntry,
    MountId,
    MountTable,
    Propagation,
    TmpfsOptions,
)
from volagent.host.errors import Absent, Escapes, HostError

PARENT_MODE = 0o750


@dataclass
class FakeMounts(FakeCalls):
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
            return self.kernel.add_mount(
                target, tree, "", read_only=False, options=("nosuid", "nodev"),
                propagation="shared" if options.propagation is Propagation.SHARED else "private",
            )  # fmt: skip

    def bind(self, source: str, target: str, options: BindOptions) -> MountId:
        with self.change("bind", target):
            place = self.kernel.resolve(source)
            if self.kernel.inode(place) is None:
                raise Absent("open_tree", source, 2)
            return self._show(place, target, options)

    def _show(self, place: str, target: str, options: BindOptions) -> MountId:
        tree, root = self.kernel.locate(place)
        propagation = "private"
        if options.propagation is Propagation.SHARED:
            propagation = "shared"
        elif options.propagation is Propagation.SLAVE:
            has_peers = self.kernel.mount_of(place).entry.propagation == "shared"
            propagation = "slave" if has_peers else "private"
        return self.kernel.add_mount(
            target, tree, root,
            read_only=options.read_only or options.recursive_read_only,
            options=options.options,
            propagation=propagation,
        )  # fmt: skip

    def bind_sub_path(
        self,
        volume_root: str,
        sub_path: str,
        target: str,
        options: BindOptions,
        mode: int | None,
        *,
        follow_links: bool = False,
    ) -> MountId:
        if sub_path.startswith("/") or ".." in sub_path.split("/"):
            raise Escapes("subPath", sub_path, 0, "must be relative, without '..'")
        kernel = self.kernel
        with self.change("bind sub-path", target):
            if follow_links:
                volume_root = kernel.resolve(volume_root)
            else:
                kernel.refuse_links(f"{volume_root}/.")
            root = kernel.inode(volume_root)
            if root is None:
                raise Absent("openat2", volume_root, 2)
            place = kernel.resolve(sub_path, inside=volume_root)
            if kernel.inode(place) is None:
                kernel.make_dir(place, root.mode if mode is None else mode)
            self._prepare_target(target, kernel.inode(place).kind)
            return self._show(place, target, options)

    def _prepare_target(self, target: str, kind: str) -> None:
        standing = self.kernel.inode(target)
        if standing is not None and standing.kind != kind:
            self.kernel.remove_below(target)
        self.kernel.make_dir(target.rpartition("/")[0], PARENT_MODE)
        tree, inner = self.kernel.locate(target)
        tree.inodes.setdefault(inner, Inode(kind, PARENT_MODE))

    async def bind_sub_path_slowly(
        self,
        volume_root: str,
        sub_path: str,
        target: str,
        options: BindOptions,
        mode: int | None,
        *,
        backend: str,
        timeout_s: float,
        follow_links: bool = False,
    ) -> MountId:
        await self.pause(backend, timeout_s, "bind_sub_path")
        return self.bind_sub_path(
            volume_root, sub_path, target, options, mode, follow_links=follow_links
        )

    def unmount(self, target: str, *, expect: MountId | None = None) -> None:
        with self.change("unmount", target):
            self.kernel.remove_mount(target, expect)

    async def mount_device(
        self,
        device: str,
        target: str,
        *,
        fs_type: str,
        options: Sequence[str],
        read_only: bool,
        backend: str = "",
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
            self.kernel.remove_mount(target, lazy=lazy)

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
