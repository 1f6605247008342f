"""A kernel made of dictionaries: file systems, mounts, loop devices, and the faults they can have.

It outlives the agents that run on it (`FakeHost` gives each its view), so that an agent can be
killed between any two calls and another started. `reboot` keeps disks and loses the rest. The
tests' oracle looks at this world directly; it never asks the agent.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from volagent.host.contract import MountChanges, MountEntry, MountId, MountTable
from volagent.host.errors import Absent, Busy, HostError, NotEmpty


class Crash(BaseException):
    """The agent is killed here; not an Exception, so nothing may swallow it."""


@dataclass
class Disk:
    """A block device's content."""

    size: int
    signature: str = ""
    """"" is blank; an fs type; anything else is foreign."""
    tree: "Tree | None" = None
    formats: int = 0
    readable: bool = True


@dataclass
class Inode:
    kind: str
    """directory, file, link."""
    mode: int = 0o755
    gid: int = 0
    data: bytes = b""
    disk: Disk | None = None


class Tree:
    """One file system: inodes by path relative to its root."""

    numbers = itertools.count(1)

    def __init__(self, fs_type: str, source: str):
        self.fs_type = fs_type
        self.source = source
        self.device = f"0:{next(self.numbers)}"
        self.inodes: dict[str, Inode] = {"": Inode("directory")}

    def below(self, path: str) -> list[str]:
        prefix = f"{path}/" if path else ""
        return [p for p in self.inodes if p and p.startswith(prefix) and p != path]

    def names(self, path: str) -> list[str]:
        prefix = f"{path}/" if path else ""
        return sorted({p[len(prefix) :].split("/")[0] for p in self.below(path)})


@dataclass
class Mount:
    entry: MountEntry
    tree: Tree
    root: str


Fault = Callable[[str, str], None]


