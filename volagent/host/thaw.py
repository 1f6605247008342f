"""Time that passed while a hypervisor held this machine: what no clock of its kernel counts.

QEMU stops a held machine's clocks, CLOCK_BOOTTIME among them, and lets its real-time clock (the
battery's) go on with the host's. Seen with QEMU 7.2, held for 15 s: uptime and wall clock went on
where they had been, the real-time clock was 15 s ahead. So a jump of that one against
CLOCK_BOOTTIME between two looks is time that was lost; unless it agrees with the wall clock
afterwards, for then somebody has set the one by the other. A machine without one tells nothing.
"""

from datetime import datetime
from typing import Final

from volagent.aio.clock import Clock

RTC: Final = "/sys/class/rtc/rtc0/since_epoch"
JUMP_S: Final = 3.0
"""It tells whole seconds, and looks may be late."""
AGREE_S: Final = 2.0


class ThawingClock:
    """A `Clock` whose `boottime` counts being held, too, from the first look on."""

    def __init__(self, clock: Clock, path: str = RTC) -> None:
        self._clock = clock
        self._path = path
        self._lost_s = 0.0
        self._ahead_s: float | None = None

    def monotonic(self) -> float:
        """As of the machine."""
        return self._clock.monotonic()

    def wall(self) -> datetime:
        """As of the machine."""
        return self._clock.wall()

    def boottime(self) -> float:
        """Looks at the real-time clock, which takes a millisecond at most."""
        now_s = self._clock.boottime()
        rtc_s = self._read()
        if rtc_s is not None:
            ahead_s = rtc_s - now_s
            before_s, self._ahead_s = self._ahead_s, ahead_s
            jump_s = 0.0 if before_s is None else ahead_s - before_s
            if jump_s > JUMP_S and not self._agrees(rtc_s):
                self._lost_s += jump_s
        return now_s + self._lost_s

    def _agrees(self, rtc_s: float) -> bool:
        return abs(rtc_s - self._clock.wall().timestamp()) <= AGREE_S

    def _read(self) -> float | None:
        try:
            with open(self._path) as file:
                return float(file.read())
        except (OSError, ValueError):
            return None
