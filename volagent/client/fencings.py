"""Carries Fencings out: those that name one executor, tried until there is an outcome.

Each attempt begins by reading the Fencing anew, and its outcome is written to that very version of
it: one that was replaced or decided meanwhile is left alone, and what was obtained for it is
forgotten. Fencing is idempotent, so that a process that starts anew just does it again.
"""

import random
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from volagent.aio.backoff import BackOff
from volagent.aio.clock import Clock, format_time
from volagent.aio.queue import KeyedQueue
from volagent.client.contract import FENCINGS, ApiError, Client, Conflict, NotFound
from volagent.client.informer import Key
from volagent.objects.fencing import PENDING, PROVEN, Fencing
from volagent.objects.meta import Document
from volagent.observe.logs import get_logger

RETRY: Final = BackOff(first_s=1.0, max_s=30.0)
AT_ONCE: Final = 16

_log = get_logger("fencing")

Start = Callable[[str, Coroutine[Any, Any, None]], object]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an attempt."""

    phase: str
    """Proven, Impossible, or Pending: it is tried again."""
    message: str


Attempt = Callable[[Fencing], Awaitable[Outcome | None]]
"""Keeps a node out, and does not raise; None: this one is nobody's here."""


class FencingWorker:
    """Tries the Fencings of one executor."""

    def __init__(
        self, client: Client, clock: Clock, executor: str, attempt: Attempt, start: Start
    ) -> None:
        self._client = client
        self._clock = clock
        self._executor = executor
        self._attempt = attempt
        self._failures: dict[str, int] = {}
        self._queue: KeyedQueue[str] = KeyedQueue("fencing", self._work, start, width=AT_ONCE)

    def saw(self, key: Key, old: Fencing | None, new: Fencing | None) -> None:
        """A Fencing came, changed or went."""
        if new is None or old is None or new.metadata.uid != old.metadata.uid:
            self._failures.pop(key[1], None)
        if new is None or not self._is_ours(new):
            return
        if old is None or old.spec != new.spec or old.metadata.uid != new.metadata.uid:
            self._queue.mark(key[1])  # its status is written here, and is no reason

    def stop(self) -> None:
        """Begin nothing more."""
        self._queue.stop()

    def _is_ours(self, fencing: Fencing) -> bool:
        return fencing.spec.executor == self._executor and fencing.status.phase == PENDING

    async def _work(self, name: str) -> float | None:
        try:
            fencing = msgspec.convert(await self._client.get(FENCINGS, name), Fencing)
            if not self._is_ours(fencing):
                return None
            outcome = await self._attempt(fencing)
            if outcome is None:
                return None
            await self._write(fencing, outcome)
        except NotFound:
            return None
        except Conflict:
            return 0.0  # it was changed meanwhile: it is read again
        except ApiError as error:
            _log.warning("fencing not told", fencing=name, error=error.message)
            return self._delay_s(name)
        if outcome.phase != PENDING:
            self._failures.pop(name, None)
            return None
        return self._delay_s(name)

    def _delay_s(self, name: str) -> float:
        count = self._failures[name] = self._failures.get(name, 0) + 1
        return RETRY.delay_s(count, random.random())

    async def _write(self, fencing: Fencing, outcome: Outcome) -> None:
        metadata = fencing.metadata
        status: Document = {
            "phase": outcome.phase,
            "message": outcome.message,
            "attempts": fencing.status.attempts + 1,
        }
        if outcome.phase == PROVEN:
            status["provenAt"] = format_time(self._clock.wall())
        change = {
            "metadata": {"uid": metadata.uid, "resourceVersion": metadata.resource_version},
            "status": status,
        }
        await self._client.patch(FENCINGS, metadata.name, change, subresource="status")
        spec = fencing.spec
        _log.info(
            "fenced" if outcome.phase == PROVEN else "not fenced", node=spec.node_name,
            volume=spec.volume, method=spec.method, phase=outcome.phase, message=outcome.message,
            attempts=status["attempts"],
        )  # fmt: skip
