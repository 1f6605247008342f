"""What a pod's containers need next. Pure: a decision from what was seen and what is remembered.

The rules are the kubelet's: init containers in their order, each to its success; those with
`restartPolicy: Always` (sidecars) stay beside the others; `restartPolicy` decides about what ended;
a container that keeps ending is restarted at once, then after 10 s, 20 s, ... 5 min, until it has
run for 10 min. Deletion asks every container to end, sidecars last, kills what is left after the
grace period, and removes.

Invariants: a running container is never touched unless the pod goes or its work is over; nothing is
started for a pod that has finished, even when its containers were removed by somebody; at most one
attempt of a container runs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from volagent.aio.clock import parse_time
from volagent.objects.meta import PodUid
from volagent.objects.pod import Container, Pod
from volagent.runtime.contract import ContainerSpec, ContainerState, PodRef, SpecError, Stage
from volagent.runtime.memory import BACK_OFF_FORGIVEN_AFTER_S, PodMemory, StopMemory

DEFAULT_GRACE_S = 30
KILL_AGAIN_AFTER_S = 5.0

Specs = Mapping[str, ContainerSpec | SpecError]


@dataclass(frozen=True, slots=True)
class StartContainer:
    """Have the image, then make the container and start it."""

    spec: ContainerSpec
    attempt: int

    def describe(self) -> str:
        """For the log."""
        return f"start container {self.spec.name} (attempt {self.attempt})"


@dataclass(frozen=True, slots=True)
class StopContainer:
    """Ask a container to end, or kill it."""

    container_id: str
    name: str
    kill: bool

    def describe(self) -> str:
        """For the log."""
        return f"{'kill' if self.kill else 'stop'} container {self.name}"


@dataclass(frozen=True, slots=True)
class RemoveContainer:
    """Remove a container that does not run."""

    container_id: str
    name: str

    def describe(self) -> str:
        """For the log."""
        return f"remove container {self.name}"


Action = StartContainer | StopContainer | RemoveContainer


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now, what to remember, and when to look again at the latest."""

    actions: tuple[Action, ...]
    memory: PodMemory
    retry_after_s: float | None


def is_sidecar(container: Container) -> bool:
    """An init container that runs beside the others (meaningless for an ordinary one)."""
    return container.restart_policy == "Always"


def latest_attempts(pod: Pod, observed: Sequence[ContainerState]) -> dict[str, ContainerState]:
    """The last attempt of each container.

    One that has ended and was removed by somebody (`podman system prune`) is taken from the pod's
    status, so that finished work is not done again.
    """
    latest: dict[str, ContainerState] = {}
    for state in observed:
        known = latest.get(state.name)
        if known is None or known.attempt < state.attempt:
            latest[state.name] = state
    status = pod.status
    for reported in (*(status.init_container_statuses or ()), *(status.container_statuses or ())):
        ended = (reported.state or {}).get("terminated")
        if reported.name in latest or not isinstance(ended, dict):
            continue
        latest[reported.name] = ContainerState(
            container_id="",
            pod=PodRef(PodUid(pod.metadata.uid), pod.metadata.namespace, pod.metadata.name),
            name=reported.name,
            attempt=reported.restart_count,
            stage=Stage.EXITED,
            exit_code=ended.get("exitCode"),
            started_at=_time_of(ended, "startedAt"),
            finished_at=_time_of(ended, "finishedAt"),
            image=reported.image,
            image_id=reported.image_id,
        )
    return latest


def _time_of(ended: Mapping[str, Any], key: str) -> datetime | None:
    text = ended.get(key)
    return parse_time(text) if text else None


def should_restart(pod: Pod, container: Container, state: ContainerState) -> bool:
    """Whether an ended ordinary container is started again."""
    policy = pod.spec.restart_policy
    return policy == "Always" or (policy == "OnFailure" and state.exit_code != 0)


def has_begun(pod: Pod, latest: Mapping[str, ContainerState]) -> bool:
    """Whether an ordinary container was ever started: initialization was over then."""
    return any(
        (state := latest.get(container.name)) is not None and state.stage is not Stage.CREATED
        for container in pod.spec.containers
    )


