"""Processes that do not outlive the test run, not even a run that is killed with SIGKILL.

Each is started under `setpriv --pdeathsig KILL`. The kernel sends that signal when the *thread*
that started the process ends, so all are started from one thread that lives until `close`.
"""

import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO


class Keeper:
    """Starts processes that die with this process; it does not end them by itself."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="lab-keeper")

    def start(
        self,
        argv: Sequence[str],
        *,
        stdout: IO[bytes] | int,
        stderr: IO[bytes] | int,
        pass_fds: Sequence[int] = (),
    ) -> subprocess.Popen[bytes]:
        """Start a process in a session (so also a process group) of its own, without stdin."""
        return self._thread.submit(
            subprocess.Popen,
            ["setpriv", "--pdeathsig", "KILL", "--", *argv],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            pass_fds=pass_fds,
            start_new_session=True,
        ).result()

    def close(self) -> None:
        """End the starting thread; the kernel then kills whatever is still running."""
        self._thread.shutdown()
