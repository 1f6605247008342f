"""An event loop whose clock jumps: waiting costs nothing and every run is repeatable.

`loop.time()` is virtual. When nothing is ready, the clock moves to the next timer instead of
sleeping. Real file descriptors and threads have no place on it: their order is the machine's.

The product's own chance, which is the jitter of its back-off and the uids that it makes, comes from
`random`, which begins anew with each run. Nothing may go by the order of a set of texts or tasks.
"""

import asyncio
import math
import random
import selectors
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

T = TypeVar("T")
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
MOMENT_TURNS = 1000
TICK_S = 1e-9


class Deadlock(AssertionError):
    """Everybody waits and no timer is set."""


class _JumpingSelector(selectors.SelectSelector):
    """A moment lasts no longer than so many turns of the loop: asyncio calls timers up to a
    nanosecond early, and who finds that it is not yet time must see time go on."""

    now = 0.0
    _turns = 0

    def select(self, timeout=None):
        if timeout is None:
            raise Deadlock("every task waits and no timer is set")
        self._turns = 0 if timeout > 0.0 else self._turns + 1
        # After half a year a nanosecond is no time any more: asyncio would never call a timer.
        tick_s = math.ulp(self.now)
        turns = MOMENT_TURNS if tick_s < TICK_S else 1
        self.now += timeout if self._turns < turns else max(TICK_S, tick_s)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self):
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self):
        return self._jumping.now


class VirtualClock:
    """`volagent.aio.clock.Clock` on the running virtual loop."""

    suspended_s = 0.0
    """Time that passed while nothing of the machine ran and no timer counted."""

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def boottime(self) -> float:
        return self.monotonic() + self.suspended_s

    def wall(self) -> datetime:
        return EPOCH + timedelta(seconds=self.monotonic())


def run_virtually(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end on virtual time."""
    random.seed(0)
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