def init_failed(pod: Pod, latest: Mapping[str, ContainerState]) -> bool:
    """Whether an init container has failed for good."""
    if pod.spec.restart_policy != "Never" or has_begun(pod, latest):
        return False
    return any(
        not is_sidecar(container) and _ended_badly(latest.get(container.name))
        for container in pod.spec.init_containers or ()
    )


def is_initialized(pod: Pod, latest: Mapping[str, ContainerState]) -> bool:
    """Whether the ordinary containers may run: every init container is done, every sidecar up."""
    return has_begun(pod, latest) or first_unfinished_init(pod, latest) is None


def first_unfinished_init(pod: Pod, latest: Mapping[str, ContainerState]) -> Container | None:
    """The init container that is due: not ended well, or a sidecar that never ran."""
    for container in pod.spec.init_containers or ():
        state = latest.get(container.name)
        if state is None or state.stage is Stage.CREATED:
            return container
        if not is_sidecar(container) and (state.stage is not Stage.EXITED or state.exit_code != 0):
            return container
    return None


def is_finished(pod: Pod, latest: Mapping[str, ContainerState]) -> bool:
    """Whether the pod's work is over: all ordinary containers, or its initialization, for good."""
    if pod.status.phase in ("Succeeded", "Failed") or init_failed(pod, latest):
        return True
    return bool(pod.spec.containers) and all(
        (state := latest.get(container.name)) is not None
        and state.stage is Stage.EXITED
        and not should_restart(pod, container, state)
        for container in pod.spec.containers
    )


def decide(
    pod: Pod,
    observed: Sequence[ContainerState],
    specs: Specs | None,
    memory: PodMemory,
    now_s: float,
) -> Decision:
    """What a declared pod's containers need next; `specs` is None until volumes are ready."""
    latest = latest_attempts(pod, observed)
    draft = _Draft(memory, now_s)
    for state in observed:
        if state.attempt < latest[state.name].attempt - 1 and state.stage is not Stage.RUNNING:
            draft.actions.append(RemoveContainer(state.container_id, state.name))
    if is_finished(pod, latest):
        for state in latest.values():
            if state.stage is Stage.RUNNING:  # sidecars, whose work is over
                draft.stop(state, _grace_s(pod))
        return draft.close()
    for container in _due(pod, latest):
        draft.bring_up(pod, container, latest.get(container.name), specs)
    return draft.close()


def decide_removal(
    pod: Pod, observed: Sequence[ContainerState], memory: PodMemory, now_s: float
) -> Decision:
    """What is left to do until no container of a pod exists."""
    draft = _Draft(memory, now_s)
    sidecars = {c.name for c in pod.spec.init_containers or () if is_sidecar(c)}
    running = [state for state in observed if state.stage is Stage.RUNNING]
    others = [state for state in running if state.name not in sidecars]
    grace_s = _grace_s(pod)
    for state in others or running:
        draft.stop(state, grace_s)
    if others and draft.is_overdue(others, grace_s):
        for state in running:
            if state.name in sidecars:  # they share the pod's one grace period
                draft.stop(state, 0)
    for state in observed:
        if state.stage is not Stage.RUNNING:
            draft.actions.append(RemoveContainer(state.container_id, state.name))
    return draft.close()


def _grace_s(pod: Pod) -> int:
    asked = pod.metadata.deletion_grace_period_seconds
    if asked is None:
        asked = pod.spec.termination_grace_period_seconds
    return DEFAULT_GRACE_S if asked is None else asked


def _ended_badly(state: ContainerState | None) -> bool:
    return state is not None and state.stage is Stage.EXITED and state.exit_code != 0


