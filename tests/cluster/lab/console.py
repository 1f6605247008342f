"""The serial line to the agent in a machine (`guest/agent.sh`), host side.

Lines down: the id of a job whose script lies in the shared window as `<id>.sh`. Lines up: `READY`
once after boot, then `<id> <exit status>` for each job in the order in which they end. The line
closes when the last process of the machine is gone, which is how a power cut knows that it is
complete.
"""

import itertools
import os
import threading
from concurrent.futures import Future


class ConsoleClosed(Exception):
    """The machine is gone."""


class Console:
    """One boot's serial line. Thread-safe."""

    def __init__(self) -> None:
        self.guest_reads, self._write_fd = os.pipe()
        self._read_fd, self.guest_writes = os.pipe()
        self._ready: Future[None] = Future()
        self._jobs: dict[str, Future[int]] = {}
        self._lock = threading.Lock()
        self._ids = itertools.count()
        self._open = True
        self._reader = threading.Thread(target=self._read, name="lab-console", daemon=True)

    def start(self) -> None:
        """The guest has been started with its ends of the line: drop ours and listen."""
        os.close(self.guest_reads)
        os.close(self.guest_writes)
        self._reader.start()

    def wait_ready(self, timeout_s: float) -> None:
        """Wait for the agent. Raises `TimeoutError`, `ConsoleClosed`."""
        self._ready.result(timeout_s)

    def next_id(self) -> str:
        """A name for a job, unique on this line."""
        return f"job{next(self._ids)}"

    def submit(self, job: str) -> Future[int]:
        """Have the agent run a job; the future gives its exit status or raises `ConsoleClosed`."""
        answer: Future[int] = Future()
        with self._lock:
            if not self._open:
                raise ConsoleClosed
            self._jobs[job] = answer
            os.write(self._write_fd, f"{job}\n".encode())
        return answer

    def wait_closed(self, timeout_s: float) -> bool:
        """Wait until no process of the machine is left; False when that took too long."""
        self._reader.join(timeout_s)
        return not self._reader.is_alive()

    def _read(self) -> None:
        with os.fdopen(self._read_fd, "rb") as lines:
            for line in lines:
                self._take(line.decode(errors="replace").split())
        with self._lock:
            self._open = False
            os.close(self._write_fd)
            lost = list(self._jobs.values())
        for answer in lost:
            answer.set_exception(ConsoleClosed())
        if not self._ready.done():
            self._ready.set_exception(ConsoleClosed())

    def _take(self, words: list[str]) -> None:
        match words:
            case ["READY"]:
                self._ready.set_result(None)
            case [job, status] if (answer := self._jobs.pop(job, None)) is not None:
                answer.set_result(int(status))
            case _:
                pass  # kernel messages may stray onto the line
