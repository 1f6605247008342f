"""What the rest of volagent may ask of the kernel, in values and small protocols.

`host/real.py` answers on this machine; the simulation has a fake that answers from a model. Both
pass `tests/contract/host/`. Methods that are plain functions take microseconds and may run on the
event loop's own thread; coroutines may take longer (they run in a bounded pool or in a killable
helper process) and those that can *hang* take a `timeout_s` and raise `TimedOut`.

Paths are absolute. Those below the agent's root directory are resolved without following symbolic
links; a path that a user names (hostPath, local) may contain links. Errors: `host/errors.py`.
"""

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NewType, Protocol

MountId = NewType("MountId", int)
"""A mount's identity: the unique 64-bit id where mount events carry it (Linux 6.15), else the small
one, which the kernel gives out again when the mount is gone."""


@dataclass(frozen=True, slots=True)
class MountEntry:
    """One mount, as `statmount` or `/proc/self/mountinfo` tells it."""

    mount_id: MountId
    parent_id: MountId
    device: str
    """`major:minor` of the superblock."""
    root: str
    """Path inside the file system that is the root of this mount."""
    mount_point: str
    fs_type: str
    source: str
    options: tuple[str, ...] = ()
    """Per-mount options (`ro`, `nosuid`, ...)."""
    super_options: tuple[str, ...] = ()
    propagation: str = "private"
    """`private`, `shared`, `slave`, `unbindable`."""


@dataclass(frozen=True, slots=True)
class MountTable:
    """All mounts of the namespace at one moment, in the order in which they were made."""

    entries: tuple[MountEntry, ...]


@dataclass(frozen=True, slots=True)
class MountChanges:
    """What happened to the mount table since the last call."""

    attached: frozenset[MountId] = frozenset()
    detached: frozenset[MountId] = frozenset()


class Propagation(enum.Enum):
    """`mountPropagation` in the kernel's words."""

    PRIVATE = "private"
    SLAVE = "rslave"
    SHARED = "rshared"


@dataclass(frozen=True, slots=True)
class TmpfsOptions:
    """A tmpfs: `size_bytes` is a hard limit (None: the kernel's half of memory)."""

    size_bytes: int | None = None
    mode: int = 0o1777
    uid: int = 0
    gid: int = 0
    no_swap: bool = False
    """Keep the pages out of swap (`noswap`, Linux 6.4; older kernels go without)."""
    huge_page_bytes: int | None = None
    """Make it a hugetlbfs of this page size instead."""
    propagation: Propagation = Propagation.PRIVATE
    """SHARED makes it a peer group of its own, as `mountPropagation: Bidirectional` needs."""


@dataclass(frozen=True, slots=True)
class BindOptions:
    """How a bind mount differs from what it shows."""

    recursive: bool = False
    read_only: bool = False
    recursive_read_only: bool = False
    """Read-only for the mounts below as well (`mount_setattr` with AT_RECURSIVE, Linux 5.12)."""
    options: tuple[str, ...] = ()
    """Further per-mount options: nosuid, nodev, noexec, noatime, relatime."""
    propagation: Propagation = Propagation.PRIVATE
    """SLAVE: what is mounted below the source later appears here too. SHARED: a peer group of its
    own, cut off from the source's, as `mountPropagation: Bidirectional` needs."""


class Closeable(Protocol):
    """Something that is watched until it is closed."""

    def close(self) -> None:
        """Stop watching; idempotent."""