def _due(pod: Pod, latest: Mapping[str, ContainerState]) -> list[Container]:
    """The containers that should be running now or be on their way."""
    initialized = is_initialized(pod, latest)
    due = [
        container
        for container in pod.spec.init_containers or ()
        if is_sidecar(container) and (initialized or container.name in latest)
    ]
    if not initialized:
        first = first_unfinished_init(pod, latest)
        if first is not None and first not in due:
            due.append(first)
        return due
    return due + [
        container
        for container in pod.spec.containers
        if (state := latest.get(container.name)) is None
        or state.stage is not Stage.EXITED
        or should_restart(pod, container, state)
    ]


class _Draft:
    """A decision in the making."""

    def __init__(self, memory: PodMemory, now_s: float) -> None:
        self.memory = memory
        self.now_s = now_s
        self.actions: list[Action] = []
        self.due_s: float | None = None

    def close(self) -> Decision:
        retry_after_s = None if self.due_s is None else max(self.due_s - self.now_s, 0.0)
        return Decision(tuple(self.actions), self.memory, retry_after_s)

    def bring_up(
        self, pod: Pod, container: Container, state: ContainerState | None, specs: Specs | None
    ) -> None:
        """Start what is due and not running, unless it has to wait."""
        if state is not None and state.stage is Stage.RUNNING:
            return
        attempt = 0
        if state is not None:
            attempt = state.attempt
            if state.stage is Stage.EXITED:
                attempt += 1
                if not self._may_restart(state):
                    return
        spec = specs.get(container.name) if specs is not None else None
        if spec is None or isinstance(spec, SpecError):
            return  # whoever makes the specs calls again when there is one
        failure = self.memory.of(container.name).failure
        if failure is not None and failure.spec == spec and failure.due_s > self.now_s:
            self._look_again(failure.due_s)
            return
        self.actions.append(StartContainer(spec, attempt))

    def stop(self, state: ContainerState, grace_s: float) -> None:
        """Ask once; kill when the grace is over, and again should that have been lost."""
        stop = self.memory.stops.get(state.container_id)
        if stop is None:
            stop = StopMemory(self.now_s)
            if grace_s > 0:
                self._ask_to_end(state, stop, kill=False)
        if self.now_s < stop.asked_at_s + grace_s:
            self._look_again(stop.asked_at_s + grace_s)
            return
        if stop.killed_at_s is None or self.now_s >= stop.killed_at_s + KILL_AGAIN_AFTER_S:
            stop = replace(stop, killed_at_s=self.now_s)
            self._ask_to_end(state, stop, kill=True)
        self._look_again((stop.killed_at_s or self.now_s) + KILL_AGAIN_AFTER_S)

    def _ask_to_end(self, state: ContainerState, stop: StopMemory, *, kill: bool) -> None:
        self.memory = self.memory.with_stop(state.container_id, stop)
        self.actions.append(StopContainer(state.container_id, state.name, kill))

    def is_overdue(self, states: Sequence[ContainerState], grace_s: float) -> bool:
        """Whether any of them has had its grace."""
        return any(
            (stop := self.memory.stops.get(state.container_id)) is not None
            and self.now_s >= stop.asked_at_s + grace_s
            for state in states
        )

    def _may_restart(self, state: ContainerState) -> bool:
        known = self.memory.of(state.name)
        if known.ended_attempt != state.attempt:
            in_row = known.restarts_in_row
            if known.ended_attempt < 0 and not in_row:
                in_row = state.attempt  # after our own restart: it had come this far
            if _ran_s(state) >= BACK_OFF_FORGIVEN_AFTER_S:
                in_row = 0
            known = replace(
                known, restarts_in_row=in_row, ended_attempt=state.attempt, ended_at_s=self.now_s
            )
            self.memory = self.memory.with_container(state.name, known)
        if known.restart_due_s > self.now_s:
            self._look_again(known.restart_due_s)
            return False
        return True

    def _look_again(self, at_s: float) -> None:
        if self.due_s is None or at_s < self.due_s:
            self.due_s = at_s


def _ran_s(state: ContainerState) -> float:
    if state.started_at is None or state.finished_at is None:
        return 0.0
    return (state.finished_at - state.started_at).total_seconds()
