"""The circuit breaker of one backend: stop calling who does not answer, and look again later. Pure.

Closed: calls go through. After `OPEN_AFTER_TIMEOUTS` calls in a row that did not come back, it is
open: calls are refused at once, for `OPEN_FOR_S`. Then one call may try (half-open), while the
others are still refused: an answer of any kind closes the circuit, silence opens it again. Time
comes from outside; nothing here waits.
"""

from datetime import datetime
from typing import Final, Literal

from volagent.aio.clock import Clock, format_time

OPEN_AFTER_TIMEOUTS: Final = 3
OPEN_FOR_S: Final = 15.0
FORGET_AFTER_S: Final = 3600.0
"""A backend that nobody has called for so long is no news any more."""

CircuitState = Literal["closed", "open", "half-open"]


class Breaker:
    """One backend's circuit."""

    __slots__ = ("_clock", "_open_until_s", "_probing", "_silent_since", "_timeouts", "name")

    def __init__(self, name: str, clock: Clock) -> None:
        self.name = name
        self._clock = clock
        self._timeouts = 0
        self._silent_since: datetime | None = None
        self._open_until_s = 0.0
        self._probing = False

    @property
    def state(self) -> CircuitState:
        """`open` also when its time is over and nobody has tried yet."""
        if self._timeouts < OPEN_AFTER_TIMEOUTS:
            return "closed"
        return "half-open" if self._probing else "open"

    @property
    def healthy(self) -> bool:
        """No call has timed out since the last answer."""
        return self._timeouts == 0

    @property
    def outdated(self) -> bool:
        """The last time-out is long ago, and nobody has tried since."""
        last_s = self._open_until_s - OPEN_FOR_S
        return not self.healthy and self._clock.monotonic() - last_s > FORGET_AFTER_S

    def refuse(self) -> str:
        """Why a call must not be made now; "" lets it through and counts it as the trial."""
        if self._timeouts < OPEN_AFTER_TIMEOUTS:
            return ""
        if self._probing:
            return f"{self.describe()}, a trial call is under way"
        if self._clock.monotonic() < self._open_until_s:
            return self.describe()
        self._probing = True
        return ""

    def note_answer(self) -> None:
        """A call came back, with whatever result."""
        self._timeouts = 0
        self._silent_since = None
        self._probing = False

    def note_timeout(self) -> None:
        """A call did not come back."""
        if self._silent_since is None:
            self._silent_since = self._clock.wall()
        self._timeouts += 1
        self._probing = False
        self._open_until_s = self._clock.monotonic() + OPEN_FOR_S

    def note_cancelled(self) -> None:
        """A call was given up by its caller: it tells nothing."""
        self._probing = False

    def describe(self) -> str:
        """One phrase for people; "" while all is well."""
        if self._silent_since is None:
            return ""
        text = f"{self.name} has not answered since {format_time(self._silent_since)}"
        if self._timeouts < OPEN_AFTER_TIMEOUTS or self._probing:
            return text
        left_s = max(0.0, self._open_until_s - self._clock.monotonic())
        return f"{text}, next try in {left_s:.0f} s"
