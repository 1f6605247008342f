"""Who uses a mount: processes by what they have open, other namespaces by what they show.

A file, working directory, root or mapping keeps *the* mount busy on which it was opened, so
processes are matched by mount id (`statx` through /proc/<pid>, without asking the file system
itself, which may hang), never by path. Another namespace has copies with ids of their own: those
are matched by device and root. Reads only; all of it runs in the pool, as it looks at every
process.
"""

import glob
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import psutil

from volagent.host import libc, openers
from volagent.host.contract import Holder, MountEntry, MountId
from volagent.host.mountinfo import parse_line
from volagent.host.mounttable import TableReader, find_mount_at
from volagent.host.process import Helpers

_LINK: Final = libc.AT_NO_AUTOMOUNT | libc.AT_STATX_DONT_SYNC
_KERNEL_PID: Final = 0
_SINGLE_LINKS: Final = (
    ("cwd", "working directory"),
    ("root", "root directory"),
    ("exe", "mapped file"),
)


class RealHolders:
    """`Holders` on this machine."""

    def __init__(self, *, helpers: Helpers, reader: TableReader) -> None:
        self._helpers = helpers
        self._reader = reader

    async def find_holders(self, target: str, *, limit: int = 8) -> tuple[Holder, ...]:
        """What keeps the mount at `target` busy; nothing when no mount is there."""
        return await self._helpers.run_in_pool(self._find, target, limit)

    async def find_openers(self, number: str) -> tuple[Holder, ...]:
        """Who has a block device open."""

        def find() -> tuple[Holder, ...]:
            return tuple(
                Holder(pid, command, path, "open device")
                for pid, command, path in openers.find_openers(number)
            )

        return await self._helpers.run_in_pool(find)

    def _find(self, target: str, limit: int) -> tuple[Holder, ...]:
        entry = find_mount_at(target, self._reader)
        if entry is None:
            return ()
        found: list[Holder] = []
        searches = (
            self._find_processes(entry),
            self._find_mounts_below(entry),
            _find_loop_files(target),
            self._find_namespaces(entry),
        )
        for search in searches:
            for holder in search:
                found.append(holder)
                if len(found) == limit:
                    return tuple(found)
        return tuple(found)

    # --- in this namespace -----------------------------------------------------------------

    def _find_processes(self, entry: MountEntry) -> Iterator[Holder]:
        for pid in psutil.pids():
            for path, kind in self._uses(pid, entry):
                yield Holder(pid, read_command(pid), path, kind)
                break  # one reason per process is enough to end it

    def _uses(self, pid: int, entry: MountEntry) -> Iterator[tuple[str, str]]:
        """What a process has on a mount: open files first, then directories, then mappings."""
        try:
            for descriptor in os.listdir(f"/proc/{pid}/fd"):
                link = f"/proc/{pid}/fd/{descriptor}"
                if self._is_on(link, entry):
                    yield _read_link(link), "open file"
            for name, kind in _SINGLE_LINKS:
                link = f"/proc/{pid}/{name}"
                if self._is_on(link, entry):
                    yield _read_link(link), kind
            for link in _mapped_files(pid, entry.device):
                if self._is_on(link, entry):
                    yield _read_link(link), "mapped file"
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            return  # it ended meanwhile, or hides from us

    def _is_on(self, link: str, entry: MountEntry) -> bool:
        try:
            found = libc.statx(libc.AT_FDCWD, link.encode(), _LINK, self._reader.id_mask)
        except OSError:  # closed meanwhile, or its server is gone
            return False
        return bool(found.mount_id == entry.mount_id)

    def _find_mounts_below(self, entry: MountEntry) -> Iterator[Holder]:
        for below in self._reader.read_table().entries:
            if below.parent_id == entry.mount_id and below.mount_id != entry.mount_id:
                yield Holder(_KERNEL_PID, "kernel", below.mount_point, "mount below")

    # --- in other namespaces ---------------------------------------------------------------

    def _find_namespaces(self, entry: MountEntry) -> Iterator[Holder]:
        yield from self._match_namespaces([entry]).values()

    async def namespaces_holding(self, mounts: Sequence[MountEntry]) -> Mapping[MountId, Holder]:
        """Which of these mounts other mount namespaces still show."""
        if not mounts:
            return {}
        return await self._helpers.run_in_pool(self._match_namespaces, mounts)

    def _match_namespaces(self, mounts: Sequence[MountEntry]) -> dict[MountId, Holder]:
        wanted: dict[str, list[MountEntry]] = {}
        for entry in mounts:
            wanted.setdefault(entry.device, []).append(entry)
        ours = read_namespace("self")
        holding: dict[MountId, Holder] = {}
        for pid in find_foreign_processes():
            foreign = read_namespace(pid)
            if foreign is None:
                continue
            for shown in foreign.values():
                for entry in wanted.get(shown.device, ()):
                    if entry.mount_id in holding or not _is_below(shown.root, entry.root):
                        continue
                    if not _follows_us(shown, foreign, ours or {}):
                        holding[entry.mount_id] = Holder(
                            pid, read_command(pid), shown.mount_point, "mount namespace"
                        )
        return holding


