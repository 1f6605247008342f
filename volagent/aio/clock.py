"""Time, as a value that is passed in: so that tests can own it.

Durations are measured with `monotonic()`; `wall()` is only for what people and the API read. On
virtual time (tests) the event loop's own clock is replaced, so waiting needs no port of its own.

`monotonic()` stands still while the machine is suspended, and so does every timer of the event
loop. Whoever asks how long *others* have not heard from this machine asks `boottime()`. A virtual
machine's clocks may all stand still while its hypervisor holds it (docs/failure-model.md).
"""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Three clocks."""

    def monotonic(self) -> float:
        """Seconds, never going back."""

    def boottime(self) -> float:
        """Seconds since the boot, suspensions among them; the same in all processes."""

    def wall(self) -> datetime:
        """The time of day, aware, in UTC."""


class SystemClock:
    """The machine's clocks."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary point."""
        return time.monotonic()

    def boottime(self) -> float:
        """CLOCK_BOOTTIME."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def wall(self) -> datetime:
        """Now, UTC."""
        return datetime.now(UTC)


def format_time(moment: datetime) -> str:
    """RFC 3339 with seconds, as `metadata.creationTimestamp` has it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def format_micro_time(moment: datetime) -> str:
    """RFC 3339 with six fraction digits, as `MicroTime` fields have it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_time(text: str) -> datetime:
    """The moment of an RFC 3339 text. Raises `ValueError`."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
