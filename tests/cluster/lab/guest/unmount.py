"""Unmounts like somebody's hand and prints after how many milliseconds the mount is back.

    python3 -I -S unmount.py POINT LIMIT_S

Woken by the kernel's notice of a changed mount table, so that it costs the daemon no CPU time.
Exit status 1 when the mount is not back within the limit.
"""

import ctypes
import os
import select
import sys
import time

_libc = ctypes.CDLL(None, use_errno=True)


def main(point: str, limit_s: str) -> int:
    deadline = time.monotonic() + float(limit_s)
    with open("/proc/self/mountinfo", "rb", buffering=0) as table:
        changes = select.poll()
        changes.register(table, select.POLLPRI | select.POLLERR)
        if _libc.umount2(os.fsencode(point), 0) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), point)
        started = time.monotonic()
        while not _is_mounted(table.fileno(), point):
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return 1
            changes.poll(left_s * 1000)
    print(f"{(time.monotonic() - started) * 1000:.1f}")
    return 0


def _is_mounted(table: int, point: str) -> bool:
    os.lseek(table, 0, os.SEEK_SET)
    text = b"".join(iter(lambda: os.read(table, 65536), b""))
    return f" {point} ".encode() in text


sys.exit(main(*sys.argv[1:]))
