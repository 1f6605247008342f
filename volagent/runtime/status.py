"""A pod's containers in the words of its status. Pure.

Phases, conditions, states and reasons are the kubelet's (`getPhase`, `GeneratePodReadyCondition`,
`convertToAPIContainerStatuses`). There are no probes: a container that runs is ready.
"""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from volagent.aio.clock import format_time
from volagent.objects.meta import Document
from volagent.objects.pod import Container, Pod
from volagent.runtime.contract import ContainerState, SpecError, Stage
from volagent.runtime.lifecycle import (
    Specs,
    first_unfinished_init,
    init_failed,
    is_initialized,
    is_sidecar,
    latest_attempts,
    should_restart,
)
from volagent.runtime.memory import PodMemory, back_off_s

UNKNOWN_EXIT_CODE = 255
_OWN_CONDITIONS = ("Initialized", "ContainersReady", "Ready")
_CONDITION_TIMES = ("lastTransitionTime", "lastProbeTime")
_PULL_REASONS = {"ErrImagePull": "ImagePullBackOff"}


def summarise(
    pod: Pod,
    observed: Sequence[ContainerState],
    specs: Specs | None,
    memory: PodMemory,
    *,
    runtime: str,
    now_s: float,
) -> Document:
    """`phase`, `conditions` (without times), `containerStatuses` and `initContainerStatuses`.

    `runtime` is the scheme of container ids; `now_s` belongs to the memory's clock.
    """
    view = _View(pod, observed, specs, memory, runtime, now_s)
    init = [view.status_of(c, init=True) for c in pod.spec.init_containers or ()]
    ordinary = [view.status_of(c, init=False) for c in pod.spec.containers]
    phase = _phase(pod, view, init, ordinary)
    summary: Document = {
        "phase": phase,
        "conditions": _conditions(phase, view, init, ordinary),
        "containerStatuses": ordinary,
    }
    if init:
        summary["initContainerStatuses"] = init
    return summary


class _View:
    """What the status of one pod is made from."""

    def __init__(
        self,
        pod: Pod,
        observed: Sequence[ContainerState],
        specs: Specs | None,
        memory: PodMemory,
        runtime: str,
        now_s: float,
    ) -> None:
        self.pod = pod
        self.specs = specs
        self.memory = memory
        self.runtime = runtime
        self.now_s = now_s
        self.latest = latest_attempts(pod, observed)
        self.initialized = is_initialized(pod, self.latest)
        self._observed = observed

    def status_of(self, container: Container, *, init: bool) -> Document:
        """One entry of `containerStatuses`."""
        state = self.latest.get(container.name)
        ended = self._ended_before(state)
        shown: Document
        if state is None or state.stage is Stage.CREATED:
            shown = {"waiting": self._why_waiting(container, init=init)}
        elif state.stage is Stage.RUNNING:
            shown = {"running": _moment("startedAt", state.started_at)}
        else:
            waiting = self._why_not_restarted(container, state, init=init)
            if waiting is None:
                shown = {"terminated": self._terminated(state)}
            else:
                shown, ended = {"waiting": waiting}, state
        running = state is not None and state.stage is Stage.RUNNING
        ready = running
        if init and not is_sidecar(container):
            ready = state is not None and state.stage is Stage.EXITED and state.exit_code == 0
        return {
            "name": container.name,
            "state": shown,
            "lastState": {"terminated": self._terminated(ended)} if ended is not None else {},
            "ready": ready,
            "restartCount": state.attempt if state is not None else 0,
            "image": (state.image if state is not None else "") or container.image,
            "imageID": state.image_id if state is not None else "",
            "containerID": self._id_of(state) if state is not None else "",
            "started": running,
        }

    def _ended_before(self, state: ContainerState | None) -> ContainerState | None:
        """The attempt before the last one, if it is still known."""
        if state is None:
            return None
        for other in self._observed:
            if other.name == state.name and other.attempt == state.attempt - 1:
                return other if other.stage is Stage.EXITED else None
        return None

    def _why_waiting(self, container: Container, *, init: bool) -> Document:
        why = self._why_not_started(container)
        if why is not None:
            return why
        if not init and not self.initialized:
            return {"reason": "PodInitializing"}
        if init and container is not first_unfinished_init(self.pod, self.latest):
            return {"reason": "PodInitializing"}
        return {"reason": "ContainerCreating"}

    def _why_not_started(self, container: Container) -> Document | None:
        """The failure that keeps a container from being started, if there is one."""
        spec = self.specs.get(container.name) if self.specs is not None else None
        if isinstance(spec, SpecError):
            return {"reason": spec.reason, "message": str(spec)}
        failure = self.memory.of(container.name).failure
        if failure is None or (spec is not None and failure.spec != spec):
            return None
        reason, message = failure.reason, failure.message
        if reason in _PULL_REASONS and failure.due_s > self.now_s > failure.at_s:
            reason = _PULL_REASONS[reason]
            message = f'Back-off pulling image "{failure.spec.image}": {message}'
        return {"reason": reason, "message": message}

    def _why_not_restarted(
        self, container: Container, state: ContainerState, *, init: bool
    ) -> Document | None:
        """Why an ended container that will run again does not run yet; None when it will not."""
        if init and not is_sidecar(container):
            again = state.exit_code != 0 and self.pod.spec.restart_policy != "Never"
        else:
            again = is_sidecar(container) if init else should_restart(self.pod, container, state)
        if not again:
            return None
        why = self._why_not_started(container)
        if why is not None:
            return why
        known = self.memory.of(container.name)
        if known.ended_attempt == state.attempt and known.restart_due_s > self.now_s:
            metadata = self.pod.metadata
            return {
                "reason": "CrashLoopBackOff",
                "message": f"back-off {_duration(back_off_s(known.restarts_in_row))} restarting "
                f"failed container={container.name} "
                f"pod={metadata.name}_{metadata.namespace}({metadata.uid})",
            }
        return None

    def _terminated(self, state: ContainerState) -> Document:
        return {
            "exitCode": state.exit_code if state.exit_code is not None else UNKNOWN_EXIT_CODE,
            "reason": _why_terminated(state),
            **_moment("startedAt", state.started_at),
            **_moment("finishedAt", state.finished_at),
            "containerID": self._id_of(state),
        }

    def _id_of(self, state: ContainerState) -> str:
        return f"{self.runtime}://{state.container_id}" if state.container_id else ""


