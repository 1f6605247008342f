"""How far a pod is: judged from its object and from the daemon's explanation. Pure."""

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from volagent.cli.output import format_ms
from volagent.objects.meta import Document

VOLUMES_READY = "volagent.dev/VolumesReady"
_STEP_ORDER = ("failed", "running", "waiting")


class Verdict(enum.Enum):
    """Whether waiting for a pod makes sense."""

    WORKING = "working"
    READY = "ready"
    BLOCKED = "blocked"
    """Nothing happens before somebody changes something."""
    ENDED = "ended"
    """It cannot become ready any more: deleted, or its containers failed for good."""


@dataclass(frozen=True, slots=True)
class Blockage:
    """What keeps a pod from being ready, and what to do."""

    subject: str
    """`volume data`, `container app`."""
    error: str
    remedy: str = ""
    retried: bool = False
    """The daemon tries again by itself."""


@dataclass(frozen=True, slots=True)
class VolumeLine:
    """One volume's present step."""

    volume: str
    driver: str
    state: str
    step: str
    took: str
    detail: str

    @property
    def news(self) -> tuple[str, str, str]:
        """What makes a line worth printing again."""
        return (self.state, self.step, self.detail)


def judge(pod: Document | None, explanation: Document | None) -> Verdict:
    """Where a pod stands."""
    if pod is None or pod["metadata"].get("deletionTimestamp"):
        return Verdict.ENDED
    status = pod.get("status") or {}
    if status.get("phase") == "Failed":
        return Verdict.ENDED
    if _volumes_ready(status) and _containers_ready(status):
        return Verdict.READY
    blockages = list(find_blockages(pod, explanation))
    if blockages and not any(blockage.retried for blockage in blockages):
        return Verdict.BLOCKED
    return Verdict.WORKING


def find_blockages(pod: Document | None, explanation: Document | None) -> Iterator[Blockage]:
    """Everything that is in the way."""
    for volume in (explanation or {}).get("volumes") or ():
        if volume.get("state") != "Ready" and volume.get("blocker"):
            yield Blockage(
                f'volume "{volume.get("name")}"',
                volume["blocker"],
                volume.get("remedy") or "",
                bool(volume.get("nextRetryAt")),
            )
    for step in (explanation or {}).get("steps") or ():
        if step.get("step") == "hand-over" and step.get("state") == "failed":
            yield Blockage("hand-over", step.get("error") or "failed", step.get("remedy") or "")
    for container in ((pod or {}).get("status") or {}).get("containerStatuses") or ():
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("message"):
            text = f"{waiting.get('reason', 'waiting')}: {waiting['message']}"
            yield Blockage(f'container "{container.get("name")}"', text, retried=True)


def list_volumes(explanation: Document) -> list[VolumeLine]:
    """Each volume with the step it is at, in the pod's order."""
    steps: dict[str, list[dict[str, Any]]] = {}
    for step in explanation.get("steps") or ():
        steps.setdefault(step.get("volume") or "", []).append(step)
    lines = []
    for volume in explanation.get("volumes") or ():
        name = volume.get("name") or ""
        own = steps.get(name, [])
        step = _current(own)
        state = volume.get("state") or ""
        detail = volume.get("blocker") or ""
        if not detail and state == "Ready":
            detail = volume.get("mounted") or step.get("evidence") or ""
        elif not detail:
            detail = step.get("evidence") or ""
        total = sum(one.get("tookMs") or 0.0 for one in own)
        took = format_ms(total) if state == "Ready" else format_ms(step.get("tookMs"))
        lines.append(
            VolumeLine(
                name, volume.get("driver") or "", state, step.get("step") or "", took, detail
            )
        )
    return lines


def _current(steps: list[dict[str, Any]]) -> dict[str, Any]:
    """The step that is going on or in the way; else the last one that is done."""
    for state in _STEP_ORDER:
        for step in steps:
            if step.get("state") == state:
                return step
    done = [step for step in steps if step.get("state") == "done"]
    return done[-1] if done else (steps[0] if steps else {})


def _volumes_ready(status: Document) -> bool:
    return any(
        condition.get("type") == VOLUMES_READY and condition.get("status") == "True"
        for condition in status.get("conditions") or ()
    )


def _containers_ready(status: Document) -> bool:
    """Without a runtime there are no container statuses, and nothing to wait for."""
    if not status.get("containerStatuses"):
        return True
    return status.get("phase") in ("Running", "Succeeded")
