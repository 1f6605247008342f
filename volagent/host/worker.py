"""Children that answer one call after the other, so that a call need not start a program.

A worker is `child_calls.py` on the other end of a socket that keeps messages apart. It says when it
has read its modules, so that a call's time-out is about the call and blames no backend for a slow
machine. It is given the next call only after it has answered the last one; one that does not answer
in time is killed as any child is, and never used again. It ends with its owner: its socket is
closed then.

Whether a call was begun is known when a worker ends: the kernel tells its owner apart (ECONNRESET,
EPIPE) whether the request was still unread. Only a call that was not begun is made again.
"""

import asyncio
import errno
import socket
import sys
from collections.abc import Sequence
from typing import Final

from volagent.host.child import INHERITED_FD, KILL_GRACE_S, Child
from volagent.host.errors import HostError

MESSAGE_BYTES_MAX: Final = 64 * 1024
"""Of a request, and of an answer."""
START_TIMEOUT_S: Final = 30.0
KEPT_MAX: Final = 4
IDLE_S: Final = 30.0
"""A worker is kept so long for the next call: the steps of a volume follow each other, and starting
a program for each costs more than what it asks. The last one stays: a disk that is to be taken away
from a node in a hurry must not wait for the start of a program."""


class NotTaken(Exception):
    """The worker had ended before it read the request: nothing was begun."""


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

    async def wait_ready(self) -> None:
        """Until it can be asked. Raises `HostError`."""
        loop = asyncio.get_running_loop()
        subject = f"process {self.child.pid}"
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                ready = await loop.sock_recv(self._socket, MESSAGE_BYTES_MAX)
        except TimeoutError:
            detail = f"not ready after {START_TIMEOUT_S:.0f} s"
            raise HostError("start", subject, errno.ETIMEDOUT, detail) from None
        if not ready:
            await self.child.wait(KILL_GRACE_S)
            complaint = self.child.stderr.decode(errors="replace").strip()
            raise HostError("start", subject, 0, complaint.rpartition("\n")[2] or "it ended")

    async def ask(self, request: bytes, timeout_s: float) -> bytes:
        """Its answer; b"" when it ended over the call.

        Raises `NotTaken`, `TimeoutError`, `HostError`.
        """
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(timeout_s):
            try:
                await loop.sock_sendall(self._socket, request)
                answer = await loop.sock_recv(self._socket, MESSAGE_BYTES_MAX)
            except (BrokenPipeError, ConnectionResetError) as error:
                raise NotTaken from error
            except OSError as error:
                raise HostError("ask", f"process {self.child.pid}", error.errno or 0) from error
        return answer

    def close(self) -> None:
        """Let it end by itself; idempotent."""
        self._socket.close()


class Workers:
    """Those that have answered and wait for another call, of whichever backend."""

    def __init__(self, program: str) -> None:
        self._program = program
        self._waiting: dict[Worker, asyncio.TimerHandle] = {}
        self._closed = False

    async def take(self) -> Worker:
        """The one that was used last, or a new one. Raises `HostError`."""
        if self._waiting:
            worker, timer = self._waiting.popitem()
            timer.cancel()
            return worker
        worker = Worker(self._program)
        try:
            await worker.wait_ready()
        except BaseException:
            worker.close()
            worker.child.kill()
            raise
        return worker

    def keep(self, worker: Worker) -> None:
        """For the next call."""
        if len(self._waiting) >= KEPT_MAX or self._closed:
            worker.close()
            return
        loop = asyncio.get_running_loop()
        self._waiting[worker] = loop.call_later(IDLE_S, self._let_go, worker)

    def _let_go(self, worker: Worker) -> None:
        """Of one that has waited for so long, unless it is the last."""
        if len(self._waiting) > 1:
            self._waiting.pop(worker)
            worker.close()

    async def close(self) -> None:
        """End those that wait."""
        self._closed = True
        while self._waiting:
            worker, timer = self._waiting.popitem()
            timer.cancel()
            worker.close()
            worker.child.kill()
            await worker.child.wait(KILL_GRACE_S)
            worker.child.forget()
