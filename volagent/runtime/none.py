"""The pull runtime: nobody here starts containers, whoever does takes the mounts from us.

Costs nothing per pod and waits for nothing. That nobody holds a mount any more is found out where
it is unmounted (`Busy`), not here.
"""

from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any

from volagent.objects.meta import PodUid
from volagent.objects.pod import Pod
from volagent.runtime.contract import ContainerSpec, PodObservation, SpecError

_OFFERED = PodObservation({"phase": "Pending"})
_RELEASED = PodObservation(volumes_released=True)


class NoRunner:
    """A `Runner` without a runtime."""

    async def sync(
        self, pod: Pod, specs: Mapping[str, ContainerSpec | SpecError] | None, *, deleting: bool
    ) -> PodObservation:
        """Pending for as long as it is declared; released at once."""
        return _RELEASED if deleting else _OFFERED

    def forget(self, pod: PodUid) -> None:
        """Nothing is remembered."""

    async def find_orphans(self, known: Collection[PodUid]) -> Sequence[Pod]:
        """None."""
        return ()

    def loops(
        self, on_change: Callable[[PodUid | None], None]
    ) -> Sequence[tuple[str, Coroutine[Any, Any, None]]]:
        """None."""
        return ()

    async def close(self) -> None:
        """Nothing is open."""
