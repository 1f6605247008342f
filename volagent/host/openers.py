"""Which processes have a block device, or a partition of it, open.

Without the help of a file system, so that none which hangs is asked. Looks at every process of this
machine that it may see: for a thread or a child. Imports nothing beyond the standard library.
"""

import os
import stat
from collections.abc import Iterator
from typing import Final

from volagent.host import libc

_LINK: Final = libc.AT_NO_AUTOMOUNT | libc.AT_STATX_DONT_SYNC
_BLOCK: Final = "/sys/dev/block"

Number = tuple[int, int]
"""Major, minor."""


def find_openers(number: str) -> Iterator[tuple[int, str, str]]:
    """Process id, name and what it has open, of all but this one; `number` is `major:minor`."""
    wanted = _with_partitions(number)
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if int(pid) == os.getpid():
            continue
        try:
            links = [f"/proc/{pid}/fd/{name}" for name in os.listdir(f"/proc/{pid}/fd")]
        except OSError:
            continue  # it ended meanwhile
        for link in links:
            if _read_number(link) in wanted:
                yield int(pid), _read(f"/proc/{pid}/comm"), _read_link(link)
                break


def _with_partitions(number: str) -> frozenset[Number]:
    where = f"{_BLOCK}/{number}"
    try:
        names = os.listdir(where)
    except OSError:
        names = []
    parts = [_read(f"{where}/{name}/dev") for name in names if _read(f"{where}/{name}/partition")]
    pairs = [each.split(":") for each in (number, *parts)]
    return frozenset((int(major), int(minor)) for major, minor in pairs)


def _read_number(link: str) -> Number | None:
    try:
        found = libc.statx(libc.AT_FDCWD, link.encode(), _LINK, libc.STATX_TYPE)
    except OSError:
        return None
    return (found.rdev_major, found.rdev_minor) if stat.S_ISBLK(found.mode) else None


def _read_link(link: str) -> str:
    try:
        return os.readlink(link)
    except OSError:
        return ""


def _read(path: str) -> str:
    try:
        with open(path, errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""
