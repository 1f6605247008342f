"""A watchdog on virtual time, which outlives the agent that opened it, as the kernel's do."""

import asyncio
from collections.abc import Callable

from volagent.host.errors import Busy


class FakeDog:
    """The device: counts from the last feeding, whoever has it open, until it bites."""

    def __init__(self, bite: Callable[[], None]):
        self._bite = bite
        self._timer: asyncio.TimerHandle | None = None
        self.timeout_s = 60
        self.openers = 0
        self.bites = 0
        self.nowayout = False

    @property
    def runs(self) -> bool:
        return self._timer is not None

    def feed(self) -> None:
        self.stop()
        self._timer = asyncio.get_running_loop().call_later(self.timeout_s, self._bites)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _bites(self) -> None:
        self._timer = None
        self.bites += 1
        self._bite()


class FakeWatchdog:
    """`volagent.host.watchdog.Watchdog`: one process's hold of the device."""

    path = "/dev/watchdog"

    def __init__(self, dog: FakeDog):
        self._dog = dog
        self.is_armed = False

    def arm(self, timeout_s: int) -> int:
        if not self.is_armed:
            if self._dog.openers:
                raise Busy("open", self.path, 16)
            self._dog.openers += 1
            self.is_armed = True
        self._dog.timeout_s = timeout_s
        self._dog.feed()
        return timeout_s

    def feed(self) -> None:
        if self.is_armed:
            self._dog.feed()

    def disarm(self) -> bool:
        if self.is_armed and not self._dog.nowayout:
            self._dog.stop()
        stopped = not (self.is_armed and self._dog.nowayout)
        self.abandon()
        return stopped

    def abandon(self) -> None:
        if self.is_armed:
            self._dog.openers -= 1
            self.is_armed = False