def _phase(pod: Pod, view: _View, init: Sequence[Document], ordinary: Sequence[Document]) -> str:
    if pod.status.phase in ("Succeeded", "Failed"):
        return pod.status.phase
    if init_failed(pod, view.latest):
        return "Failed"
    if init and not view.initialized:
        return "Pending"
    states = [status["state"] for status in ordinary]
    waiting = any("waiting" in status["state"] and not status["lastState"] for status in ordinary)
    if waiting or not states:
        return "Pending"
    if any("running" in state for state in states):
        return "Running"
    if pod.spec.restart_policy == "Always" or any("waiting" in state for state in states):
        return "Running"
    if all(state["terminated"]["exitCode"] == 0 for state in states):
        return "Succeeded"
    return "Failed" if pod.spec.restart_policy == "Never" else "Running"


def _conditions(
    phase: str, view: _View, init: Sequence[Document], ordinary: Sequence[Document]
) -> list[Document]:
    unready = [status["name"] for status in ordinary if not status["ready"]]
    unready += [
        status["name"]
        for container, status in zip(view.pod.spec.init_containers or (), init, strict=True)
        if is_sidecar(container) and not status["ready"]
    ]
    incomplete = (
        [status["name"] for status in init if not status["ready"]] if not view.initialized else []
    )
    initialized = _condition(
        "Initialized", incomplete, "ContainersNotInitialized", "containers with incomplete status"
    )
    reason, prefix = "ContainersNotReady", "containers with unready status"
    if phase == "Succeeded":
        done = {"status": "False", "reason": "PodCompleted"}
        return [
            {"type": "Initialized", "status": "True", "reason": "PodCompleted"},
            {"type": "ContainersReady", **done},
            {"type": "Ready", **done},
        ]
    return [
        initialized,
        _condition("ContainersReady", unready, reason, prefix),
        _condition("Ready", unready, reason, prefix),
    ]


def _condition(kind: str, lacking: Sequence[str], reason: str, prefix: str) -> Document:
    if not lacking:
        return {"type": kind, "status": "True"}
    return {
        "type": kind,
        "status": "False",
        "reason": reason,
        "message": f"{prefix}: [{' '.join(lacking)}]",
    }


def _why_terminated(state: ContainerState) -> str:
    if state.out_of_memory:
        return "OOMKilled"
    return "Completed" if state.exit_code == 0 else "Error"


def _moment(key: str, moment: datetime | None) -> Document:
    return {key: format_time(moment)} if moment is not None else {}


def _duration(seconds: float) -> str:
    """As Go prints it: `10s`, `1m20s`, `5m0s`."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def carried_status(pod: Pod) -> Document:
    """What the stored status says of the containers: shown while the runtime cannot be asked."""
    stored: Document = msgspec.to_builtins(pod.status)
    carried: Document = {
        key: stored[key]
        for key in ("phase", "containerStatuses", "initContainerStatuses")
        if key in stored
    }
    carried["conditions"] = [
        {key: value for key, value in condition.items() if key not in _CONDITION_TIMES}
        for condition in stored.get("conditions", ())
        if condition["type"] in _OWN_CONDITIONS
    ]
    return carried
