"""Loop devices outlive the process that made them: how tests give theirs back.

Images of tests lie in a directory `p<pid>` of their scratch, so that a device tells whose it was,
also from another mount namespace and after its process was killed.
"""

import contextlib
import fcntl
import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path

_GET_STATUS64 = 0x4C05
_CLR_FD = 0x4C01
_STATUS_BYTES = 232
_NAME_OFFSET = 56
_OWNER = re.compile(rb"/volagent-tests-[^/]+/t-[^/]+/p(\d+)/")


def owned_directory(scratch: Path) -> Path:
    """Where a test's images go."""
    return scratch / f"p{os.getpid()}"


def sweep_dead() -> None:
    """Give back the devices of test runs that are no more."""
    for fd, name in _bound_devices():
        owner = _OWNER.search(name)
        if owner and not os.path.exists(f"/proc/{int(owner[1])}"):
            fcntl.ioctl(fd, _CLR_FD)


def give_back(directory: Path) -> None:
    """Give back what a failed test has left of the images in a directory."""
    for fd, name in _bound_devices():
        if name.startswith(os.fsencode(f"{directory}/")):
            fcntl.ioctl(fd, _CLR_FD)


def _bound_devices() -> Iterator[tuple[int, bytes]]:
    for name in os.listdir("/sys/block"):
        if not os.path.exists(f"/sys/block/{name}/loop"):
            continue
        with contextlib.suppress(OSError), open(f"/dev/{name}", "rb", buffering=0) as device:
            status = bytearray(_STATUS_BYTES)
            fcntl.ioctl(device, _GET_STATUS64, status)
            yield device.fileno(), struct.unpack_from("64s", status, _NAME_OFFSET)[0].rstrip(b"\0")
