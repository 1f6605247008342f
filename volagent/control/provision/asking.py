"""Asking a backend: bounded, every failure classified, a failing key left alone for a while."""

import asyncio
import math
import random
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from volagent.aio.backoff import BackOff
from volagent.aio.clock import Clock
from volagent.client.contract import Client
from volagent.client.events import EventRecorder
from volagent.client.shared import SharedCopies
from volagent.drivers.errors import DriverError, Rejected, Uncertain
from volagent.drivers.provisioning.contract import Provisioner, ProvisionerTable, ServesFrom
from volagent.objects.storage import Node

PATIENCE_S = 30.0
"""A backend that has not answered by then is reported."""
GIVE_UP_S = 600.0
"""A call without an answer is cancelled then, and counts as one whose outcome is unknown. Long,
because a copy of a large volume is no failure."""
BACKEND_RETRY = BackOff(first_s=1.0, max_s=300.0)

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What both halves of the provision controller work with."""

    copies: SharedCopies
    client: Client
    events: EventRecorder
    provisioners: ProvisionerTable
    clock: Clock
    default_keep_s: int

    def node(self, name: str) -> Node | None:
        """A node as it is known here; None for "" too."""
        return self.copies.nodes.get("", name) if name else None

    def node_of(self, provisioner: Provisioner) -> Node | None:
        """The node whose volumes a provisioner makes."""
        return self.node(provisioner.node)


def storage_node_behind(provisioner: object) -> str:
    """The storage node that a provisioner is on, if it makes volumes for other nodes."""
    return provisioner.storage_node if isinstance(provisioner, ServesFrom) else ""


class Failures(Generic[K]):
    """How long each failing key is to be left alone."""

    def __init__(self, clock: Clock, retry: BackOff = BACKEND_RETRY) -> None:
        self._clock = clock
        self._retry = retry
        self._counts: dict[K, int] = {}
        self._not_before_s: dict[K, float] = {}

    def note(self, key: K, error: DriverError) -> float | None:
        """Count a failure; seconds until the next attempt, None when only a change can help."""
        count = self._counts[key] = self._counts.get(key, 0) + 1
        delay_s = math.inf
        if not isinstance(error, Rejected):
            delay_s = self._retry.delay_s(count, random.random())
        self._not_before_s[key] = self._clock.monotonic() + delay_s
        return delay_s if delay_s < math.inf else None

    def is_resting(self, key: K) -> bool:
        """Whether a key is to be left alone now."""
        return self._not_before_s.get(key, 0.0) > self._clock.monotonic()

    def left_s(self, key: K) -> float | None:
        """Seconds until the next attempt, None when only a change can help."""
        left_s = self._not_before_s.get(key, 0.0) - self._clock.monotonic()
        return max(left_s, 0.0) if left_s < math.inf else None

    def forget(self, key: K) -> None:
        """Something has changed: try at once."""
        self._counts.pop(key, None)
        self._not_before_s.pop(key, None)

    def keys(self) -> tuple[K, ...]:
        """Everything that fails now."""
        return tuple(self._counts)


async def ask(call: Coroutine[Any, Any, T], what: str, on_silence: Callable[[str], None]) -> T:
    """The backend's answer; `on_silence` is told when it takes long.

    Raises `DriverError`: an error that nobody classified, and silence, are `Uncertain`. A cancelled
    call may have done its work all the same: whoever asks again relies on the calls' idempotence.
    """
    loop = asyncio.get_running_loop()
    text = f"{what} has not answered for {PATIENCE_S:.0f} s; still waiting"
    timer = loop.call_later(PATIENCE_S, on_silence, text)
    try:
        async with asyncio.timeout(GIVE_UP_S):
            return await call
    except DriverError:
        raise
    except TimeoutError as error:
        raise Uncertain(
            f"{what}: no answer within {GIVE_UP_S:.0f} s",
            remedy="see why the storage behind it does not answer; it is asked again",
        ) from error
    except Exception as error:  # boundary: a backend's bug is an unknown outcome
        raise Uncertain(f"{what}: {type(error).__name__}: {error}") from error
    finally:
        timer.cancel()


def tell_failure(error: DriverError) -> str:
    """The fact and the remedy, as one sentence."""
    return f"{error.message}; {error.remedy}" if error.remedy else error.message