@dataclass
class FakeKernel:
    """The machine. `fault(call, subject)` runs before and after each change and may raise."""

    fault: Fault = lambda call, subject: None
    mounts: list[Mount] = field(default_factory=list)
    loops: dict[str, str] = field(default_factory=dict)
    held_open: set[str] = field(default_factory=set)
    """Mount points that somebody keeps busy."""
    hung: set[str] = field(default_factory=set)
    """Backends that do not answer."""
    watchers: list[Callable[[MountChanges], None]] = field(default_factory=list)
    disks: dict[str, Disk] = field(default_factory=dict)
    """Disks by the path of their image file."""
    calls: int = 0

    def __post_init__(self):
        self.ids = itertools.count(100)
        self.loop_numbers = itertools.count(0)
        self.exports: dict[str, Tree] = {}
        root = Tree("ext4", "/dev/vda")
        self.root_entry = MountEntry(MountId(1), MountId(1), root.device, "/", "/", "ext4", "vda")
        self.mounts.append(Mount(self.root_entry, root, ""))

    # -- looking ----------------------------------------------------------------------------

    def mount_of(self, path: str) -> Mount:
        best = self.mounts[0]
        for mount in self.mounts[1:]:
            point = mount.entry.mount_point
            longer = len(point) >= len(best.entry.mount_point)
            if longer and (path == point or path.startswith(point + "/")):
                best = mount
        return best

    def locate(self, path: str) -> tuple[Tree, str]:
        mount = self.mount_of(path)
        point = mount.entry.mount_point.rstrip("/")
        inner = path[len(point) :].strip("/")
        return mount.tree, "/".join(part for part in (mount.root, inner) if part)

    def inode(self, path: str) -> Inode | None:
        tree, inner = self.locate(path)
        return tree.inodes.get(inner)

    def at(self, path: str) -> Mount | None:
        found = None
        for mount in self.mounts[1:]:
            if mount.entry.mount_point == path:
                found = mount
        return found

    def table(self) -> MountTable:
        return MountTable(tuple(mount.entry for mount in self.mounts))

    def files(self, path: str) -> dict[str, bytes]:
        """Contents below a directory, by relative path: what a container would see."""
        tree, inner = self.locate(path)
        skip = len(inner) + 1 if inner else 0
        return {
            p[skip:]: tree.inodes[p].data
            for p in tree.below(inner)
            if tree.inodes[p].kind == "file"
        }

    # -- changing ---------------------------------------------------------------------------

    def changing(self, call: str, subject: str) -> Iterator[None]:
        self.calls += 1
        self.fault(f"before {call}", subject)
        yield
        self.calls += 1
        self.fault(f"after {call}", subject)

    def add_mount(self, target: str, tree: Tree, root: str, *, read_only: bool) -> MountId:
        inode = self.inode(target)
        if inode is None:
            raise Absent("move_mount", target, 2)
        mount_id = MountId(next(self.ids))
        parent = self.mount_of(target).entry.mount_id
        options = ("ro",) if read_only else ("rw",)
        entry = MountEntry(
            mount_id, parent, tree.device, f"/{root}", target, tree.fs_type, tree.source, options
        )
        self.mounts.append(Mount(entry, tree, root))
        self.tell(MountChanges(attached=frozenset({mount_id})))
        return mount_id

    def remove_mount(self, target: str, expect: MountId | None = None) -> None:
        mount = self.at(target)
        if mount is None or (expect is not None and mount.entry.mount_id != expect):
            raise Absent("umount2", target, 22)
        below = [m for m in self.mounts if m.entry.mount_point.startswith(target + "/")]
        if below or target in self.held_open:
            raise Busy("umount2", target, 16)
        self.mounts.remove(mount)
        self.tell(MountChanges(detached=frozenset({mount.entry.mount_id})))

    def tell(self, changes: MountChanges) -> None:
        for watcher in tuple(self.watchers):
            watcher(changes)

    def make_dir(self, path: str, mode: int) -> bool:
        parts = path.strip("/").split("/")
        for depth in range(1, len(parts)):
            parent = "/" + "/".join(parts[:depth])
            if self.inode(parent) is None:
                tree, inner = self.locate(parent)
                tree.inodes[inner] = Inode("directory", 0o750)
        tree, inner = self.locate(path)
        if inner in tree.inodes:
            return False
        tree.inodes[inner] = Inode("directory", mode)
        return True

    def remove_dir(self, path: str) -> None:
        if self.at(path) is not None:
            raise Busy("rmdir", path, 16)
        tree, inner = self.locate(path)
        if inner not in tree.inodes:
            return
        if tree.below(inner):
            raise NotEmpty("rmdir", path, 39)
        del tree.inodes[inner]

    def remove_tree(self, path: str) -> None:
        for mount in self.mounts[1:]:
            point = mount.entry.mount_point
            if point == path or point.startswith(path + "/"):
                raise Busy("remove_tree", path, 16, f"{point} is mounted below")
        tree, inner = self.locate(path)
        for victim in tree.below(inner):
            del tree.inodes[victim]
        tree.inodes.pop(inner, None)

    def write(self, path: str, data: bytes) -> None:
        """A container writes a file."""
        tree, inner = self.locate(path)
        if "ro" in self.mount_of(path).entry.options:
            raise HostError("write", path, 30)
        tree.inodes[inner] = Inode("file", 0o644, data=data)

    def add_image(self, path: str, size: int, signature: str = "") -> Disk:
        disk = Disk(size, signature)
        if signature in ("ext4", "xfs", "btrfs"):
            disk.tree = Tree(signature, path)
        self.make_dir(path.rpartition("/")[0], 0o755)
        tree, inner = self.locate(path)
        tree.inodes[inner] = Inode("file", disk=disk)
        self.disks[path] = disk
        return disk

    def disk_of(self, device: str) -> Disk:
        path = self.loops.get(device)
        if path is None:
            raise Absent("open", device, 6)
        return self.disks[path]

    def reboot(self) -> None:
        """Power cut: memory is gone, disks stay."""
        del self.mounts[1:]
        self.loops.clear()
        self.held_open.clear()
        self.watchers.clear()
