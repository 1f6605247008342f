"""Partition tables, written by hand: machines need no program for it."""

import base64
import struct

from tests.cluster.lab.machine import Machine

_SECTORS_PER_MIB = 2048
_LINUX = 0x83


def write_table(machine: Machine, path: str, *sizes_mib: int) -> None:
    """Give a disk, or its image, partitions of these sizes, the first one MiB from its start."""
    entries, start = b"", 1
    for size in sizes_mib:
        place = struct.pack("<II", start * _SECTORS_PER_MIB, size * _SECTORS_PER_MIB)
        entries += struct.pack("<B3sB3s", 0, bytes(3), _LINUX, bytes(3)) + place
        start += size
    table = bytes(446) + entries.ljust(64, b"\0") + b"\x55\xaa"
    text = base64.b64encode(table).decode()
    machine.run(f"echo {text} | base64 -d | dd of={path} conv=notrunc,fsync status=none")
