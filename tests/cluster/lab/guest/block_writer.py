"""Writes numbered records to a raw disk, one after the other, until one is refused.

    python block_writer.py DEVICE NODE

Each is a sector with the node's name and its number, written past the page cache, and is noted in
/run/acknowledged when the disk has confirmed it. The end is noted in /run/writer-ended.
"""

import mmap
import os
import sys
from pathlib import Path

SECTOR = 4096


def main(device: str, node: str) -> None:
    fd = os.open(device, os.O_WRONLY | os.O_DIRECT | os.O_DSYNC)
    page = mmap.mmap(-1, SECTOR)
    number = 0
    try:
        while True:
            page[:] = f"{node} {number + 1}\n".encode().ljust(SECTOR, b"\0")
            os.pwrite(fd, page, SECTOR * (number % 1024))
            number += 1
            Path("/run/acknowledged").write_text(str(number))
    except OSError as error:
        Path("/run/writer-ended").write_text(f"{number} {error.errno}")


if __name__ == "__main__":
    main(*sys.argv[1:])