class Mounts(Protocol):
    """The mount table of the agent's namespace."""

    def read_table(self) -> MountTable:
        """Every mount, consistent at one moment."""

    def find_mount(self, mount_id: MountId) -> MountEntry | None:
        """One mount by its id, or None when it is gone. Never touches the mounted file system."""

    def find_mount_at(self, target: str) -> MountEntry | None:
        """The topmost mount whose root is exactly at `target`; None for anything else there.

        One look at the path, not at the table: for local file systems only.
        """

    def mount_tmpfs(self, target: str, options: TmpfsOptions) -> MountId:
        """Mount a tmpfs on an existing directory, private, `nodev,nosuid` unless asked otherwise.

        Raises `HostError`.
        """

    def bind(self, source: str, target: str, options: BindOptions) -> MountId:
        """Show `source` (directory, file or device) at `target`, which exists and is of its kind.

        Raises `Absent` when the source is missing.
        """

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
        """Bind `volume_root/sub_path` to `target` without ever leaving the volume.

        Missing directories are made: the last with `mode` (None: that of the volume's root), those
        between with `mode & ~umask`. The target is made, as a directory or an empty file to match.
        Everything is resolved by descriptors (`openat2`, `RESOLVE_IN_ROOT` is not used: absolute
        links are allowed only when they stay inside). With `follow_links`, links on the way to
        `volume_root` are followed: a path that a user names. Raises `Escapes`, `Absent`.
        """

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
        """`bind_sub_path` in a killable process: for volumes of a backend that can hang.

        Raises `TimedOut` too: then it may have happened.
        """

    def unmount(self, target: str, *, expect: MountId | None = None) -> None:
        """Unmount the topmost mount at `target`, a tmpfs or a bind of a local file system.

        With `expect`, only when that is the mount found there. Raises `Busy`, `Absent` (nothing is
        mounted there, or another mount than expected).
        """

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
        """Mount the file system on a block device. Raises `HostError`, `Unsupported`.

        With a `backend`, the device is at the end of a network: in a killable process, which
        raises `TimedOut` too.
        """

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
        """Mount a network file system through its helper (`mount.nfs`), in a killable process.

        `backend` names the bulkhead (`nfs:10.0.0.5`). Raises `HostError`, `TimedOut`.
        """

    async def unmount_slowly(
        self, target: str, *, backend: str, timeout_s: float, force: bool, lazy: bool
    ) -> None:
        """Unmount what may hang or flush for long, in a killable process.

        `force` is `umount -f` (aborts a dead server's requests); `lazy` is MNT_DETACH, the last
        resort. Raises `Busy`, `Absent`, `TimedOut`.
        """

    def watch_mounts(self, on_change: Callable[[MountChanges], None]) -> Closeable:
        """Call `on_change` on the loop's thread soon after mounts come and go.

        A queue overflow is resolved inside by comparing tables, so changes are never lost.
        """


class FileKind(enum.Enum):
    """What a path leads to, links followed."""

    DIRECTORY = "directory"
    FILE = "file"
    SOCKET = "socket"
    CHARACTER_DEVICE = "character device"
    BLOCK_DEVICE = "block device"
    FIFO = "fifo"


@dataclass(frozen=True, slots=True)
class PayloadFile:
    """One file of an API-backed volume; its `repr` never shows the content."""

    path: str
    """Relative, no `..`, may have directories."""
    content: bytes = field(repr=False)
    mode: int
    uid: int | None = None


@dataclass(frozen=True, slots=True)
class Payload:
    """The whole content of an API-backed volume."""

    files: tuple[PayloadFile, ...]
    fingerprint: str
    """Changes when any path, mode or byte changes; safe to show (a keyed or truncated hash)."""


class OwnershipPolicy(enum.Enum):
    """`fsGroupChangePolicy`."""

    ALWAYS = "Always"
    ON_ROOT_MISMATCH = "OnRootMismatch"


