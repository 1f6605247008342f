"""Child processes and threads: where calls go that the event loop must not wait for.

A call that can *hang* (anything that asks a server or a sick disk) runs in a child process, which
is killed when its time is over, and abandoned when it does not die: it is reported, reaped whenever
it ends, and never waited for. A call that is merely *slow* runs in a small pool of threads.

Bulkheads: each backend (`nfs:10.0.0.5`, `local`) has a bounded number of children at a time and a
circuit breaker (`breaker.py`), so that a dead one costs only its own volumes. Commands are argv
only, never a shell; secrets go through standard input, never into an argument.

All methods are for the event loop's thread. After `close()` nothing may be started.
"""

import asyncio
import errno
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from volagent.aio.clock import Clock, SystemClock
from volagent.host import errors
from volagent.host.breaker import Breaker, CircuitState
from volagent.host.child import KILL_GRACE_S, Child
from volagent.host.errors import HostError, NotTried, TimedOut
from volagent.host.worker import MESSAGE_BYTES_MAX, NotTaken, Worker, Workers
from volagent.observe.metrics import observe_program

T = TypeVar("T")

LOCAL_BACKEND: Final = "local"
CHILDREN_LOCAL_MAX: Final = 4
CHILDREN_PER_BACKEND_MAX: Final = 2
ABANDONED_PER_BACKEND_MAX: Final = 4
"""With so many calls of a backend stuck in the kernel, no further one is risked."""
POOL_THREADS_MAX: Final = 8
MESSAGE_CHARS_MAX: Final = 2000
"""Of what a program says; the middle is left out."""
REPEATABLE: Final = frozenset(
    {
        "await_device", "fetch_capabilities", "fetch_disk_names", "fetch_registrants",
        "fetch_standing", "find_content", "find_signature", "flush_device", "give_order",
        "is_device_held", "mount_device", "probe_path", "reach_portal", "refuse_writes",
        "reset_disk", "scan_partitions", "statvfs", "umount2", "write_attribute",
    }
)  # fmt: skip
"""Operations that leave nothing behind in their process and are given no secret, and whose answers
are short: a process that has done one may do another."""
_OURS: Final = "volagent"
"""What the metrics call children that run this package's own code."""
_CHILD_CALLS: Final = os.path.join(os.path.dirname(os.path.abspath(__file__)), "child_calls.py")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a child process ended; its `repr` does not show what it wrote."""

    returncode: int
    """Negative: killed by that signal."""
    stdout: bytes
    stderr: bytes

    def __repr__(self) -> str:
        return f"Outcome(returncode={self.returncode})"

    @property
    def complaint(self) -> str:
        """What it says went wrong, on one line; standard output when standard error is empty."""
        return _join_lines(self.stderr or self.stdout)

    @property
    def words(self) -> str:
        """All that it said, on one line."""
        return _join_lines(self.stdout + b"\n" + self.stderr)


@dataclass(frozen=True, slots=True)
class BackendState:
    """A backend as `explain`, `doctor` and the metrics show it."""

    name: str
    state: CircuitState
    detail: str
    running: int
    waiting: int
    abandoned: int
    """Children that were killed and did not die: in uninterruptible sleep."""


class _Backend:
    """The bulkhead of one backend."""

    __slots__ = ("abandoned", "breaker", "running", "slots", "users")

    def __init__(self, name: str, clock: Clock) -> None:
        width = CHILDREN_LOCAL_MAX if name == LOCAL_BACKEND else CHILDREN_PER_BACKEND_MAX
        self.breaker = Breaker(name, clock)
        self.slots = asyncio.Semaphore(width)
        self.running = 0
        self.users = 0
        """Who run or wait for a slot."""
        self.abandoned: set[Child] = set()

    @property
    def idle(self) -> bool:
        known = self.breaker.healthy or self.breaker.outdated
        return not (self.users or self.abandoned) and known


class Helpers:
    """Runs children and threads for the whole daemon."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._backends: dict[str, _Backend] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._pooled: set[asyncio.Future[Any]] = set()
        self._workers = Workers(_CHILD_CALLS)

    async def run(
        self,
        argv: Sequence[str],
        *,
        backend: str,
        timeout_s: float,
        stdin: bytes | None = None,
        env: Mapping[str, str] | None = None,
        inherit: int | None = None,
    ) -> Outcome:
        """Run a program to its end. `inherit` is a descriptor that it keeps open.

        `timeout_s` counts from its start; the wait for a free place of the backend is bounded by
        the time-outs of those before. Raises `TimedOut` (`NotTried` while the backend's circuit is
        open), `Unsupported` when the program is not installed, `HostError`.
        """
        call = (os.path.basename(argv[0]), argv[-1])
        async with self._enter(backend) as place:
            self._refuse_silent(place, call)
            return await self._run(argv, place, timeout_s, (stdin, env, inherit), call)

    async def call(
        self, operation: str, arguments: Mapping[str, Any], *, backend: str, timeout_s: float
    ) -> dict[str, Any]:
        """Run one of the operations of `child_calls.py`. Raises what it raised, and as `run`."""
        request = json.dumps({"operation": operation, "arguments": arguments}).encode()
        if operation in REPEATABLE and len(request) <= MESSAGE_BYTES_MAX:
            async with self._enter(backend) as place:
                call = (operation, backend)
                self._refuse_silent(place, call)
                outcome = await self._ask_worker(request, place, timeout_s, call)
        else:
            argv = (sys.executable, "-I", "-S", _CHILD_CALLS, operation)
            outcome = await self.run(argv, backend=backend, timeout_s=timeout_s, stdin=request)
        if outcome.returncode != 0:
            subject = str(arguments.get("path", backend))
            detail = outcome.complaint.rpartition("; ")[2] or f"exit status {outcome.returncode}"
            raise HostError(operation, subject, 0, detail)
        answer: dict[str, Any] = json.loads(outcome.stdout)
        error = answer.get("error")
        if error is not None:
            kind: type[HostError] = getattr(errors, error.pop("kind"))
            raise kind(**error)
        return answer

    async def prepare(self) -> None:
        """Have a child wait for the next call, so that it need not be started then.

        Raises `HostError`.
        """
        async with self._enter(LOCAL_BACKEND):
            self._workers.keep(await self._workers.take())

    async def _ask_worker(
        self, request: bytes, place: _Backend, timeout_s: float, call: tuple[str, str]
    ) -> Outcome:
        """Have a child that waits for work, or a new one, answer."""
        try:
            worker, answer = await self._ask_one(request, place, timeout_s, call)
        except TimedOut:
            raise
        except (HostError, asyncio.CancelledError):
            place.breaker.note_cancelled()
            raise
        place.breaker.note_answer()
        if answer:
            self._workers.keep(worker)
            return Outcome(0, answer, b"")
        worker.close()
        status = await worker.child.wait(KILL_GRACE_S)
        return Outcome(status or 1, b"", worker.child.stderr)

    async def _ask_one(
        self, request: bytes, place: _Backend, timeout_s: float, call: tuple[str, str]
    ) -> tuple[Worker, bytes]:
        """Who answered, and what: b"" for a child that ended over the call."""
        while True:
            worker = await self._workers.take()
            try:
                return worker, await worker.ask(request, timeout_s)
            except NotTaken:
                worker.close()  # somebody killed it while it waited
            except TimeoutError:
                worker.close()
                raise await self._time_out(worker.child, place, timeout_s, call) from None
            except (HostError, asyncio.CancelledError):
                worker.close()
                await self._kill(worker.child, place)
                raise

    async def run_in_pool(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run a slow, never a hanging, function in a thread. It goes on when this is cancelled."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(POOL_THREADS_MAX, thread_name_prefix="volagent-host")
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._pool, function, *arguments)
        self._pooled.add(future)
        future.add_done_callback(self._pooled.discard)
        return await future

    def backends(self) -> tuple[BackendState, ...]:
        """Every backend that is in use or in trouble, by name."""
        for place in tuple(self._backends.values()):
            self._forget_idle(place)
        return tuple(
            BackendState(
                name,
                place.breaker.state,
                _describe(place),
                place.running,
                place.users - place.running,
                len(place.abandoned),
            )
            for name, place in sorted(self._backends.items())
        )

    async def close(self) -> None:
        """Let the threads end; kill what is abandoned once more and wait for none of it."""
        await self._workers.close()
        for place in self._backends.values():
            for child in place.abandoned:
                child.kill()
                child.forget()
            place.abandoned.clear()
        if self._pool is not None:
            pool, self._pool = self._pool, None
            pool.shutdown(wait=False, cancel_futures=True)
            if self._pooled:
                await asyncio.wait(self._pooled)

    @asynccontextmanager
    async def _enter(self, name: str) -> AsyncIterator[_Backend]:
        """Wait for a slot of the backend."""
        place = self._backends.get(name)
        if place is None:
            place = self._backends[name] = _Backend(name, self._clock)
        place.users += 1
        try:
            async with place.slots:
                place.running += 1
                try:
                    yield place
                finally:
                    place.running -= 1
        finally:
            place.users -= 1
            self._forget_idle(place)

    def _forget_idle(self, place: _Backend) -> None:
        if place.idle:
            self._backends.pop(place.breaker.name, None)

    def _refuse_silent(self, place: _Backend, call: tuple[str, str]) -> None:
        reason = place.breaker.refuse()
        if not reason and len(place.abandoned) >= ABANDONED_PER_BACKEND_MAX:
            place.breaker.note_cancelled()
            reason = _describe(place)
        if reason:
            raise NotTried(*call, errno.ETIMEDOUT, f"not tried: {reason}")

    async def _run(
        self,
        argv: Sequence[str],
        place: _Backend,
        timeout_s: float,
        given: tuple[bytes | None, Mapping[str, str] | None, int | None],
        call: tuple[str, str],
    ) -> Outcome:
        breaker = place.breaker
        try:
            child = Child(argv, stdin=given[0], env=given[1], inherit=given[2])
        except HostError:
            breaker.note_cancelled()
            raise
        begun = self._clock.monotonic()
        try:
            status = await child.wait(timeout_s)
        except asyncio.CancelledError:
            breaker.note_cancelled()
            await self._kill(child, place)
            raise
        if status is not None:
            breaker.note_answer()
            program = _OURS if argv[0] == sys.executable else call[0]
            observe_program(program, self._clock.monotonic() - begun)
            return Outcome(status, child.stdout, child.stderr)
        raise await self._time_out(child, place, timeout_s, call)

    async def _time_out(
        self, child: Child, place: _Backend, timeout_s: float, call: tuple[str, str]
    ) -> TimedOut:
        """Kill a child whose time is over; what to raise."""
        place.breaker.note_timeout()
        died = await self._kill(child, place)
        fate = "killed" if died else f"process {child.pid} does not die and was abandoned"
        detail = f"no answer within {timeout_s:g} s, {fate}"
        return TimedOut(*call, errno.ETIMEDOUT, detail)

    async def _kill(self, child: Child, place: _Backend) -> bool:
        """Kill a child; False when it had to be abandoned."""
        child.kill()
        place.abandoned.add(child)

        def reaped() -> None:
            place.abandoned.discard(child)
            self._forget_idle(place)

        child.on_exit = reaped
        return await child.wait(KILL_GRACE_S) is not None


def _join_lines(output: bytes) -> str:
    lines = output.decode(errors="replace").splitlines()
    text = "; ".join(line.strip() for line in lines if line.strip())
    if len(text) <= MESSAGE_CHARS_MAX:
        return text
    half = MESSAGE_CHARS_MAX // 2
    return f"{text[:half]} [...] {text[-half:]}"


def _describe(place: _Backend) -> str:
    text = place.breaker.describe()
    if place.abandoned:
        stuck = f"{len(place.abandoned)} calls are stuck in the kernel"
        text = f"{text}; {stuck}" if text else f"{place.breaker.name}: {stuck}"
    return text
