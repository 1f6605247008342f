"""What the node says about a pod's volumes: one condition, in one sentence. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from volagent.node.records import Held, VolumeRecord
from volagent.node.resolved import Problem, ResolvedPod
from volagent.node.trace import StepTrace
from volagent.objects.meta import Document

VOLUMES_READY = "volagent.dev/VolumesReady"


@dataclass(frozen=True, slots=True)
class Blocker:
    """What keeps one volume from being ready."""

    volume: str
    error: str
    remedy: str = ""
    next_retry: str = ""
    """RFC 3339, or "" when only a change of the declaration helps."""

    def describe(self) -> str:
        """One sentence with the remedy."""
        text = f'volume "{self.volume}": {self.error}'
        if self.next_retry:
            text += f"; next try at {self.next_retry}"
        return f"{text} ({self.remedy})" if self.remedy else text


def is_published(resolved: ResolvedPod, name: str, record: VolumeRecord | None) -> bool:
    """Whether a pod's volume is there, with the content it should have."""
    volume = resolved.volumes[name]
    use = record.uses.get(resolved.uid) if record is not None else None
    return (
        use is not None and use.held is Held.YES and use.mount.fingerprint == volume.use.fingerprint
    )


def block_by_problem(name: str, problem: Problem) -> Blocker:
    """The blocker of a volume that cannot be resolved."""
    return Blocker(name, problem.error, problem.remedy)


def block_by_failure(name: str, failure: StepTrace) -> Blocker:
    """The blocker of a volume with a failing step."""
    retry = failure.next_retry_at
    return Blocker(
        name,
        failure.error,
        failure.remedy,
        retry.strftime("%Y-%m-%dT%H:%M:%SZ") if retry is not None else "",
    )


def volumes_condition(
    ready: bool, blockers: Sequence[Blocker], waiting: Sequence[str]
) -> dict[str, str]:
    """The condition `volagent.dev/VolumesReady`, without its times."""
    if ready and not blockers:
        return {"type": VOLUMES_READY, "status": "True", "reason": "Mounted"}
    if ready:
        return {
            "type": VOLUMES_READY,
            "status": "True",
            "reason": "Stale",
            "message": "; ".join(blocker.describe() for blocker in blockers),
        }
    if blockers:
        return {
            "type": VOLUMES_READY,
            "status": "False",
            "reason": "FailedMount",
            "message": "; ".join(blocker.describe() for blocker in blockers),
        }
    return {
        "type": VOLUMES_READY,
        "status": "False",
        "reason": "Working",
        "message": f"waiting for volumes: {', '.join(waiting)}",
    }


def merge_conditions(
    old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]], now: str
) -> list[Document]:
    """The new conditions; a time of transition changes only with the status."""
    before = {condition.get("type"): condition for condition in old}
    merged: list[Document] = []
    for condition in new:
        known = before.get(condition["type"])
        same = known is not None and known.get("status") == condition["status"]
        since = known.get("lastTransitionTime") if same and known is not None else None
        merged.append({**condition, "lastTransitionTime": since or now})
    return merged
