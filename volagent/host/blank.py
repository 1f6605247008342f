"""Is there anything on a device? Reads, and never writes, the places that matter.

A device without a known signature is blank only when all of these are zeros: its beginning and its
end (superblocks, partition tables and their backups, labels of volume managers), the places of the
copies that btrfs keeps, and samples all over it, so that data without any header is noticed. Read
past the page cache, from the device itself. May hang with the device: for a child process.
"""

import errno
import mmap
import os
from collections.abc import Iterator
from typing import Final

_CHUNK_BYTES: Final = 1 << 20
_EDGE_BYTES: Final = 4 << 20
_SAMPLE_BYTES: Final = 64 << 10
_SAMPLES: Final = 64
_BTRFS_COPIES: Final = (64 << 20, 256 << 30)
_ALIGNMENT: Final = 4096
_SECTOR_BYTES: Final = 512
_ZEROS: Final = bytes(_CHUNK_BYTES)


def plan_areas(size_bytes: int) -> list[tuple[int, int]]:
    """Offset and length of what is looked at, on a device of that size."""
    end = size_bytes - size_bytes % _SECTOR_BYTES
    tail = max(0, end - _EDGE_BYTES) // _ALIGNMENT * _ALIGNMENT
    areas = [(0, min(end, _EDGE_BYTES)), (tail, end - tail)]
    step = max(end // _SAMPLES // _ALIGNMENT * _ALIGNMENT, _SAMPLE_BYTES)
    places = [*_BTRFS_COPIES, *range(step, end, step)]
    areas += [(at, min(_SAMPLE_BYTES, end - at)) for at in places if at < end]
    return areas


def find_content(device: str) -> int | None:
    """The offset of something that is not zero, or None. Raises `OSError` when it cannot tell."""
    fd = os.open(device, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
    try:
        size_bytes = os.lseek(fd, 0, os.SEEK_END)
        if not size_bytes:  # a loop device without a file, a drive without a disk
            raise OSError(errno.ENOMEDIUM, os.strerror(errno.ENOMEDIUM))
        for area in plan_areas(size_bytes):
            for offset, data in _read(fd, *area):
                if data != _ZEROS[: len(data)]:
                    return offset + len(data) - len(data.lstrip(b"\0"))
        return None
    finally:
        os.close(fd)


def _read(fd: int, offset: int, length: int) -> Iterator[tuple[int, bytes]]:
    with mmap.mmap(-1, _CHUNK_BYTES) as buffer, memoryview(buffer) as view:
        while length > 0:
            with view[: min(length, _CHUNK_BYTES)] as part:
                count = os.preadv(fd, [part], offset)
            if count <= 0:
                raise OSError(errno.EIO, f"nothing can be read at byte {offset}")
            yield offset, buffer[:count]
            offset += count
            length -= count