class Trees(Protocol):
    """Directories and files under the agent's root, and the few that users point at."""

    def ensure_dir(
        self, path: str, *, mode: int, gid: int | None = None, follow_links: bool = False
    ) -> bool:
        """Make a directory and its missing parents (those 0750); True when it was made now.

        The mode is exact, whatever the umask; an existing directory keeps its own. With
        `follow_links` (a path that a user names, such as /var/run/x) only the last directory is
        made, and links on the way to it are followed. Raises `Absent` when there is no such way.
        """

    def remove_dir(self, path: str) -> None:
        """`rmdir`; a missing one is fine. Raises `NotEmpty`, `Busy` (a mount stands on it)."""

    def list_dir(self, path: str) -> list[str]:
        """Names in a directory of the agent's own skeleton, sorted; empty when it is missing."""

    def inspect(self, path: str) -> FileKind | None:
        """What a user's path leads to, or None. Raises `HostError` when it cannot be looked at."""

    async def inspect_slowly(self, path: str, *, backend: str, timeout_s: float) -> FileKind | None:
        """`inspect` for a path that may lead to a server: the loop never waits for one.

        Raises `TimedOut`, `HostError`.
        """

    def ensure_file(self, path: str, *, mode: int, follow_links: bool = False) -> bool:
        """Make an empty file when it is missing; True when it was made now.

        `follow_links` as for `ensure_dir`. Raises `Absent` when its directory is missing.
        """

    def ensure_link(self, path: str, destination: str) -> None:
        """Make or replace a symbolic link atomically (block devices under `volumeDevices`)."""

    def remove_file(self, path: str) -> None:
        """Remove a link or an empty placeholder file of ours; a missing one is fine."""

    def write_payload(self, target: str, payload: Payload, *, gid: int | None) -> None:
        """Make the directory show exactly this payload, by one atomic rename of `..data`.

        Layout as the kubelet's AtomicWriter: `..<timestamp>/` 0755, `..data` → it, and a link per
        first path component. An interrupted call is completed or cleaned by the next. With `gid`,
        files are chgrp'ed and get `|= 0440`.
        """

    def read_payload_fingerprint(self, target: str) -> str | None:
        """The fingerprint of what `write_payload` left there, or None when there is none."""

    async def remove_tree(self, path: str) -> None:
        """Delete a directory with contents, on its own mount only.

        Renamed aside first (atomically), then removed by descriptors with `RESOLVE_NO_XDEV` on the
        same mount id: it stops with `Busy` at anything mounted below, deleting nothing there.
        """

    async def finish_removals(self, parent: str) -> int:
        """Finish what interrupted calls of `remove_tree` left in a directory (`.<name>.removing-`).

        Returns how many there were; zero when the directory is missing.
        """

    async def set_ownership(
        self, path: str, *, gid: int, policy: OwnershipPolicy, timeout_s: float
    ) -> int:
        """Apply `fsGroup`: chgrp, `mode |= 0660`, directories `|= 02110`; links are skipped.

        Returns how many files were changed. With ON_ROOT_MISMATCH nothing is done when the root
        has the group and the setgid bit already. Raises `TimedOut`, `HostError`.
        """


@dataclass(frozen=True, slots=True)
class BlockDevice:
    """A block device, and what proves that it is the one that was meant."""

    path: str
    number: str
    """`major:minor`."""
    identity: str
    """What stays the same when the path changes: `loop:<st_dev>:<inode>` of the backing file,
    else WWID or serial, else the number."""
    size_bytes: int
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Signature:
    """What `blkid`'s low-level probe found on a device.

    Exactly one of three: `blank` (every probed area was read and there is nothing), `fs_type`
    (a file system), or neither: `found` then names a foreign signature (partition table, LVM,
    RAID, encrypted, ambivalent).
    """

    blank: bool
    fs_type: str = ""
    found: str = ""
    uuid: str = ""
    label: str = ""


@dataclass(frozen=True, slots=True)
class CheckReport:
    """The outcome of a file system check."""

    clean: bool
    """The file system may be mounted."""
    repaired: bool = False
    detail: str = ""


