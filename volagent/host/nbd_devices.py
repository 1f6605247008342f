"""Which NBD devices are connected and to what, read from sysfs. Microseconds. Stateless.

A device is known by its `backend`: the identifier that was given when it was connected, kept by the
kernel for as long as it is (Linux 5.14), so that it is recognised whatever happened to whoever
connected it. A device that somebody else connected without one is in use and nobody's.
"""

import os
import re
from dataclasses import dataclass
from typing import Final

SYSFS: Final = "/sys/block"
SECTOR_BYTES: Final = 512
_NAME: Final = re.compile(r"nbd(\d+)")


@dataclass(frozen=True, slots=True)
class NbdDevice:
    """A connected device."""

    index: int
    identity: str
    """`<server>:<port>/<export>`, or "" when it was connected by somebody else."""
    size_bytes: int
    read_only: bool

    @property
    def path(self) -> str:
        """Its node."""
        return f"/dev/nbd{self.index}"


def read_device(index: int, *, sysfs: str = SYSFS) -> NbdDevice | None:
    """One device, or None when it is not connected (or not there)."""
    place = f"{sysfs}/nbd{index}"
    if _read(f"{place}/pid") is None:  # the kernel has this file while it is connected
        return None
    size = _read(f"{place}/size")
    return NbdDevice(
        index,
        _read(f"{place}/backend") or "",
        int(size or 0) * SECTOR_BYTES,
        _read(f"{place}/ro") == "1",
    )


def list_devices(*, sysfs: str = SYSFS) -> list[NbdDevice]:
    """Every connected device, by number."""
    try:
        names = os.listdir(sysfs)
    except FileNotFoundError:
        return []
    indexes = sorted(int(found[1]) for name in names if (found := _NAME.fullmatch(name)))
    devices = (read_device(index, sysfs=sysfs) for index in indexes)
    return [device for device in devices if device is not None]


def find_device(identity: str, *, sysfs: str = SYSFS) -> NbdDevice | None:
    """The device that is connected to this export, if one is."""
    return next((each for each in list_devices(sysfs=sysfs) if each.identity == identity), None)


def _read(path: str) -> str | None:
    try:
        with open(path, errors="replace") as file:
            return file.read().strip()
    except OSError:
        return None
