"""Where tasks are born: one supervisor per daemon, over one `asyncio.TaskGroup`.

A *loop* runs for the daemon's life: when it ends or raises, the daemon goes down with that error
(systemd restarts it, and recovery is ordinary). An *operation* is short and must handle its own
failures; one that raises all the same is a bug and takes the daemon down too, so that nothing goes
on in a state nobody thought of.
"""

import asyncio
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self


class LoopEnded(RuntimeError):
    """A loop that should run for ever returned."""


class Supervisor:
    """Starts tasks and owns them until it is closed.

    Used as an async context manager: leaving it waits for operations and cancels loops.
    """

    def __init__(self) -> None:
        self._group = asyncio.TaskGroup()
        # By age, as dictionaries are: a set of tasks has another order in each process.
        self._loops: dict[asyncio.Task[None], None] = {}
        self._operations: dict[asyncio.Task[None], None] = {}
        self._closing = False

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop_loops()
        await self._group.__aexit__(kind, error, trace)

    def start_loop(self, name: str, loop: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine that is not supposed to end before `stop_loops`."""
        task = self._group.create_task(self._guard(name, loop), name=name)
        self._loops[task] = None
        task.add_done_callback(self._loops.pop)
        return task

    def start(self, name: str, operation: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a short operation."""
        task = self._group.create_task(operation, name=name)
        self._operations[task] = None
        task.add_done_callback(self._operations.pop)
        return task

    def stop_loops(self) -> None:
        """Cancel every loop; operations may finish. Idempotent."""
        self._closing = True
        for task in tuple(self._loops):
            task.cancel()

    async def finish_operations(self, grace_s: float) -> int:
        """Let operations end for so long, then cancel what is left; how many that were."""
        if self._operations:
            await asyncio.wait(tuple(self._operations), timeout=grace_s)
        left = tuple(self._operations)
        for task in left:
            task.cancel()
        return len(left)

    async def _guard(self, name: str, loop: Coroutine[Any, Any, None]) -> None:
        await loop
        if not self._closing:
            raise LoopEnded(name)


class Background:
    """The tasks of an object that has a `close` of its own.

    A task handles its own failures; what it lets out goes to `on_failure`, once each.
    """

    def __init__(self, on_failure: Callable[[BaseException], None]) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._on_failure = on_failure

    def start(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine beside everything else."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def stop(self) -> None:
        """Cancel what runs, and wait until it has ended."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            error = task.exception()
            if error is not None:
                self._on_failure(error)
