"""Images: looked for at once, pulled beside the pods' own work.

A pull may take minutes, and a registry may be dead. So a start that needs one *claims* it and ends;
a small fixed number of loops pull, one claim's image at a time and each image once for everybody
who waits for it, and the pod is looked at again when its pull is over. The outcome is kept until
the claimant takes it. For the event loop's thread.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from volagent.objects.meta import PodUid
from volagent.observe.logs import get_logger
from volagent.runtime.contract import (
    ImageMissing,
    PullPolicy,
    Runtime,
    RuntimeFault,
)

PULLS_AT_ONCE = 3

Claim = tuple[PodUid, str, int]
"""Who wants an image: a pod's container and its attempt."""

_log = get_logger("runtime")


class NeverPulled(ImageMissing):
    """The image is not there and must not be pulled."""


class ImageStore:
    """The images of one runtime."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._waiting: dict[str, set[Claim]] = {}
        self._outcomes: dict[Claim, RuntimeFault | None] = {}
        self._queue: asyncio.Queue[str] = asyncio.Queue()

    async def ensure(self, claim: Claim, image: str, policy: PullPolicy) -> bool:
        """Whether the image is there now; False while it is being pulled.

        Raises `ImageMissing` (`NeverPulled` among it), `RuntimeUnavailable`.
        """
        if claim in self._outcomes:
            failure = self._outcomes.pop(claim)
            if failure is not None:
                raise failure
            return True
        if claim in self._waiting.get(image, ()):
            return False
        if policy is not PullPolicy.ALWAYS and await self._runtime.has_image(image):
            return True
        if policy is PullPolicy.NEVER:
            raise NeverPulled(f'Container image "{image}" is not present with pull policy of Never')
        if image in self._waiting:
            self._waiting[image].add(claim)
        else:
            self._waiting[image] = {claim}
            self._queue.put_nowait(image)
        return False

    def forget(self, pod: PodUid) -> None:
        """Drop a pod's claims; a pull under way goes on for whoever else wants it."""
        for claims in self._waiting.values():
            claims.difference_update([claim for claim in claims if claim[0] == pod])
        for claim in [claim for claim in self._outcomes if claim[0] == pod]:
            del self._outcomes[claim]

    def loops(
        self, on_change: Callable[[PodUid | None], None]
    ) -> Sequence[tuple[str, Coroutine[Any, Any, None]]]:
        """The loops that pull."""
        return [(f"image pull {n}", self._pull_for_ever(on_change)) for n in range(PULLS_AT_ONCE)]

    async def _pull_for_ever(self, on_change: Callable[[PodUid | None], None]) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            image = await self._queue.get()
            failure: RuntimeFault | None = None
            begun_s = clock()
            if self._waiting[image]:
                try:
                    await self._runtime.pull_image(image)
                except RuntimeFault as error:
                    failure = error
                    _log.warning("image not pulled", image=image, error=str(error))
                else:
                    took_ms = round((clock() - begun_s) * 1000.0, 1)
                    _log.info("image pulled", image=image, took_ms=took_ms)
            for claim in self._waiting.pop(image):
                self._outcomes[claim] = failure
                on_change(claim[0])
