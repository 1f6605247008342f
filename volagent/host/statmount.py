"""The mount table by `listmount` and `statmount`: one mount costs microseconds, among thousands.

Used where the kernel tells everything that mountinfo does (the source came last, with Linux 6.13);
older ones use `mountinfo.py` as a whole, so that one daemon never mixes the two kinds of ids. Ids
here are unique for the lifetime of the kernel. Never touches a mounted file system. Stateless.
"""

import errno
import struct
import sys
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Final

from volagent.host import libc
from volagent.host.contract import MountEntry, MountId, MountTable
from volagent.host.mount_options import describe_attributes
from volagent.host.mountinfo import order_entries

_SB_BASIC: Final = 0x001
_MNT_BASIC: Final = 0x002
_MNT_ROOT: Final = 0x008
_MNT_POINT: Final = 0x010
_FS_TYPE: Final = 0x020
_MNT_OPTS: Final = 0x080
_FS_SUBTYPE: Final = 0x100
_SB_SOURCE: Final = 0x200
_EVERYTHING: Final = (
    _SB_BASIC
    | _MNT_BASIC
    | _MNT_ROOT
    | _MNT_POINT
    | _FS_TYPE
    | _MNT_OPTS
    | _FS_SUBTYPE
    | _SB_SOURCE
)

# struct statmount: size, mnt_opts; mask; sb_dev_major, sb_dev_minor; sb_magic; sb_flags, fs_type;
# mnt_id; mnt_parent_id; mnt_id_old, mnt_parent_id_old; mnt_attr; mnt_propagation; mnt_peer_group;
# mnt_master; propagate_from; mnt_root, mnt_point; mnt_ns_id; fs_subtype, sb_source. Those among
# them that are offsets point into the strings, which begin at byte 512.
_FIXED = struct.Struct("=IIQIIQIIQQIIQQQQQIIQII")
_STRINGS_AT: Final = 512
_ENCODING: Final = sys.getfilesystemencoding()
_USUAL_BYTES: Final = 1024
_MOST_BYTES: Final = 1 << 20

_SB_RDONLY: Final = 1 << 0
_SB_SYNCHRONOUS: Final = 1 << 4
_SB_DIRSYNC: Final = 1 << 7
_SB_LAZYTIME: Final = 1 << 25

_LIST_COUNT: Final = 4096
_NEWEST_COUNT: Final = 64
_ATTEMPTS: Final = 5


def statmount_is_complete() -> bool:
    """Whether this kernel's statmount tells all that a `MountEntry` has."""
    try:
        newest = libc.listmount(libc.LSMT_ROOT, 0, 1, libc.LISTMOUNT_REVERSE)
        raw = libc.statmount(newest[0], _EVERYTHING, _MOST_BYTES)
    except (OSError, IndexError):
        return False
    mask: int = _FIXED.unpack_from(raw)[2]
    return bool(mask & _SB_SOURCE)


def parse_statmount(raw: bytes) -> MountEntry:
    """A `struct statmount`, asked for with every field, as an entry."""
    (
        _size, mnt_opts, mask, major, minor, _magic, sb_flags, fs_type, mnt_id, parent_id,
        _old, _old_parent, attributes, propagation, _peers, _master, _from, root, point, _ns,
        subtype, source,
    ) = _FIXED.unpack_from(raw)  # fmt: skip
    type_name = _text(raw, fs_type)
    if mask & _FS_SUBTYPE:
        type_name = f"{type_name}.{_text(raw, subtype)}"
    return MountEntry(
        MountId(mnt_id),
        MountId(parent_id),
        f"{major}:{minor}",
        _text(raw, root),
        # Neither a source nor a mount point is told where there is none to be seen.
        _text(raw, point) if mask & _MNT_POINT else "",
        type_name,
        _text(raw, source) if mask & _SB_SOURCE else "none",
        _attribute_words(attributes),
        _super_words(sb_flags, _text(raw, mnt_opts) if mask & _MNT_OPTS else ""),
        _describe_propagation(propagation),
    )


def _text(raw: bytes, offset: int) -> str:
    start = _STRINGS_AT + offset
    return raw[start : raw.index(b"\0", start)].decode(_ENCODING, "surrogateescape")


# Thousands of mounts share a handful of option lists: building them once halves the work.


@lru_cache(maxsize=256)
def _attribute_words(attributes: int) -> tuple[str, ...]:
    return tuple(describe_attributes(attributes))


@lru_cache(maxsize=256)
def _super_words(flags: int, options: str) -> tuple[str, ...]:
    words = ["ro" if flags & _SB_RDONLY else "rw"]
    if flags & _SB_SYNCHRONOUS:
        words.append("sync")
    if flags & _SB_DIRSYNC:
        words.append("dirsync")
    if flags & _SB_LAZYTIME:
        words.append("lazytime")
    return (*words, *options.split(",")) if options else tuple(words)


def _describe_propagation(bits: int) -> str:
    if bits & libc.MS_SHARED:
        return "shared"
    if bits & libc.MS_SLAVE:
        return "slave"
    return "unbindable" if bits & libc.MS_UNBINDABLE else "private"


class StatmountReader:
    """Answers from the kernel's tables, by unique ids."""

    id_mask: Final = libc.STATX_MNT_ID_UNIQUE

    def read_table(self) -> MountTable:
        """Every mount at one moment: read again when mounts came or went meanwhile."""
        entries: list[MountEntry] = []
        ids = list(_list_ids())
        for _ in range(_ATTEMPTS):
            found = (self.find_mount(MountId(mount_id)) for mount_id in ids)
            entries = [entry for entry in found if entry is not None]
            ids_before, ids = ids, list(_list_ids())
            if ids == ids_before:
                break
        return MountTable(order_entries(entries))

    def find_mount(self, mount_id: MountId) -> MountEntry | None:
        """One mount, or None. Raises `OSError`."""
        size = _USUAL_BYTES
        while True:
            try:
                return parse_statmount(libc.statmount(mount_id, _EVERYTHING, size))
            except OSError as error:
                if error.errno == errno.ENOENT:
                    return None
                if error.errno != errno.EOVERFLOW or size >= _MOST_BYTES:
                    raise
                size *= 8  # overlay file systems list their layers in their options

    def find_newest(self, mount_point: str) -> MountEntry | None:
        """The mount seen at a path: the last that was mounted there."""
        for mount_id in _list_ids_newest_first():
            entry = self.find_mount(MountId(mount_id))
            if entry is not None and entry.mount_point == mount_point:
                return entry
        return None

    def read_identities(self) -> Mapping[MountId, bytes]:
        """All ids; they are unique, so nothing more is needed to tell them apart."""
        return dict.fromkeys(map(MountId, _list_ids()), b"")


def _list_ids() -> Iterator[int]:
    last = 0
    while True:
        ids = libc.listmount(libc.LSMT_ROOT, last, _LIST_COUNT, 0)
        yield from ids
        if len(ids) < _LIST_COUNT:
            return
        last = ids[-1]


def _list_ids_newest_first() -> Iterator[int]:
    last, count = 0, _NEWEST_COUNT
    while True:
        ids = libc.listmount(libc.LSMT_ROOT, last, count, libc.LISTMOUNT_REVERSE)
        yield from ids
        if len(ids) < count:
            return
        last, count = ids[-1], _LIST_COUNT
