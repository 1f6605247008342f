"""A file system whose server does not answer: a FUSE mount, answered up to its first request.

A process that asks it waits in the kernel and, once the request has been read, cannot even be
killed: what a dead NFS server does at its worst. `answer` lets everybody go.
"""

import os
import select
import struct
from pathlib import Path

from volagent.host import libc

_INIT = 26
_IN_HEADER = struct.Struct("=IIQQIIII")
_OUT_HEADER = struct.Struct("=IiQ")
_EIO = -5


class DeadServer:
    def __init__(self, path: Path):
        self.path = path
        self.device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        context = libc.fsopen(b"fuse")
        for key, value in (("fd", self.device), ("user_id", 0), ("group_id", 0)):
            libc.fsconfig(context, libc.FSCONFIG_SET_STRING, key.encode(), b"%d" % value)
        libc.fsconfig(context, libc.FSCONFIG_SET_STRING, b"rootmode", b"40000")
        libc.fsconfig(context, libc.FSCONFIG_SET_STRING, b"source", b"dead:/export")
        libc.fsconfig(context, libc.FSCONFIG_CMD_CREATE, None, None)
        mount = libc.fsmount(context, 0)
        libc.move_mount(mount, libc.AT_FDCWD, os.fsencode(path))
        os.close(mount)
        os.close(context)
        self.waiting: list[int] = []
        self._greet()

    def _greet(self) -> None:
        unique = self._take()
        reply = struct.pack("=IIIIHHIIHHI", 7, 31, 0, 0, 16, 12, 4096, 1, 0, 0, 0) + bytes(24)
        os.write(self.device, _OUT_HEADER.pack(16 + len(reply), 0, unique) + reply)

    def _take(self) -> int:
        request = os.read(self.device, 1 << 17)
        return _IN_HEADER.unpack_from(request)[2]

    def has_request(self) -> bool:
        """Read requests that have come, so that their askers cannot be killed any more."""
        while select.select([self.device], [], [], 0)[0]:
            self.waiting.append(self._take())
        return bool(self.waiting)

    def answer(self) -> None:
        """Fail everything that waits, and leave."""
        if self.device >= 0:
            libc.umount2(os.fsencode(self.path), libc.MNT_DETACH)
            os.close(self.device)  # the last descriptor: the kernel aborts the connection
            self.device = -1
