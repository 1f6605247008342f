"""How full a volume is: `Gauges` on a real kernel.

A volume on this node's own disks is asked directly, in microseconds; one whose backend can hang is
asked from a child process that can be killed. A volume that is called local may lie on a server all
the same (a `local` path on an NFS mount), so its file system is looked at first. Nothing is cached.
"""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from volagent.host import paths
from volagent.host.contract import Usage
from volagent.host.errors import HostError
from volagent.host.mounttable import TableReader, find_file_system

if TYPE_CHECKING:
    from volagent.host.process import Helpers

_LOCAL = ("", "local")


class RealGauges:
    """`Gauges` on this machine."""

    def __init__(self, *, helpers: "Helpers", reader: TableReader) -> None:
        self._helpers = helpers
        self._reader = reader

    async def measure(self, path: str, *, backend: str, timeout_s: float) -> Usage:
        """Space and inodes of the file system at a path."""
        if backend in _LOCAL:
            device, usage = self._measure_local(path)
            if usage is not None:
                return usage
            backend = f"device {device}"
        answer = await self._helpers.call(
            "statvfs", {"path": path}, backend=backend, timeout_s=timeout_s
        )
        return _read_answer(answer)

    def _measure_local(self, path: str) -> tuple[str, Usage | None]:
        """The device number of the file system, and its usage unless it may need a server."""
        place = paths.open_anything(path)
        try:
            device, local = find_file_system(place, self._reader)
            return device, _describe(os.fstatvfs(place)) if local else None
        except OSError as error:
            raise HostError("statvfs", path, error.errno or 0) from error
        finally:
            os.close(place)


def _describe(found: os.statvfs_result) -> Usage:
    unit = found.f_frsize
    return Usage(
        capacity_bytes=found.f_blocks * unit,
        available_bytes=found.f_bavail * unit,
        used_bytes=(found.f_blocks - found.f_bfree) * unit,
        inodes=found.f_files,
        inodes_free=found.f_ffree,
    )


def _read_answer(answer: Mapping[str, int]) -> Usage:
    unit = answer["fragment_bytes"]
    return Usage(
        capacity_bytes=answer["blocks"] * unit,
        available_bytes=answer["blocks_available"] * unit,
        used_bytes=(answer["blocks"] - answer["blocks_free"]) * unit,
        inodes=answer["inodes"],
        inodes_free=answer["inodes_free"],
    )
