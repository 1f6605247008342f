"""The links by which the directories of a storage node's disks lead to their thin volumes.

`<volume>/disk.img` is a link to `/dev/VG/volagent-<volume>`: made before the thin volume and gone
after it, so that none is forgotten, and it goes with the directory into the trash and back. A link
counts only in a directory whose owner marker says that it is a disk's: in a shared directory
anybody may make one. Blocks for microseconds per volume.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from typing import Final

from volagent.host.errors import HostError
from volagent.host.thin_names import device_of, group_of

_FOLDERS: Final = ((".volagent", ""), (".volagent/trash", ".volagent/trash/"))
"""Where markers are, and what their directories' paths begin with."""


def make(path: str, group: str, volume: str) -> None:
    """Make a volume's link, durably. Raises `HostError` when something else is there."""
    device = device_of(group, volume)
    try:
        with contextlib.suppress(FileExistsError):
            os.symlink(device, path)
            above = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(above)
            finally:
                os.close(above)
        found = os.readlink(path)
    except OSError as error:
        raise HostError("symlink", path, error.errno or 0) from error
    if found != device:
        raise HostError("symlink", path, 0, f"it leads to {found} already, not to {device}")


def find_groups(directory: str, provisioner: str, file: str) -> dict[str, str]:
    """The volume groups that the disks of a directory and its trash are in: one disk of each."""
    found: dict[str, str] = {}
    for folder, prefix in _FOLDERS:
        for name in _list_marked(f"{directory}/{folder}", provisioner):
            with contextlib.suppress(OSError):
                group = group_of(os.readlink(f"{directory}/{prefix}{name}/{file}"), name)
                if group:
                    found.setdefault(group, name)
    return found


def _list_marked(folder: str, provisioner: str) -> Iterator[str]:
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return
    for name in names:
        volume = name.removesuffix(".json")
        if volume != name and says_provisioner(f"{folder}/{name}", provisioner):
            yield volume


def says_provisioner(marker: str, provisioner: str) -> bool:
    """Whether an owner marker says that this provisioner has made the volume."""
    try:
        with open(marker, "rb") as file:
            return bool(json.load(file).get("provisioner") == provisioner)
    except (OSError, ValueError, AttributeError):
        return False
