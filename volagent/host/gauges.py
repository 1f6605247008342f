"""How full a volume is: `Gauges` on a real kernel.

A volume on this node's own disks is asked directly, in microseconds; one whose backend can hang is
asked from a child process that can be killed. Nothing is cached.
"""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from volagent.host import paths
from volagent.host.contract import Usage
from volagent.host.errors import Absent, HostError

if TYPE_CHECKING:
    from volagent.host.process import Helpers


class RealGauges:
    """`Gauges` on this machine."""

    def __init__(self, *, helpers: "Helpers") -> None:
        self._helpers = helpers

    async def measure(self, path: str, *, backend: str, timeout_s: float) -> Usage:
        """Space and inodes of the file system at a path."""
        if backend in ("", "local"):
            return _measure_local(path)
        answer = await self._helpers.call(
            "statvfs", {"path": path}, backend=backend, timeout_s=timeout_s
        )
        return _read_answer(answer)


def _measure_local(path: str) -> Usage:
    try:
        found = os.statvfs(paths.encode(path))
    except FileNotFoundError as error:
        raise Absent("statvfs", path, error.errno or 0) from error
    except OSError as error:
        raise HostError("statvfs", path, error.errno or 0) from error
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
