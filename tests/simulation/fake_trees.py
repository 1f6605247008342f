"""`Trees` on the fake kernel. A payload's fingerprint is the data of its directory."""

from dataclasses import dataclass

from tests.simulation.fake_calls import FakeCalls
from tests.simulation.fake_kernel import Inode
from volagent.host.contract import FileKind, OwnershipPolicy, Payload
from volagent.host.errors import Absent, Busy, HostError, NotEmpty

PARENT_MODE = 0o750
_REMOVING = ".removing-"


@dataclass
class FakeTrees(FakeCalls):
    def ensure_dir(
        self, path: str, *, mode: int, gid: int | None = None, follow_links: bool = False
    ) -> bool:
        with self.change("mkdir", path):
            place = self._place(path, follow_links=follow_links)
            if follow_links and self.kernel.inode(place.rpartition("/")[0] or "/") is None:
                raise Absent("open", path, 2)
            made = self.kernel.make_dir(place, mode)
            inode = self.kernel.inode(place)
            if made and gid is not None and inode is not None:
                inode.gid = gid
            return made

    def _place(self, path: str, *, follow_links: bool) -> str:
        """Where a new name is to stand: links on the way are followed, the last name is not."""
        if not follow_links:
            self.kernel.refuse_links(path)
            return path
        parent, _, name = path.rpartition("/")
        return f"{self.kernel.resolve(parent).rstrip('/')}/{name}"

    def remove_dir(self, path: str) -> None:
        with self.change("rmdir", path):
            self.kernel.remove_dir(path)

    def list_dir(self, path: str) -> list[str]:
        tree, inner = self.kernel.locate(path)
        return tree.names(inner) if inner in tree.inodes else []

    def inspect(self, path: str) -> FileKind | None:
        path = self.kernel.resolve(path)
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
            place = self._place(path, follow_links=follow_links)
            if self.kernel.inode(place.rpartition("/")[0] or "/") is None:
                raise Absent("openat2", path, 2)
            tree, inner = self.kernel.locate(place)
            if inner in tree.inodes:
                return False
            tree.inodes[inner] = Inode("file", mode)
            return True

    def ensure_link(self, path: str, destination: str) -> None:
        with self.change("symlink", path):
            self.kernel.refuse_links(path)
            self.kernel.make_dir(path.rpartition("/")[0], PARENT_MODE)
            tree, inner = self.kernel.locate(path)
            tree.inodes[inner] = Inode("link", data=destination.encode())

    def remove_file(self, path: str) -> None:
        with self.change("unlink", path):
            if self.kernel.at(path) is not None:
                raise Busy("unlink", path, 16)
            tree, inner = self.kernel.locate(path)
            inode = tree.inodes.get(inner)
            if inode is None:
                return
            if inode.kind == "directory":
                raise HostError("unlink", path, 21)
            if inode.kind == "file" and inode.data:
                raise NotEmpty("unlink", path, 0, f"it holds {len(inode.data)} bytes")
            del tree.inodes[inner]

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
        self.kernel.refuse_mounts_in(path)
        parent, _, name = path.rpartition("/")
        aside = f".{name}{_REMOVING}{self.kernel.calls}"
        if self.kernel.inode(path) is not None:
            with self.change("rename aside", path):
                self.kernel.rename(path, aside)
        for leftover in self._leftovers(parent, f".{name}{_REMOVING}"):
            with self.change("remove tree", leftover):
                self.kernel.remove_below(leftover)

    async def finish_removals(self, parent: str) -> int:
        await self.pause()
        leftovers = self._leftovers(parent, ".")
        for leftover in leftovers:
            with self.change("remove tree", leftover):
                self.kernel.refuse_mounts_in(leftover)
                self.kernel.remove_below(leftover)
        return len(leftovers)

    def _leftovers(self, parent: str, prefix: str) -> list[str]:
        names = self.list_dir(parent)
        return [f"{parent}/{n}" for n in names if n.startswith(prefix) and _REMOVING in n]

    async def set_ownership(
        self, path: str, *, gid: int, policy: OwnershipPolicy, timeout_s: float
    ) -> int:
        await self.pause()
        with self.change("chown", path):
            tree, inner = self.kernel.locate(path)
            for found in (inner, *tree.below(inner)):
                tree.inodes[found].gid = gid
            return len(tree.below(inner)) + 1
