"""Acts on what `lifecycle` decides: the `Runner` of a real container runtime.

One pass is: list the pod's containers → decide → act → list again, until nothing is left to do now;
then say how it stands. Nothing is waited for but the runtime's own answers: a container that ends,
a pull that is over, a back-off that has passed each lead to another pass. What runs already when
the daemon starts is found by its labels and left alone.

The caller sees to it that there is one pass per pod at a time; different pods' passes may overlap.
"""

from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from volagent.aio.clock import Clock
from volagent.objects.meta import ObjectMeta, PodUid
from volagent.objects.pod import Pod
from volagent.observe.logs import get_logger
from volagent.runtime.contract import (
    ContainerRejected,
    ContainerSpec,
    ContainerState,
    ImageMissing,
    PodObservation,
    PodRef,
    Runtime,
    RuntimeFault,
    RuntimeUnavailable,
    SpecError,
    Stage,
)
from volagent.runtime.images import ImageStore, NeverPulled
from volagent.runtime.lifecycle import (
    Action,
    RemoveContainer,
    StartContainer,
    StopContainer,
    decide,
    decide_removal,
    is_finished,
    latest_attempts,
)
from volagent.runtime.memory import PodMemory
from volagent.runtime.status import carried_status, summarise

PASSES_AT_MOST = 4
"""Enough for: remove what is old, start, start what that allows. The rest is for the next call."""
UNAVAILABLE_RETRY_S = 5.0
LEFT_OVER_RETRY_S = 2.0

_log = get_logger("runtime")


@dataclass(slots=True)
class _PodEntry:
    memory: PodMemory = field(default_factory=PodMemory)
    status: Mapping[str, Any] | None = None
    """As last told."""


class PodRunner:
    """Runs pods' containers on one runtime."""

    def __init__(self, runtime: Runtime, clock: Clock) -> None:
        self._runtime = runtime
        self._clock = clock
        self._images = ImageStore(runtime)
        self._entries: dict[PodUid, _PodEntry] = {}

    async def sync(
        self, pod: Pod, specs: Mapping[str, ContainerSpec | SpecError] | None, *, deleting: bool
    ) -> PodObservation:
        """One look at a pod, with everything done that is due."""
        uid = PodUid(pod.metadata.uid)
        entry = self._entries.get(uid)
        if entry is None:
            entry = self._entries[uid] = _PodEntry()
        try:
            return await self._sync(pod, uid, entry, specs, deleting=deleting)
        except RuntimeUnavailable as error:
            status = entry.status if entry.status is not None else carried_status(pod)
            return PodObservation(status, error=str(error), retry_after_s=UNAVAILABLE_RETRY_S)

    def forget(self, pod: PodUid) -> None:
        """Drop what is remembered of a pod that is gone."""
        self._entries.pop(pod, None)
        self._images.forget(pod)

    async def find_orphans(self, known: Collection[PodUid]) -> Sequence[Pod]:
        """Bare pods for containers whose pod is not known."""
        refs = {
            state.pod.uid: state.pod
            for state in await self._runtime.list_containers()
            if state.pod.uid not in known
        }
        return [
            Pod(metadata=ObjectMeta(name=ref.name, namespace=ref.namespace, uid=ref.uid))
            for ref in refs.values()
        ]

    def loops(
        self, on_change: Callable[[PodUid | None], None]
    ) -> Sequence[tuple[str, Coroutine[Any, Any, None]]]:
        """The runtime's events, and the pulls."""
        return [
            (f"{self._runtime.name} events", self._runtime.follow(on_change)),
            *self._images.loops(on_change),
        ]

    async def close(self) -> None:
        """Give the runtime's connections back."""
        await self._runtime.close()

    async def _sync(
        self,
        pod: Pod,
        uid: PodUid,
        entry: _PodEntry,
        specs: Mapping[str, ContainerSpec | SpecError] | None,
        *,
        deleting: bool,
    ) -> PodObservation:
        runtime, now = self._runtime, self._clock.monotonic
        observed = await runtime.list_containers(uid)
        retry_after_s: float | None = None
        for _ in range(PASSES_AT_MOST):
            if deleting:
                decision = decide_removal(pod, observed, entry.memory, now())
            else:
                decision = decide(pod, observed, specs, entry.memory, now())
            entry.memory, retry_after_s = decision.memory, decision.retry_after_s
            changed = False
            for action in decision.actions:
                changed |= await self._act(pod, entry, action)
            if not changed:
                break
            observed = await runtime.list_containers(uid)
        else:
            retry_after_s = 0.0
        if deleting and not observed:
            return PodObservation(volumes_released=True, finished=True)
        if deleting and retry_after_s is None:
            retry_after_s = LEFT_OVER_RETRY_S  # a container that could not be removed
        entry.status = summarise(
            pod, observed, specs, entry.memory, runtime=runtime.name, now_s=now()
        )
        return PodObservation(
            entry.status, finished=_is_over(pod, observed), retry_after_s=retry_after_s
        )

    async def _act(self, pod: Pod, entry: _PodEntry, action: Action) -> bool:
        """Do one action; whether there is reason to look and decide again at once."""
        begun_s = self._clock.monotonic()
        try:
            match action:
                case StartContainer():
                    if not await self._start(pod, entry, action):
                        return False
                case StopContainer():
                    await self._runtime.stop_container(action.container_id, kill=action.kill)
                case RemoveContainer():
                    await self._runtime.remove_container(action.container_id)
        except RuntimeUnavailable:
            raise
        except RuntimeFault as error:
            _log.warning("failed", action=action.describe(), pod=_name(pod), error=str(error))
            return isinstance(action, StartContainer)  # its back-off is to be reckoned with
        _log.info(
            "container operation done",
            action=action.describe(),
            pod=_name(pod),
            took_ms=round((self._clock.monotonic() - begun_s) * 1000.0, 1),
        )
        return not isinstance(action, StopContainer)  # the runtime tells when it has ended

    async def _start(self, pod: Pod, entry: _PodEntry, action: StartContainer) -> bool:
        """Have the image, make the container, start it; False while the image is being pulled.

        A failure is remembered and raised.
        """
        spec, attempt = action.spec, action.attempt
        metadata = pod.metadata
        ref = PodRef(PodUid(metadata.uid), metadata.namespace, metadata.name)
        reason = "ErrImagePull"
        try:
            claim = (ref.uid, spec.name, attempt)
            if not await self._images.ensure(claim, spec.image, spec.pull_policy):
                return False
            reason = "CreateContainerError"
            container_id = await self._runtime.create_container(ref, spec, attempt)
            reason = "RunContainerError"
            await self._runtime.start_container(container_id)
        except RuntimeUnavailable:
            raise
        except RuntimeFault as error:
            entry.memory = entry.memory.with_failure(
                spec, _reason_of(error, reason), str(error), self._clock.monotonic()
            )
            raise
        entry.memory = entry.memory.with_start(spec.name, attempt)
        return True


def _reason_of(error: RuntimeFault, reason: str) -> str:
    """The `waiting` reason for what went wrong at a step."""
    match error:
        case NeverPulled():
            return "ErrImageNeverPull"
        case ImageMissing():
            return "ErrImagePull"
        case ContainerRejected():
            return "CreateContainerConfigError"
        case _:
            return reason


def _is_over(pod: Pod, observed: Sequence[ContainerState]) -> bool:
    running = any(state.stage is Stage.RUNNING for state in observed)
    return not running and is_finished(pod, latest_attempts(pod, observed))


def _name(pod: Pod) -> str:
    return f"{pod.metadata.namespace}/{pod.metadata.name}"
