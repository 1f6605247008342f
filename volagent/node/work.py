"""The worker of one volume: plan, execute, plan again, until nothing is left to do or to try.

Called by the keyed queue, so never twice at once for a volume. A step is tried once per run; a
failing step keeps back only what depends on it. Failures back off per volume (reset by any relevant
change of the declaration), a `Rejected` waits for a change. Outcomes go to the trace, the log, the
metrics and, when they are failures, to the pods as events.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

from volagent.aio.backoff import BackOff
from volagent.aio.clock import Clock
from volagent.drivers.contract import VolumeKey
from volagent.drivers.errors import DriverError, Rejected, Uncertain, Waiting
from volagent.host.errors import HostError
from volagent.node.actual import Actual
from volagent.node.execute import Executor
from volagent.node.index import DesiredIndex
from volagent.node.plan import (
    Attach,
    Cut,
    Detach,
    Expand,
    Prepare,
    Publish,
    Refresh,
    Stage,
    Step,
    Unpublish,
    Unstage,
    Wanted,
    plan,
)
from volagent.node.records import VolumeRecord
from volagent.node.trace import StepTrace, Trace
from volagent.objects.meta import PodUid
from volagent.observe.logs import get_logger
from volagent.observe.metrics import count_failure, observe_step

_log = get_logger("node")

STEP_NAMES: dict[type[Step], str] = {
    Attach: "attach",
    Prepare: "prepare",
    Stage: "stage",
    Publish: "publish",
    Refresh: "refresh",
    Expand: "expand",
    Cut: "cut",
    Unpublish: "unpublish",
    Unstage: "unstage",
    Detach: "detach",
}
PAST = {
    "attach": "attached", "prepare": "prepared", "stage": "staged", "publish": "published",
    "refresh": "refreshed", "expand": "expanded", "cut": "cut off",
    "unpublish": "unpublished", "unstage": "unstaged", "detach": "detached",
}  # fmt: skip
_UNDOES = {"unpublish": "publish", "unstage": "stage", "detach": "attach"}
_SHARED = (Attach, Prepare, Stage, Cut, Unstage, Detach)


class Reporter(Protocol):
    """Who tells people about failures."""

    def step_failed(self, subject: Wanted | VolumeRecord, step: str, pods: list[PodUid]) -> None:
        """A step of a volume failed; the trace says how."""

    def step_recovered(self, key: VolumeKey, step: str) -> None:
        """A step that had failed is done."""


@dataclass(slots=True)
class VolumeWorker:
    """Brings volumes to where they should be."""

    index: DesiredIndex
    actual: Actual
    executor: Executor
    trace: Trace
    reporter: Reporter
    clock: Clock
    backoff: BackOff
    on_settled: Callable[[VolumeKey, set[PodUid]], None]
    chance: Callable[[], float] = random.random
    failures: dict[VolumeKey, int] = field(default_factory=dict)

    def reset(self, key: VolumeKey) -> None:
        """Something relevant changed: the next failure backs off from the beginning."""
        self.failures.pop(key, None)

    async def work(self, key: VolumeKey) -> float | None:
        """Do what can be done for a volume; seconds until it wants another try, or None."""
        tried: set[Step] = set()
        failed: list[tuple[Step, Exception]] = []
        touched = self._users(key)
        while True:
            wanted, found = self.index.wanted(key), self.actual.get(key)
            steps = plan(wanted, found, self.index.live)
            step = next((s for s in steps if s not in tried and not _kept_back(s, failed)), None)
            if step is None:
                break
            tried.add(step)
            error = await self._attempt(step, wanted, found)
            if error is not None:
                failed.append((step, error))
        touched |= self._users(key)
        again_s = self._next_try(key, steps, failed)
        if not steps and self.actual.get(key) is None and wanted is None:
            self.trace.forget_volume(key)
        self.on_settled(key, touched)
        return again_s

    async def _attempt(
        self, step: Step, wanted: Wanted | None, found: VolumeRecord | None
    ) -> Exception | None:
        name = STEP_NAMES[type(step)]
        pod = step.pod if isinstance(step, Publish | Refresh | Unpublish) else None
        trace = self.trace.begin(step.key, name, pod, self.clock.wall())
        began = self.clock.monotonic()
        error: Exception | None = None
        evidence = ""
        try:
            evidence = await self.executor.run(step, wanted)
        except (DriverError, HostError) as failure:
            error = failure
        except Exception as failure:  # noqa: BLE001  # boundary: one volume's bug stays its own
            _log.exception("step failed in an unexpected way", volume=step.key, step=name)
            error = Uncertain(
                f"unexpected {type(failure).__name__}: {failure}",
                remedy="report this with the daemon's log",
            )
        took_s = self.clock.monotonic() - began
        trace.took_ms = took_s * 1000.0
        subject = wanted if wanted is not None else found
        assert subject is not None
        driver = wanted.spec.driver if wanted is not None else subject.driver  # type: ignore[union-attr]  # one or the other
        if error is None:
            observe_step(driver, name, took_s, failed=False)
            self._succeeded(step.key, name, pod, trace, evidence)
            return None
        trace.error = str(error)
        trace.remedy = error.remedy if isinstance(error, DriverError) else ""
        if isinstance(error, Waiting):
            trace.state = "waiting"
            return error
        trace.state = "failed"
        observe_step(driver, name, took_s, failed=True)
        count_failure(driver, name)
        pods = [pod] if pod is not None else sorted(self._users(step.key))
        self.reporter.step_failed(subject, name, pods)
        return error

    def _succeeded(
        self, key: VolumeKey, name: str, pod: PodUid | None, trace: StepTrace, evidence: str
    ) -> None:
        trace.state = "done"
        trace.evidence = evidence
        undone = _UNDOES.get(name)
        if undone is not None:
            self.trace.forget_step(key, undone, pod)
            self.trace.forget_step(key, name, pod)
        if trace.attempts > 1:
            self.reporter.step_recovered(key, name)
        _log.debug(
            "volume " + PAST[name], volume=key, pod=pod, took_ms=trace.took_ms, evidence=evidence
        )

    def _next_try(
        self, key: VolumeKey, steps: tuple[Step, ...], failed: list[tuple[Step, Exception]]
    ) -> float | None:
        if not steps:
            self.failures.pop(key, None)
            return None
        retryable = [pair for pair in failed if not isinstance(pair[1], Rejected | Waiting)]
        if failed and not retryable:
            return None
        count = self.failures[key] = self.failures.get(key, 0) + 1
        delay_s = self.backoff.delay_s(count, self.chance())
        at = self.clock.wall() + timedelta(seconds=delay_s)
        for trace in self.trace.steps(key).values():
            if trace.state == "failed":
                trace.next_retry_at = at
        return delay_s

    def _users(self, key: VolumeKey) -> set[PodUid]:
        wanted, found = self.index.wanted(key), self.actual.get(key)
        users = set(wanted.uses) if wanted is not None else set()
        if found is not None:
            users |= found.uses.keys()
        return users


def _kept_back(step: Step, failed: list[tuple[Step, Exception]]) -> bool:
    """Whether a failure before it makes a step pointless or unsafe.

    Anything shared that failed keeps back all that follows; a publication that could not be taken
    down keeps the stage and the device where they are.
    """
    for other, _ in failed:
        if isinstance(other, _SHARED):
            return not isinstance(step, Unpublish)
        if isinstance(other, Unpublish) and isinstance(step, Unstage | Detach):
            return True
    return False
