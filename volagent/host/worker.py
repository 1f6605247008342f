"""A child that answers one call after the other, so that a call need not start a program.

It is `child_calls.py` on the other end of a socket that keeps messages apart. It is given the first
call when it has said that it listens (what its start takes on a busy machine is no silence of the
storage that it will ask), and the next only after it has answered the last one. One that does not
answer in time is killed as any child is, and never used again. It ends with its owner: its socket
is closed then.
"""

import asyncio
import socket
import sys
from collections.abc import Sequence
from typing import Final

from volagent.host.child import INHERITED_FD, Child
from volagent.host.errors import HostError

ANSWER_BYTES_MAX: Final = 64 * 1024


class Worker:
    """One such child. For the event loop's thread."""

    def __init__(self, program: str) -> None:
        """Start it. Raises `HostError`."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            argv: Sequence[str] = (sys.executable, "-I", "-S", program, str(INHERITED_FD))
            self.child = Child(argv, inherit=theirs.fileno())
        except HostError:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        self._socket = ours

    async def wait_ready(self, timeout_s: float) -> bool:
        """Whether a new one listens in time; also True when it ended, as `ask` says then."""
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.get_running_loop().sock_recv(self._socket, 1)
        except TimeoutError:
            return False
        except OSError:
            return True
        return True

    async def ask(self, request: bytes, timeout_s: float) -> bytes | None:
        """Its answer, b"" when it ended instead, None when it has not answered in time."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout_s):
                await loop.sock_sendall(self._socket, request)
                return await loop.sock_recv(self._socket, ANSWER_BYTES_MAX)
        except TimeoutError:
            return None
        except OSError:
            return b""

    def close(self) -> None:
        """Let it end by itself; idempotent."""
        self._socket.close()