class Devices(Protocol):
    """Block devices, loop devices, and the file systems on them."""

    async def create_image(self, path: str, *, size_bytes: int) -> bool:
        """Make a sparse file of that size when there is none; True when it was made now.

        Raises `HostError` (ENOSPC, ...), and when the path exists but is no regular file.
        """

    async def grow_image(self, path: str, *, size_bytes: int) -> bool:
        """Make an image file at least this large; True when it was grown. Never makes it smaller.

        Raises `Absent`, `HostError`.
        """

    async def attach_loop(self, path: str, *, read_only: bool) -> BlockDevice:
        """The loop device of an image file: the one it has already, else a new one.

        Direct I/O where the file system allows it. Raises `Absent`, `HostError`.
        """

    async def detach_loop(self, device: BlockDevice) -> None:
        """Give a loop device back, if it still is the one described. Raises `Busy`.

        A device that is gone or shows another file is left alone: done.
        """

    def find_loops(self) -> dict[str, BlockDevice]:
        """All loop devices in use, by device path (for recovery and leftovers)."""

    def identify(self, path: str) -> BlockDevice:
        """The block device at a path (links followed). Raises `Absent`, `HostError`."""

    def find_disk(self, serial: str) -> BlockDevice | None:
        """The disk that says this serial number of itself. Raises `HostError`."""

    async def find_partition(self, disk: BlockDevice, number: int) -> BlockDevice:
        """A partition, 1 or more, of a disk or of a map over a disk's paths.

        The kernel looks at the table again when it does not know of it. One of a read-only disk is
        read-only. Raises `Absent` (there is none), `Unsupported`, `HostError`.
        """

    async def flush(self, device: BlockDevice) -> None:
        """Write out what is cached for a device that nobody holds, before it is taken away.

        Raises `Busy` (it, or a part of it, is mounted or in use by another device), `Absent` (it
        is gone, or another one is in its place), `TimedOut`.
        """

    async def probe(self, device: str) -> Signature:
        """What is on a device. Raises `HostError` when any part could not be read."""

    async def make_filesystem(self, device: BlockDevice, *, fs_type: str) -> None:
        """Format. The implementation probes again, under an exclusive open, and refuses
        (`HostError`) a device that is not blank. Raises `Unsupported` without mkfs for the type.
        """

    async def check_filesystem(self, device: BlockDevice, *, fs_type: str) -> CheckReport:
        """Replay and repair what is safe to repair (`fsck -p` and the like), unmounted."""

    async def grow(self, device: BlockDevice, *, fs_type: str, mounted_at: str) -> bool:
        """Let the file system fill its device, online; True when it grew. Loop devices first take
        on the new size of their file."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Somebody who keeps a mount or a device busy."""

    pid: int
    command: str
    path: str
    """What they hold: an open file, a working directory, or the mount in their namespace."""
    kind: str
    """`open file`, `open device`, `working directory`, `root directory`, `mapped file`,
    `mount namespace`, `mount below`."""

    def __str__(self) -> str:
        return f"pid {self.pid} ({self.command}): {self.kind} {self.path}"


class Holders(Protocol):
    """Who uses a mount, or a device."""

    async def find_holders(self, target: str, *, limit: int = 8) -> tuple[Holder, ...]:
        """Processes and mount namespaces that keep `target` busy, most telling first."""

    async def find_openers(self, number: str) -> tuple[Holder, ...]:
        """Processes that have the block device `major:minor`, or a partition of it, open."""

    async def namespaces_holding(self, mounts: Sequence[MountEntry]) -> Mapping[MountId, Holder]:
        """Which of these mounts other mount namespaces still show, each with one process there.

        Containers that somebody else started keep a volume in use this way without making its
        mount busy. A namespace that merely receives the agent's mounts by propagation (as most
        services' do) lets go together with the agent, and does not count.
        """


@dataclass(frozen=True, slots=True)
class Usage:
    """Space and inodes of a mounted volume, in bytes and counts."""

    capacity_bytes: int
    available_bytes: int
    used_bytes: int
    inodes: int
    inodes_free: int


class Gauges(Protocol):
    """How full a volume is."""

    async def measure(self, path: str, *, backend: str, timeout_s: float) -> Usage:
        """`statvfs` in a helper when the backend can hang. Raises `TimedOut`, `HostError`."""


@dataclass(frozen=True, slots=True)
class Host:
    """Everything a driver or the node may ask of the kernel."""

    mounts: Mounts
    trees: Trees
    devices: Devices
    holders: Holders
    gauges: Gauges
