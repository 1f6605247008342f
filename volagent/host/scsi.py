"""What a scsi disk says of itself, asked now: INQUIRY by ioctl, and its identification page.

The kernel keeps the answers of the time when it found a device; storage may show another disk
under the same number since. `identify` may hang with a sick disk: not for the daemon.
Sources: SPC-4 6.6 and 7.8.6, `include/scsi/sg.h`.
"""

import ctypes
import errno
import fcntl
import os
from typing import Final

from volagent.host.errors import Absent, HostError

_SG_IO: Final = 0x2285
_FROM_DEVICE: Final = -3
_PAGE: Final = 0x83
_ANSWER_BYTES: Final = 4096
_TIMEOUT_MS: Final = 10_000
_LOGICAL_UNIT: Final = 0
_HAS_SENSE: Final = 8


class _Request(ctypes.Structure):
    _fields_ = (
        ("interface_id", ctypes.c_int),
        ("direction", ctypes.c_int),
        ("command_bytes", ctypes.c_ubyte),
        ("sense_bytes_max", ctypes.c_ubyte),
        ("iovec_count", ctypes.c_ushort),
        ("data_bytes", ctypes.c_uint),
        ("data", ctypes.c_void_p),
        ("command", ctypes.c_void_p),
        ("sense", ctypes.c_void_p),
        ("timeout_ms", ctypes.c_uint),
        ("flags", ctypes.c_uint),
        ("pack_id", ctypes.c_int),
        ("user_pointer", ctypes.c_void_p),
        ("status", ctypes.c_ubyte),
        ("masked_status", ctypes.c_ubyte),
        ("message_status", ctypes.c_ubyte),
        ("sense_bytes", ctypes.c_ubyte),
        ("host_status", ctypes.c_ushort),
        ("driver_status", ctypes.c_ushort),
        ("residual", ctypes.c_int),
        ("duration_ms", ctypes.c_uint),
        ("info", ctypes.c_uint),
    )


def read_names(page: bytes) -> tuple[bytes, ...]:
    """The names of the disk itself in an identification page, sorted; those of ports left out."""
    end = min(len(page), 4 + int.from_bytes(page[2:4], "big")) if len(page) >= 4 else 0
    names = []
    at = 4
    while at + 4 <= end:
        length = page[at + 3]
        if at + 4 + length > end:
            break
        if (page[at + 1] >> 4) & 3 == _LOGICAL_UNIT:
            names.append(page[at : at + 4 + length])
        at += 4 + length
    return tuple(sorted(names))


def fetch_page(path: str) -> bytes:
    """The identification page of the disk at a path, or nothing when no disk answers there.

    Raises `Absent`, `HostError`.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        kind = Absent if isinstance(error, FileNotFoundError) else HostError
        raise kind("open", path, error.errno or 0) from error
    try:
        return _inquire(fd)
    except OSError as error:
        raise HostError("inquiry", path, error.errno or 0) from error
    finally:
        os.close(fd)


def _inquire(fd: int) -> bytes:
    size = _ANSWER_BYTES
    command = ctypes.create_string_buffer(bytes((0x12, 1, _PAGE, size >> 8, size & 0xFF, 0)), 6)
    answer = ctypes.create_string_buffer(size)
    sense = ctypes.create_string_buffer(64)
    request = _Request(
        interface_id=ord("S"),
        direction=_FROM_DEVICE,
        command_bytes=6,
        sense_bytes_max=64,
        data_bytes=size,
        data=ctypes.addressof(answer),
        command=ctypes.addressof(command),
        sense=ctypes.addressof(sense),
        timeout_ms=_TIMEOUT_MS,
    )
    fcntl.ioctl(fd, _SG_IO, request)
    if request.host_status or request.driver_status & ~_HAS_SENSE:
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    if request.status:
        return b""
    page = answer.raw[: max(0, size - request.residual)]
    connected = page and page[0] >> 5 == 0  # else nothing stands behind this number
    return page if connected else b""
