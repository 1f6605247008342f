"""One process per directory: an flock that dies with its holder.

The lock is the file's, not its content's: the pid inside only serves the message.
"""

import fcntl
import os
from pathlib import Path

from volagent.store.contract import AlreadyRunning


class DirectoryLock:
    """Holds `<directory>/lock` until `release`. Raises `AlreadyRunning` naming the holder."""

    def __init__(self, directory: Path) -> None:
        path = directory / "lock"
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip()
            self.release()
            raise AlreadyRunning(
                f"{directory} is in use by process {holder or 'unknown'}: "
                "stop that one, or give this one another directory"
            ) from None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let go. Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
