"""What happened to each volume, when, and what is in the way: the memory behind `explain`.

Bounded: the last outcome of each step per volume and pod, and a short ring of notable moments per
pod. Lost with the process, on purpose: after a restart a step is `done` with the evidence that
recovery found. For the event loop's thread.
"""

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime

from volagent.drivers.contract import VolumeKey
from volagent.objects.meta import PodUid

MOMENTS_PER_POD = 64


@dataclass(slots=True)
class StepTrace:
    """The last run of one step."""

    step: str
    state: str
    """`running`, `done`, `failed`, `waiting` (for somebody else; `error` says for what)."""
    started_at: datetime
    took_ms: float | None = None
    evidence: str = ""
    error: str = ""
    remedy: str = ""
    attempts: int = 1
    next_retry_at: datetime | None = None
    waiting_since: datetime | None = None
    """Over all its runs, since it last came to another end."""


@dataclass(frozen=True, slots=True)
class Moment:
    """Something worth telling that happened to a pod's volume."""

    at: datetime
    volume: str
    what: str


StepKey = tuple[str, PodUid | None]


@dataclass(slots=True)
class Trace:
    """All traces of this node."""

    _steps: dict[VolumeKey, dict[StepKey, StepTrace]] = field(default_factory=dict)
    _moments: dict[PodUid, deque[Moment]] = field(default_factory=dict)

    def begin(self, key: VolumeKey, step: str, pod: PodUid | None, now: datetime) -> StepTrace:
        """A step starts now; a failed one before it counts as an earlier attempt.

        One that waits for somebody else has waited since it first did.
        """
        steps = self._steps.get(key)
        if steps is None:
            steps = self._steps[key] = {}
        before = steps.get((step, pod))
        attempts = before.attempts + 1 if before is not None and before.state == "failed" else 1
        since = before.waiting_since if before is not None else None
        trace = steps[(step, pod)] = StepTrace(
            step, "running", now, attempts=attempts, waiting_since=since
        )
        return trace

    def steps(self, key: VolumeKey) -> dict[StepKey, StepTrace]:
        """The last outcome of each step of a volume, in the order of their first run."""
        return self._steps.get(key, {})

    def failure(self, key: VolumeKey, pod: PodUid | None = None) -> StepTrace | None:
        """The first step that is failing for a volume, or for one pod's use of it."""
        for (_, of), trace in self._steps.get(key, {}).items():
            if trace.state == "failed" and (pod is None or of is None or of == pod):
                return trace
        return None

    def wait(self, key: VolumeKey) -> StepTrace | None:
        """The step of a volume that waits for somebody else."""
        steps = self._steps.get(key, {}).values()
        return next((trace for trace in steps if trace.state == "waiting"), None)

    def note(self, pod: PodUid, volume: str, what: str, now: datetime) -> None:
        """Remember a notable moment."""
        self._moments.setdefault(pod, deque(maxlen=MOMENTS_PER_POD)).append(
            Moment(now, volume, what)
        )

    def moments(self, pod: PodUid) -> tuple[Moment, ...]:
        """A pod's notable moments, oldest first."""
        return tuple(self._moments.get(pod, ()))

    def forget_step(self, key: VolumeKey, step: str, pod: PodUid | None) -> None:
        """A step was undone."""
        steps = self._steps.get(key)
        if steps is not None:
            steps.pop((step, pod), None)

    def forget_volume(self, key: VolumeKey) -> None:
        """Nothing is left of a volume."""
        self._steps.pop(key, None)

    def forget_pod(self, pod: PodUid) -> None:
        """Nothing is left of a pod."""
        self._moments.pop(pod, None)
