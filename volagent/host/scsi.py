"""Commands to a scsi disk by ioctl, and what it says of itself: INQUIRY, its identification page.

The kernel keeps the answers of the time when it found a device; storage may show another disk
under the same number since. Whatever asks a disk may hang with a sick one: not for the daemon.
Sources: SPC-4 4.5, 6.6 and 7.8.6, `include/scsi/sg.h`.
"""

import ctypes
import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from volagent.host.errors import Absent, HostError

_SG_IO: Final = 0x2285
_RESET: Final = 0x2284
_RESET_DEVICE_ONLY: Final = 0x101  # SG_SCSI_RESET_DEVICE, SG_SCSI_RESET_NO_ESCALATE
_NONE: Final = -1
_TO_DEVICE: Final = -2
_FROM_DEVICE: Final = -3
_PAGE: Final = 0x83
_ANSWER_BYTES: Final = 4096
_TIMEOUT_MS: Final = 10_000
_LOGICAL_UNIT: Final = 0
_HAS_SENSE: Final = 8
_SENSE_BYTES: Final = 64


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


@dataclass(frozen=True, slots=True)
class Answer:
    """How a command ended on the disk."""

    status: int
    """0: done; else see SAM-5 5.3.1."""
    sense: tuple[int, int, int]
    """Key, code and qualifier, when the status is CHECK CONDITION; else zeroes."""
    data: bytes = b""


@contextmanager
def opened(path: str) -> Iterator[int]:
    """A descriptor that commands may be sent to. Raises `Absent`, `HostError`.

    For reading only: udev looks at a disk again after whoever could have written to it.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        kind = Absent if isinstance(error, FileNotFoundError) else HostError
        raise kind("open", path, error.errno or 0) from error
    try:
        yield fd
    finally:
        os.close(fd)


def send(fd: int, command: bytes, *, answer_bytes: int = 0, payload: bytes = b"") -> Answer:
    """Have a disk carry out a command; it ends with whatever the disk says. Raises `OSError`."""
    size = len(payload) or answer_bytes
    direction = _TO_DEVICE if payload else _FROM_DEVICE if answer_bytes else _NONE
    bytes_of_command = ctypes.create_string_buffer(command, len(command))
    data = ctypes.create_string_buffer(payload, size) if size else None
    sense = ctypes.create_string_buffer(_SENSE_BYTES)
    request = _Request(
        interface_id=ord("S"),
        direction=direction,
        command_bytes=len(command),
        sense_bytes_max=_SENSE_BYTES,
        data_bytes=size,
        data=ctypes.addressof(data) if data is not None else None,
        command=ctypes.addressof(bytes_of_command),
        sense=ctypes.addressof(sense),
        timeout_ms=_TIMEOUT_MS,
    )
    fcntl.ioctl(fd, _SG_IO, request)
    if request.host_status or request.driver_status & ~_HAS_SENSE:
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    arrived = max(0, size - request.residual) if answer_bytes else 0
    said = read_sense(sense.raw[: request.sense_bytes]) if request.status else (0, 0, 0)
    return Answer(request.status, said, data.raw[:arrived] if data is not None else b"")


def read_sense(sense: bytes) -> tuple[int, int, int]:
    """Key, code and qualifier of sense data of either format, zeroes for what is cut off."""
    filled = sense.ljust(14, b"\0")
    if filled[0] & 0x7F in (0x72, 0x73):
        return filled[1] & 0xF, filled[2], filled[3]
    return filled[2] & 0xF, filled[12], filled[13]


def reset(path: str) -> None:
    """Abort every command of every initiator that the disk has not finished (LUN RESET).

    Reservations stay. Raises `Absent`, `HostError`.
    """
    with opened(path) as fd:
        try:
            fcntl.ioctl(fd, _RESET, _RESET_DEVICE_ONLY.to_bytes(4, "little"))
        except OSError as error:
            raise HostError("reset", path, error.errno or 0) from error


def fetch_page(path: str) -> bytes:
    """The identification page of the disk at a path, or nothing when no disk answers there.

    Raises `Absent`, `HostError`.
    """
    size = _ANSWER_BYTES
    with opened(path) as fd:
        try:
            answer = send(fd, bytes((0x12, 1, _PAGE, size >> 8, size & 0xFF, 0)), answer_bytes=size)
        except OSError as error:
            raise HostError("inquiry", path, error.errno or 0) from error
    page = answer.data if answer.status == 0 else b""
    connected = page and page[0] >> 5 == 0  # else nothing stands behind this number
    return page if connected else b""
