"""Who shows a directory: mounts of it, or inside it, in this process's mount namespace.

A bind mount of a directory, or of something below it, keeps on showing the same files wherever the
directory is moved to; whoever deletes them deletes them there too. The mount table says for each
mount which subtree of its file system it shows, so this is known without touching anything. What
other mount namespaces hold is not seen from here. Reads `/proc/self/mountinfo`; stateless.
"""

import os
from typing import Final

from volagent.host.contract import MountEntry
from volagent.host.mountinfo import MountinfoReader

USES_MAX: Final = 8
"""So many mount points are named."""


def find_uses(path: str) -> list[str]:
    """Mount points at, inside, or showing a part of a directory that has no link in its path.

    Empty when the directory does not exist. Raises `HostError` when the table cannot be read.
    """
    if not os.path.isdir(path):
        return []
    return choose_uses(path, MountinfoReader().read_table().entries)


def choose_uses(path: str, entries: tuple[MountEntry, ...]) -> list[str]:
    """As `find_uses`, of a mount table. Pure."""
    wanted = _split(path)
    holder = None
    for entry in entries:
        # Later mounts cover earlier ones; a mount on the directory itself is a use, not its holder.
        point = _split(entry.mount_point)
        if (
            len(point) < len(wanted)
            and wanted[: len(point)] == point
            and (holder is None or len(point) >= len(_split(holder.mount_point)))
        ):
            holder = entry
    found = []
    for entry in entries:
        point = _split(entry.mount_point)
        if point[: len(wanted)] == wanted or (holder is not None and _shows(entry, holder, wanted)):
            found.append(entry.mount_point)
    return found[:USES_MAX]


def _shows(entry: MountEntry, holder: MountEntry, wanted: list[str]) -> bool:
    """Whether a mount's root lies at, or below, a directory that another mount holds."""
    inside = _split(holder.root) + wanted[len(_split(holder.mount_point)) :]
    return entry.device == holder.device and _split(entry.root)[: len(inside)] == inside


def _split(path: str) -> list[str]:
    """By components: `/a/bc` is not within `/a/b`."""
    return [part for part in path.split("/") if part]
