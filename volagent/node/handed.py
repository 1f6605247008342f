"""What a pod's worker asks of the hand-over to a container runtime."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from volagent.node.resolved import Problem, ResolvedPod, ResolvedVolume
from volagent.objects.meta import Document
from volagent.objects.pod import Pod


@dataclass(frozen=True, slots=True)
class HandOver:
    """The answer of the hand-over to a runtime."""

    status: Document = field(default_factory=dict)
    """Fields for the pod's status; `conditions` are merged with ours."""
    released: bool = False
    """No container of the pod exists any more."""
    error: str = ""
    """Why the containers cannot be given their mounts."""
    retry_after_s: float | None = None


class HandsOver(Protocol):
    """The way to a container runtime."""

    def sub_paths(
        self, pod: Pod, resolved: ResolvedPod
    ) -> tuple[Mapping[str, ResolvedVolume], Mapping[str, Problem]]:
        """The sub-paths the pod's containers want, and those that cannot be made out."""

    async def sync(self, pod: Pod, resolved: ResolvedPod, *, ready: bool) -> HandOver:
        """Bring the containers where they should be; with `ready` they may be started."""

    async def remove(self, pod: Pod) -> HandOver:
        """Stop and remove the containers; `released` once none exists."""

    def forget(self, pod: Pod) -> None:
        """Nothing of the pod is left: forget what was handed over."""
