"""A kernel made of dictionaries: file systems, mounts, loop devices, and the faults they can have.

As on Linux, a mount hides what is below it, and a path is walked from mount to mount. Links are
followed only by `resolve`; every other path is meant as it stands.

It outlives the agents that run on it (`FakeHost` gives each its view), so that an agent can be
killed between any two calls and another started. `reboot` keeps disks and loses the rest. The
tests' oracle looks at this world directly; it never asks the agent.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from volagent.host.contract import MountChanges, MountEntry, MountId, MountTable, Usage
from volagent.host.errors import Absent, Busy, Escapes, HostError, NotEmpty

LINKS_MAX = 40


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
    grown_to: int = 0
    """How large the file system is, once it was made or grown."""
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
    pinned: set[str] = field(default_factory=set)
    """Mount points that another mount namespace still shows."""
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
        self.usage = Usage(1 << 30, 1 << 29, 1 << 29, 1000, 500)  # of every file system
        root = Tree("ext4", "/dev/vda")
        self.root_entry = MountEntry(MountId(1), MountId(1), root.device, "/", "/", "ext4", "vda")
        self.mounts.append(Mount(self.root_entry, root, ""))

    # -- looking ----------------------------------------------------------------------------

    def mount_of(self, path: str) -> Mount:
        """The mount that a path leads into, the topmost where several are stacked."""
        standing = {(m.entry.parent_id, m.entry.mount_point): m for m in self.mounts[1:]}
        mount, place = self.mounts[0], ""
        for name in path.strip("/").split("/"):
            place = f"{place}/{name}"
            while above := standing.get((mount.entry.mount_id, place)):
                mount = above
        return mount

    def locate(self, path: str) -> tuple[Tree, str]:
        mount = self.mount_of(path)
        point = mount.entry.mount_point.rstrip("/")
        inner = path[len(point) :].strip("/")
        return mount.tree, "/".join(part for part in (mount.root, inner) if part)

    def inode(self, path: str) -> Inode | None:
        tree, inner = self.locate(path)
        return tree.inodes.get(inner)

    def at(self, path: str) -> Mount | None:
        """The topmost mount exactly at a path, unless another mount hides the path."""
        mount = self.mount_of(path)
        return mount if mount.entry.mount_point == path and mount is not self.mounts[0] else None

    def resolve(self, path: str, *, inside: str = "/") -> str:
        """Where a path leads when links are followed. Raises `Escapes` from `inside`, `HostError`.

        Missing names lead to themselves.
        """
        place, names, links = inside.rstrip("/"), _names_below(inside, path), 0
        while names:
            name = names.pop(0)
            if name == "..":
                if place == inside.rstrip("/") != "":
                    raise Escapes("openat2", path, 0, f"a link leads above {inside}")
                place = place.rpartition("/")[0]
                continue
            inode = self.inode(f"{place}/{name}")
            if inode is None or inode.kind != "link":
                place = f"{place}/{name}"
                continue
            links += 1
            if links > LINKS_MAX:
                raise HostError("open", path, 40)
            text = inode.data.decode()
            if text.startswith("/"):
                if not _is_within(text, inside):
                    raise Escapes("openat2", path, 0, f"a link leads to {text}")
                place, names = inside.rstrip("/"), _names_below(inside, text) + names
            else:
                names = text.split("/") + names
        return place or "/"

    def refuse_links(self, path: str) -> None:
        """For the agent's own paths: a link on the way is an attack or a mistake."""
        place = ""
        for name in path.strip("/").split("/")[:-1]:
            place = f"{place}/{name}"
            inode = self.inode(place)
            if inode is not None and inode.kind == "link":
                raise Escapes("openat2", path, 40, "a symbolic link is in the way")

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

    def add_mount(
        self,
        target: str,
        tree: Tree,
        root: str,
        *,
        read_only: bool,
        options: tuple[str, ...] = (),
        propagation: str = "private",
    ) -> MountId:
        self.refuse_links(target)
        standing = self.inode(target)
        if standing is None:
            raise Absent("move_mount", target, 2)
        if (standing.kind == "directory") is not (tree.inodes[root].kind == "directory"):
            raise HostError("move_mount", target, 20)
        mount_id = MountId(next(self.ids))
        parent = self.mount_of(target).entry.mount_id
        options = ("ro" if read_only else "rw", *options)
        entry = MountEntry(
            mount_id, parent, tree.device, f"/{root}", target, tree.fs_type, tree.source, options,
            propagation=propagation,
        )  # fmt: skip
        self.mounts.append(Mount(entry, tree, root))
        self.tell(MountChanges(attached=frozenset({mount_id})))
        return mount_id

    def remove_mount(
        self, target: str, expect: MountId | None = None, *, lazy: bool = False
    ) -> None:
        mount = self.at(target)
        if mount is None or (expect is not None and mount.entry.mount_id != expect):
            raise Absent("umount2", target, 22)
        gone = [mount]
        for other in self.mounts:
            if any(other.entry.parent_id == m.entry.mount_id for m in gone):
                gone.append(other)
        if not lazy and (len(gone) > 1 or target in self.held_open):
            raise Busy("umount2", target, 16)
        self.mounts = [m for m in self.mounts if m not in gone]
        self.tell(MountChanges(detached=frozenset(m.entry.mount_id for m in gone)))

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
            if tree.inodes[inner].kind != "directory":
                raise HostError("mkdir", path, 20, "something else is there")
            return False
        tree.inodes[inner] = Inode("directory", mode)
        return True

    def remove_dir(self, path: str) -> None:
        if self.at(path) is not None:
            raise Busy("rmdir", path, 16)
        tree, inner = self.locate(path)
        if inner not in tree.inodes:
            return
        if tree.inodes[inner].kind != "directory":
            raise HostError("rmdir", path, 20)
        if tree.below(inner):
            raise NotEmpty("rmdir", path, 39)
        del tree.inodes[inner]

    def refuse_mounts_in(self, path: str) -> None:
        for mount in self.mounts[1:]:
            point = mount.entry.mount_point
            if _is_within(point, path):
                raise Busy("remove_tree", path, 16, f"{point} is mounted below")

    def rename(self, path: str, name: str) -> None:
        """Give a directory or file another name beside its own, with all that is in it."""
        tree, inner = self.locate(path)
        new = f"{inner.rpartition('/')[0]}/{name}".lstrip("/")
        for old in (inner, *tree.below(inner)):
            tree.inodes[f"{new}{old[len(inner) :]}"] = tree.inodes.pop(old)

    def remove_below(self, path: str) -> None:
        """Remove a directory with all that is in it."""
        tree, inner = self.locate(path)
        for victim in (*tree.below(inner), inner):
            del tree.inodes[victim]

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
            disk.grown_to = size
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
        self.pinned.clear()
        self.watchers.clear()


def _is_within(path: str, root: str) -> bool:
    return path == root or path.startswith(f"{root.rstrip('/')}/")


def _names_below(root: str, path: str) -> list[str]:
    inner = path[len(root) :] if _is_within(path, root) else path
    return [name for name in inner.split("/") if name and name != "."]
