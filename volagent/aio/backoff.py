"""Exponential back-off with jitter. Pure: randomness and time come from outside."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BackOff:
    """Delays `first_s`, doubled per failure up to `max_s`, each shortened by up to a quarter."""

    first_s: float = 0.5
    max_s: float = 120.0

    def delay_s(self, failures: int, chance: float) -> float:
        """Seconds to wait after the given number of failures in a row (1 or more).

        `chance` in [0, 1) picks the jitter, so that many volumes of one backend spread out.
        """
        grown = self.first_s * 2.0 ** min(failures - 1, 32)
        return min(grown, self.max_s) * (1.0 - chance / 4.0)


def earlier_of(one_s: float | None, other_s: float | None) -> float | None:
    """The earlier of two times that may both be missing."""
    return min((each_s for each_s in (one_s, other_s) if each_s is not None), default=None)