@dataclass(frozen=True, slots=True)
class ShownMount:
    """A mount as some namespace shows it, with the peer groups that tie it to others."""

    parent_id: int
    device: str
    root: str
    mount_point: str
    peers: str
    """The group in which it is a peer, or empty."""
    master: str
    """The group from which it receives, or empty."""


def parse_namespace(text: bytes) -> dict[int, ShownMount]:
    """A process's mountinfo, as far as holders are concerned."""
    shown = {}
    for line in text.split(b"\n"):
        if not line:
            continue
        entry = parse_line(line)
        peers = master = ""
        for tag in line.partition(b" - ")[0].split(b" ")[6:]:
            name, _, group = tag.partition(b":")
            if name == b"shared":
                peers = group.decode()
            elif name == b"master":
                master = group.decode()
        shown[int(entry.mount_id)] = ShownMount(
            entry.parent_id, entry.device, entry.root, entry.mount_point, peers, master
        )
    return shown


def read_namespace(pid: int | str) -> dict[int, ShownMount] | None:
    """What the mount namespace of a process shows; None when the process is gone."""
    try:
        with open(f"/proc/{pid}/mountinfo", "rb") as file:
            return parse_namespace(file.read())
    except OSError:
        return None


def find_foreign_processes() -> list[int]:
    """One process for each mount namespace that is not ours."""
    seen = {_read_namespace_id("self")}
    found = []
    for pid in psutil.pids():
        namespace = _read_namespace_id(pid)
        if namespace is not None and namespace not in seen:
            seen.add(namespace)
            found.append(pid)
    return found


def _read_namespace_id(pid: int | str) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/ns/mnt")
    except OSError:  # gone, or a kernel thread
        return None


def _follows_us(
    shown: ShownMount, foreign: Mapping[int, ShownMount], ours: Mapping[int, ShownMount]
) -> bool:
    """Whether unmounting here unmounts there: the mounts that both stand on are tied together."""
    parent = foreign.get(shown.parent_id)
    if parent is None or not (parent.peers or parent.master):
        return False
    for mount in ours.values():
        if mount.mount_point == shown.mount_point and mount.device == shown.device:
            here = ours.get(mount.parent_id)
            if here is not None and here.peers and here.peers in (parent.peers, parent.master):
                return True
    return False


def _is_below(path: str, directory: str) -> bool:
    """Whether `path` is `directory` or inside it, both being canonical."""
    return path == directory or directory == "/" or path.startswith(directory + "/")


def _find_loop_files(target: str) -> Iterator[Holder]:
    for link in sorted(glob.glob("/sys/block/loop*/loop/backing_file")):
        try:
            with open(link) as file:
                backing = file.read().rstrip("\n")
        except OSError:  # detached meanwhile
            continue
        if _is_below(backing, target):
            yield Holder(_KERNEL_PID, f"/dev/{link.split('/')[3]}", backing, "open file")


def _mapped_files(pid: int, device: str) -> Iterator[str]:
    """The mappings of files on a device, as links that can be asked for their mount."""
    major, _, minor = device.partition(":")
    number = f"{int(major):02x}:{int(minor):02x}"
    with open(f"/proc/{pid}/maps", errors="surrogateescape") as file:
        for line in file:
            span, _, _, mapped_device, *_ = line.split(" ", 5)
            if mapped_device == number:
                yield f"/proc/{pid}/map_files/{span}"


def _read_link(link: str) -> str:
    try:
        return os.readlink(link)
    except OSError:
        return link


def read_command(pid: int) -> str:
    """A process's name, as `ps` shows it; empty when it is gone."""
    try:
        return psutil.Process(pid).name()
    except psutil.Error:
        return ""
