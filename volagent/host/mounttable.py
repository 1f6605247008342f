"""Reading the mount table: one interface over its two sources, and the choice between them.

Nothing here touches a mounted file system: `statx` is told not to ask a server.
"""

import os
from collections.abc import Mapping
from typing import Final, Protocol

from volagent.host import libc, paths
from volagent.host.contract import MountEntry, MountId, MountTable
from volagent.host.errors import Absent, HostError
from volagent.host.mountinfo import MountinfoReader
from volagent.host.statmount import StatmountReader, statmount_is_complete

# Not asking a server matters: NFS answers from what it knows, even when its server is dead.
_AT_NAME: Final = libc.AT_SYMLINK_NOFOLLOW | libc.AT_NO_AUTOMOUNT | libc.AT_STATX_DONT_SYNC
_DESCRIPTOR: Final = libc.AT_EMPTY_PATH | libc.AT_STATX_DONT_SYNC
_LOCAL_TYPES: Final = frozenset(("tmpfs", "btrfs", "overlay", "hugetlbfs", "ramfs", "devtmpfs"))
"""File systems without a block device of their own that nonetheless cannot hang."""


class TableReader(Protocol):
    """One of the two ways to read the mount table. Stateless; never touches a file system."""

    @property
    def id_mask(self) -> int:
        """The `statx` mask whose ids are those of the entries."""

    def read_table(self) -> MountTable:
        """Every mount, consistent at one moment."""

    def find_mount(self, mount_id: MountId) -> MountEntry | None:
        """One mount by id, or None."""

    def find_newest(self, mount_point: str) -> MountEntry | None:
        """The mount last made at a path, or None."""

    def read_identities(self) -> Mapping[MountId, bytes]:
        """All mount ids, each with what tells that a small id was given out again."""


def choose_reader() -> TableReader:
    """The reader for this kernel: the whole daemon uses one, so that ids are of one kind.

    Unique ids only where mount events carry them too (Linux 6.15): without events the table is
    compared at each change, and mountinfo tells more of a change at once, such as a move.
    """
    if statmount_is_complete() and has_mount_events():
        return StatmountReader()
    return MountinfoReader()


def has_mount_events() -> bool:
    """Whether fanotify tells of mounts: Linux 6.15."""
    try:
        os.close(libc.fanotify_init(libc.FAN_REPORT_MNT | libc.FAN_CLOEXEC | libc.FAN_NONBLOCK))
    except OSError:
        return False
    return True


def find_id_at(directory: int, name: str, reader: TableReader) -> MountId | None:
    """The topmost mount whose root is exactly `directory/name`. Raises `OSError`."""
    found = libc.statx(directory, os.fsencode(name), _AT_NAME, reader.id_mask)
    return MountId(found.mount_id) if found.attributes & libc.STATX_ATTR_MOUNT_ROOT else None


def find_mount_at(target: str, reader: TableReader) -> MountEntry | None:
    """The topmost mount whose root is exactly at a path of ours. Raises `HostError`."""
    try:
        directory, name = paths.open_parent(target)
    except Absent:
        return None
    try:
        mount_id = find_id_at(directory, name, reader)
        return None if mount_id is None else reader.find_mount(mount_id)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HostError("statx", target, error.errno or 0) from error
    finally:
        os.close(directory)


def find_file_system(directory: int, reader: TableReader) -> tuple[str, bool]:
    """The device number (`major:minor`) of the file system behind a descriptor, and whether it is
    local: whether it answers without anybody else's help. Raises `OSError`."""
    found = libc.statx(directory, b"", _DESCRIPTOR, reader.id_mask)
    device = f"{found.dev_major}:{found.dev_minor}"
    if found.dev_major:  # a block device
        return device, True
    entry = reader.find_mount(MountId(found.mount_id))
    return device, entry is not None and entry.fs_type in _LOCAL_TYPES
