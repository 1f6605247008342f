"""What blkid would say of a device, asked of its library: the start of a program takes longer.

The same search as `blkid -p`: superblocks and partition tables, no cache, ambivalence told. It is
stricter in one thing: the program does not tell a device that cannot be read from one without a
signature. Reads only. May hang with the device: for a child process. Source: libblkid's manual.
"""

import ctypes
import errno
import os
from typing import Final

from volagent.host.errors import HostError, Unsupported

_LIBRARY: Final = "libblkid.so.1"
_LABEL: Final = 1 << 1
_UUID: Final = 1 << 3
_TYPE: Final = 1 << 5
_USAGE: Final = 1 << 7
_ENTRY_DETAILS: Final = 1 << 2
_KEYS: Final = ("TYPE", "USAGE", "PTTYPE", "UUID", "LABEL")
_FOUND: Final = 0
_NOTHING: Final = 1
_AMBIVALENT: Final = -2


def find_facts(path: str) -> dict[str, str] | None:
    """What is on a device, by blkid's names; None for several signatures at once.

    Raises `Unsupported` without the library, `HostError`, `OSError`.
    """
    library = load()
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        probe = ctypes.c_void_p(library.blkid_new_probe())
        if probe.value is None:
            raise HostError("blkid", path, errno.ENOMEM)
        try:
            return _search(library, probe, fd, path)
        finally:
            library.blkid_free_probe(probe)
    finally:
        os.close(fd)


def load() -> ctypes.CDLL:
    """The library. Raises `Unsupported`."""
    try:
        library = ctypes.CDLL(_LIBRARY, use_errno=True)
    except OSError as error:
        raise Unsupported("dlopen", _LIBRARY, errno.ENOENT) from error
    library.blkid_new_probe.restype = ctypes.c_void_p
    library.blkid_probe_set_device.argtypes = (
        ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_int64,
    )  # fmt: skip
    library.blkid_probe_lookup_value.argtypes = (
        ctypes.c_void_p, ctypes.c_char_p,
        ctypes.POINTER(ctypes.c_char_p), ctypes.POINTER(ctypes.c_size_t),
    )  # fmt: skip
    return library


def _search(
    library: ctypes.CDLL, probe: ctypes.c_void_p, fd: int, path: str
) -> dict[str, str] | None:
    ctypes.set_errno(0)
    if library.blkid_probe_set_device(probe, fd, 0, 0) != 0:
        raise HostError("blkid", path, ctypes.get_errno() or errno.EIO)
    for enable, choose, flags in (
        ("blkid_probe_enable_superblocks", "blkid_probe_set_superblocks_flags",
         _LABEL | _UUID | _TYPE | _USAGE),
        ("blkid_probe_enable_partitions", "blkid_probe_set_partitions_flags", _ENTRY_DETAILS),
    ):  # fmt: skip
        if library[enable](probe, 1) != 0 or library[choose](probe, flags) != 0:
            raise HostError("blkid", path, ctypes.get_errno() or errno.EIO)
    answer = library.blkid_do_safeprobe(probe)
    if answer == _AMBIVALENT:
        return None
    if answer == _NOTHING:
        return {}
    if answer != _FOUND:
        raise HostError("blkid", path, ctypes.get_errno() or errno.EIO)
    return {
        key: value for key in _KEYS if (value := _look_up(library, probe, key)) is not None
    }  # fmt: skip


def _look_up(library: ctypes.CDLL, probe: ctypes.c_void_p, key: str) -> str | None:
    data, length = ctypes.c_char_p(), ctypes.c_size_t()
    if library.blkid_probe_lookup_value(probe, key.encode(), data, length) != 0:
        return None
    return (data.value or b"").decode(errors="replace")
