"""One child process: started without a shell, in a session of its own, watched by pidfd.

Its output is collected on the event loop's thread (the first `OUTPUT_MAX_BYTES` of each stream; the
rest is read and thrown away, so that nobody blocks on a full pipe). Its standard input is written
before it starts, so it must fit into a pipe. The end of the process counts, not the end of its
output: a daemon that it leaves behind may keep the pipes for ever.

A child is killed with everything in its session. One that does not die (uninterruptible sleep) is
left to `on_exit`, which is called whenever it ends at last; nobody waits for it.
"""

import asyncio
import errno
import os
import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Final

from volagent.host.errors import HostError, Unsupported

OUTPUT_MAX_BYTES: Final = 64 * 1024
"""Kept of standard output, and of standard error."""
INPUT_MAX_BYTES: Final = 64 * 1024
"""What a pipe holds before anybody reads it."""
KILL_GRACE_S: Final = 1.0
"""How long a killed child has to disappear before it is abandoned."""
INHERITED_FD: Final = 3
"""Where the child finds the one descriptor that it may inherit."""
_CHUNK_BYTES: Final = 64 * 1024
# Python ignores these; a child must not inherit that.
_DEFAULT_SIGNALS: Final = (signal.SIGPIPE, signal.SIGXFSZ)
ENVIRONMENT: Final = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
"""What every child gets, and no more: messages are read, so they must be the untranslated ones."""


class _Stream:
    """The reading end of one output."""

    __slots__ = ("fd", "kept")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.kept = bytearray()

    def read(self) -> bool:
        """Take what is there; False at its end."""
        while True:
            try:
                data = os.read(self.fd, _CHUNK_BYTES)
            except BlockingIOError:
                return True
            if not data:
                return False
            room = OUTPUT_MAX_BYTES - len(self.kept)
            if room > 0:
                self.kept += data[:room]


class Child:
    """A running child process. All methods are for the event loop's thread."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes | None = None,
        env: Mapping[str, str] | None = None,
        inherit: int | None = None,
    ) -> None:
        """Start it. `inherit` is a descriptor that it gets as number `INHERITED_FD`.

        Raises `Unsupported` when there is no such program, `HostError` when it cannot be started.
        """
        self._loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[int] = self._loop.create_future()
        self.on_exit: Callable[[], None] | None = None
        try:
            self.pid, self._pidfd, outputs = _spawn(
                argv, stdin, {**ENVIRONMENT, **(env or {})}, inherit
            )
        except OSError as error:
            raise _explain(argv[0], error) from error
        self._streams = [_Stream(fd) for fd in outputs]
        for stream in self._streams:
            self._loop.add_reader(stream.fd, self._read, stream)
        self._loop.add_reader(self._pidfd, self._reap)

    @property
    def stdout(self) -> bytes:
        """What it has written so far."""
        return bytes(self._streams[0].kept)

    @property
    def stderr(self) -> bytes:
        """What it has complained about so far."""
        return bytes(self._streams[1].kept)

    async def wait(self, timeout_s: float) -> int | None:
        """Its exit status (negative: killed by that signal), or None when it still runs."""
        done, _ = await asyncio.wait((self.exited,), timeout=timeout_s)
        return self.exited.result() if done else None

    def kill(self) -> None:
        """Kill it and everything in its session that has not left it."""
        if self.exited.done():
            return
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return

    def forget(self) -> None:
        """Stop watching, whether it has ended or not; idempotent."""
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        for stream in self._streams:
            self._stop_reading(stream)

    def _read(self, stream: _Stream) -> None:
        if not stream.read():
            self._stop_reading(stream)

    def _stop_reading(self, stream: _Stream) -> None:
        if stream.fd >= 0:
            self._loop.remove_reader(stream.fd)
            os.close(stream.fd)
            stream.fd = -1

    def _reap(self) -> None:
        _, status = os.waitpid(self.pid, os.WNOHANG)
        for stream in self._streams:
            if stream.fd >= 0:
                stream.read()
        self.forget()
        self.exited.set_result(os.waitstatus_to_exitcode(status))
        if self.on_exit is not None:
            self.on_exit()


def _spawn(
    argv: Sequence[str], stdin: bytes | None, env: Mapping[str, str], inherit: int | None
) -> tuple[int, int, tuple[int, int]]:
    """Start a process: its pid, a pidfd, and the reading ends of its two outputs."""
    program = shutil.which(argv[0], path=ENVIRONMENT["PATH"])  # ours, whatever the daemon's own is
    if program is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    with ExitStack() as ours, ExitStack() as theirs:
        inputs = _open_input(stdin)
        theirs.callback(os.close, inputs)
        out, out_end = _open_output(ours, theirs)
        err, err_end = _open_output(ours, theirs)
        actions = [
            (os.POSIX_SPAWN_DUP2, inputs, 0),
            (os.POSIX_SPAWN_DUP2, out_end, 1),
            (os.POSIX_SPAWN_DUP2, err_end, 2),
        ]
        if inherit is not None:
            actions.append((os.POSIX_SPAWN_DUP2, inherit, INHERITED_FD))
        pid = os.posix_spawn(
            program, list(argv), env, file_actions=actions, setsid=True, setsigdef=_DEFAULT_SIGNALS
        )
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        ours.pop_all()
        return pid, pidfd, (out, err)


def _open_output(ours: ExitStack, theirs: ExitStack) -> tuple[int, int]:
    reading, writing = os.pipe2(os.O_CLOEXEC)
    ours.callback(os.close, reading)
    theirs.callback(os.close, writing)
    os.set_blocking(reading, False)
    return reading, writing


def _open_input(stdin: bytes | None) -> int:
    if stdin is None:
        return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    if len(stdin) > INPUT_MAX_BYTES:
        raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))
    end, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if os.write(writing, stdin) != len(stdin):
            raise OSError(errno.EPIPE, "the pipe is smaller than its input")
        os.set_blocking(end, True)
    except BaseException:
        os.close(end)
        raise
    finally:
        os.close(writing)
    return end


def _explain(program: str, error: OSError) -> HostError:
    code = error.errno or 0
    if code == errno.ENOENT:
        return Unsupported("exec", program, code, f"{program} is not installed")
    return HostError("exec", program, code)
