"""A keyed work queue: level-triggered, one operation per key, lanes that cannot starve each other.

`mark(key)` says that something about a key may have changed; the worker is then called once and
reads everything again. Marks during a run cause exactly one more run. A lane is a bulkhead: keys of
one lane share its width, so that a slow backend holds back only itself. The worker returns the
seconds after which it wants to be called again, or None. A worker must not raise (see
`volagent.aio.tasks`). All methods are for the event loop's thread.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)

Worker = Callable[[K], Coroutine[Any, Any, float | None]]


class _Lane(Generic[K]):
    __slots__ = ("running", "waiting", "width")

    def __init__(self, width: int) -> None:
        self.width = width
        self.running = 0
        self.waiting: deque[K] = deque()


class KeyedQueue(Generic[K]):
    """Runs `work(key)` for marked keys, at most `width` at once in each lane."""

    def __init__(
        self,
        name: str,
        work: Worker[K],
        start: Callable[[str, Coroutine[Any, Any, None]], object],
        *,
        lane_of: Callable[[K], str] = lambda _: "",
        width: int = 16,
    ) -> None:
        self._name = name
        self._work = work
        self._start = start
        self._lane_of = lane_of
        self._width = width
        self._lanes: dict[str, _Lane[K]] = {}
        self._queued: set[K] = set()
        self._running: set[K] = set()
        self._again: set[K] = set()
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self._stopped = False

    def mark(self, key: K) -> None:
        """Have the key looked at soon; cancels a pending delay."""
        if self._stopped:
            return
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        if key in self._running:
            self._again.add(key)
        elif key not in self._queued:
            self._queued.add(key)
            self._idle.clear()
            name = self._lane_of(key)
            lane = self._lanes.get(name)
            if lane is None:
                lane = self._lanes[name] = _Lane(self._width)
            lane.waiting.append(key)
            self._pump(name, lane)

    def mark_after(self, key: K, delay_s: float) -> None:
        """Have the key looked at after a while, unless it is marked before."""
        if self._stopped or key in self._queued:
            return
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        self._timers[key] = asyncio.get_running_loop().call_later(delay_s, self.mark, key)

    def is_waiting(self, key: K) -> bool:
        """Whether the key waits for its turn (delays do not count)."""
        return key in self._queued

    async def drain(self) -> None:
        """Wait until no key waits or runs."""
        await self._idle.wait()

    def stop(self) -> None:
        """Take no further marks; what runs may finish."""
        self._stopped = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        for lane in self._lanes.values():
            self._queued.difference_update(lane.waiting)
            lane.waiting.clear()
        self._again.clear()
        self._note_idle()

    def _pump(self, name: str, lane: _Lane[K]) -> None:
        while lane.waiting and lane.running < lane.width:
            key = lane.waiting.popleft()
            lane.running += 1
            self._start(self._name, self._run(name, lane, key))

    async def _run(self, name: str, lane: _Lane[K], key: K) -> None:
        again_s: float | None = None
        self._queued.discard(key)
        self._running.add(key)
        try:
            again_s = await self._work(key)
        finally:
            lane.running -= 1
            self._running.discard(key)
            if key in self._again:
                self._again.discard(key)
                self.mark(key)
            elif again_s is not None:
                self.mark_after(key, again_s)
            self._pump(name, lane)
            if not lane.running and not lane.waiting:
                self._lanes.pop(name, None)
            self._note_idle()

    def _note_idle(self) -> None:
        if not self._queued and not self._running:
            self._idle.set()
