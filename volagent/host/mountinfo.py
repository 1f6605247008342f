"""The mount table as `/proc/<pid>/mountinfo` tells it: for kernels without `statmount`.

The mount ids are the small ones that the kernel gives out again as soon as a mount is gone. Every
line needs the whole file to be read: some microseconds per mount. The parser is pure; the reader
keeps no state, so any thread may use it. Never touches a mounted file system.
"""

import os
import re
import select
from collections.abc import Iterable, Mapping
from typing import Final

from volagent.host import libc
from volagent.host.contract import MountEntry, MountId, MountTable

_SELF: Final = "/proc/self/mountinfo"
_READ_BYTES: Final = 1 << 20
_ATTEMPTS: Final = 5
_ESCAPE = re.compile(rb"\\([0-7]{3})")


def unescape(raw: bytes) -> str:
    r"""A field's text: undo the kernel's `\040` for blanks, tabs, newlines, backslashes, `#`."""
    if b"\\" in raw:
        raw = _ESCAPE.sub(lambda match: bytes((int(match[1], 8),)), raw)
    return os.fsdecode(raw)


def parse_line(line: bytes) -> MountEntry:
    """One line of mountinfo, see proc(5). Raises `ValueError` for anything else."""
    before, _, after = line.partition(b" - ")
    mount_id, parent_id, device, root, mount_point, options, *tags = before.split(b" ")
    fs_type, source, super_options = after.split(b" ", 2)
    return MountEntry(
        mount_id=MountId(int(mount_id)),
        parent_id=MountId(int(parent_id)),
        device=device.decode(),
        root=unescape(root),
        mount_point=unescape(mount_point),
        fs_type=fs_type.decode(),
        source=unescape(source),
        options=tuple(options.decode().split(",")),
        super_options=tuple(unescape(super_options).split(",")),
        propagation=_propagation(tags),
    )


def _propagation(tags: list[bytes]) -> str:
    for tag in tags:
        if tag.startswith(b"shared:"):
            return "shared"
        if tag.startswith(b"master:"):
            return "slave"
        if tag == b"unbindable":
            return "unbindable"
    return "private"


def parse_table(text: bytes) -> MountTable:
    """A whole mountinfo."""
    return MountTable(order_entries(parse_line(line) for line in text.split(b"\n") if line))


def order_entries(entries: Iterable[MountEntry]) -> tuple[MountEntry, ...]:
    """The entries as they come, but never a mount before the one that it stands on.

    The order in which mounts are made is not quite that in which they are attached (a detached
    mount may wait, a mount may be moved), and who tears down in reverse relies on the latter.
    """
    listed = tuple(entries)
    ids = {entry.mount_id for entry in listed}
    placed: set[MountId] = set()
    ordered: list[MountEntry] = []
    waiting: dict[MountId | None, list[MountEntry]] = {}
    for entry in listed:
        # A namespace's first root is its own parent.
        parent = entry.parent_id if entry.parent_id != entry.mount_id else None
        if parent in ids and parent not in placed:
            waiting.setdefault(parent, []).append(entry)
            continue
        ready = [entry]
        while ready:
            placed_now = ready.pop()
            ordered.append(placed_now)
            placed.add(placed_now.mount_id)
            ready += reversed(waiting.pop(placed_now.mount_id, ()))
    return tuple(ordered)


class MountinfoReader:
    """Answers from /proc/self/mountinfo, by the small ids."""

    id_mask: Final = libc.STATX_MNT_ID

    def read_table(self) -> MountTable:
        """Every mount at one moment: read again when the table changed meanwhile."""
        return parse_table(_read_self())

    def find_mount(self, mount_id: MountId) -> MountEntry | None:
        """One mount, or None."""
        needle = b"\n%d " % mount_id
        text = b"\n" + _read_self()
        start = text.find(needle)
        if start < 0:
            return None
        end = text.find(b"\n", start + 1)
        return parse_line(text[start + 1 : end])

    def find_newest(self, mount_point: str) -> MountEntry | None:
        """The mount seen at a path: the last that was mounted there."""
        for entry in reversed(self.read_table().entries):
            if entry.mount_point == mount_point:
                return entry
        return None

    def read_identities(self) -> Mapping[MountId, bytes]:
        """Ids with what shows that an id was given out again: parent, device, root, mount point."""
        identities = {}
        for line in _read_self().split(b"\n")[:-1]:
            mount_id, parent, device, root, mount_point, _ = line.split(b" ", 5)
            identities[MountId(int(mount_id))] = b" ".join((parent, device, root, mount_point))
        return identities


def _read_self() -> bytes:
    """The bytes of the table, consistent: the kernel hands it out page by page.

    Polling the same descriptor afterwards tells whether anything changed since it was opened. On
    a table that never rests the last reading is returned; it lacks no mount that stood still.
    """
    text = b""
    for _ in range(_ATTEMPTS):
        fd = os.open(_SELF, os.O_RDONLY | os.O_CLOEXEC)
        try:
            chunks = []
            while chunk := os.read(fd, _READ_BYTES):
                chunks.append(chunk)
            text = b"".join(chunks)
            poll = select.poll()
            poll.register(fd, select.POLLPRI)
            if not poll.poll(0):
                return text
        finally:
            os.close(fd)
    return text
