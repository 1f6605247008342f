"""What is remembered of a pod's containers between decisions. Pure values.

Lost with the process, and only delays depend on it: after a restart a container in back-off is
taken up where its attempt number says it was, and one that was asked to end is asked again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from volagent.runtime.contract import ContainerSpec

BACK_OFF_FIRST_S = 10.0
BACK_OFF_MAX_S = 300.0
BACK_OFF_FORGIVEN_AFTER_S = 600.0
"""A container that ran for so long counts as healthy again (the kubelet's numbers)."""


def back_off_s(times: int) -> float:
    """The delay after that many times in a row; none for 0."""
    if times <= 0:
        return 0.0
    return min(BACK_OFF_FIRST_S * 2.0 ** min(times - 1, 16), BACK_OFF_MAX_S)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a container could not be started last time."""

    reason: str
    """`ErrImagePull`, `CreateContainerError`, ..."""
    message: str
    spec: ContainerSpec
    """What was tried: a changed one is tried at once."""
    at_s: float
    times: int
    """In a row."""

    @property
    def due_s(self) -> float:
        """When it may be tried again."""
        return self.at_s + back_off_s(self.times)


@dataclass(frozen=True, slots=True)
class ContainerMemory:
    """What is remembered of one container between decisions; times are monotonic."""

    restarts_in_row: int = 0
    ended_attempt: int = -1
    """The attempt whose end was seen last."""
    ended_at_s: float = 0.0
    failure: Failure | None = None

    @property
    def restart_due_s(self) -> float:
        """When it may be restarted after that end."""
        return self.ended_at_s + back_off_s(self.restarts_in_row)


@dataclass(frozen=True, slots=True)
class StopMemory:
    """A container was asked to end; times are monotonic."""

    asked_at_s: float
    killed_at_s: float | None = None


@dataclass(frozen=True, slots=True)
class PodMemory:
    """What is remembered of one pod."""

    containers: Mapping[str, ContainerMemory] = field(default_factory=dict)
    stops: Mapping[str, StopMemory] = field(default_factory=dict)
    """By container id."""

    def of(self, name: str) -> ContainerMemory:
        """What is remembered of a container."""
        return self.containers.get(name, _NOTHING)

    def with_container(self, name: str, memory: ContainerMemory) -> "PodMemory":
        """The same with one container's part exchanged."""
        return replace(self, containers={**self.containers, name: memory})

    def with_stop(self, container_id: str, stop: StopMemory) -> "PodMemory":
        """The same with one stop noted."""
        return replace(self, stops={**self.stops, container_id: stop})

    def with_failure(
        self, spec: ContainerSpec, reason: str, message: str, now_s: float
    ) -> "PodMemory":
        """A start failed."""
        known = self.of(spec.name)
        times = known.failure.times + 1 if known.failure and known.failure.spec == spec else 1
        failure = Failure(reason, message, spec, now_s, times)
        return self.with_container(spec.name, replace(known, failure=failure))

    def with_start(self, name: str, attempt: int) -> "PodMemory":
        """A start succeeded."""
        known = self.of(name)
        in_row = known.restarts_in_row + 1 if attempt else 0
        return self.with_container(name, replace(known, restarts_in_row=in_row, failure=None))


_NOTHING = ContainerMemory()
