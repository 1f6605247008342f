"""How a disk of a lost node is to be proved free, and when nothing is taken at all. Pure.

For each disk there is one Fencing at a time, which is one method carried out by one executor; what
gave no proof is noted in the next one. When nothing is left to be tried the disk stays where it is,
and everything is tried again after a while. Time by itself frees nothing: it does together with a
watchdog, which has to be armed for the boot that was lost.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from volagent.objects.fencing import (
    HOOK,
    IMPOSSIBLE,
    PROVEN,
    STORAGE,
    WATCHDOG,
    Fencing,
    TriedMethod,
)

ATTEMPTS_LIMIT: Final = 3
"""Failed attempts of one executor after which another way is tried, if there is one."""
EXECUTORS_LIMIT: Final = 3
"""Nodes that are asked one after the other to fence at the storage."""
ANSWER_S: Final = {STORAGE: 20.0, HOOK: 120.0}
"""How long an executor may take to say anything; its node's lease may be renewed all the same."""
ROUND_S: Final = 60.0
"""After everything has been tried, so long until it is tried again."""


@dataclass(frozen=True, slots=True)
class Watchdog:
    """A watchdog that was armed in the boot that was lost."""

    by: str
    within_s: float
    left_s: float
    """Until it has reset the node for sure."""

    def describe(self) -> str:
        """The evidence."""
        return f"{self.by} resets it {self.within_s:g} s after its last renewal at the latest"


@dataclass(frozen=True, slots=True)
class Means:
    """What can give a proof for one disk."""

    executors: Sequence[str] = ()
    """Nodes that can fence at the storage, the best first."""
    hook: bool = False
    watchdog: Watchdog | None = None
    lacking: str = ""
    """What would help if it were there."""


@dataclass(frozen=True, slots=True)
class Way:
    """A method, and the node that carries it out ("": a server)."""

    method: str
    executor: str = ""


@dataclass(frozen=True, slots=True)
class Start:
    """Make the Fencing; `instead` of one that gave no proof."""

    way: Way
    tried: tuple[TriedMethod, ...] = ()
    instead: Fencing | None = None


@dataclass(frozen=True, slots=True)
class Prove:
    """The watchdog's time is over."""

    fencing: Fencing
    watchdog: Watchdog


@dataclass(frozen=True, slots=True)
class Wait:
    """Somebody is at it, or it is proved; look again after so long, or when something changes."""

    again_s: float | None = None


@dataclass(frozen=True, slots=True)
class Stay:
    """There is no proof, and nothing left to be tried for now."""

    reason: str
    again_s: float | None = None


Step = Start | Prove | Wait | Stay


def find_ways(means: Means) -> list[Way]:
    """What can be tried, the fastest first."""
    ways = [Way(STORAGE, node) for node in means.executors[:EXECUTORS_LIMIT]]
    if means.hook:
        ways.append(Way(HOOK))
    if means.watchdog is not None:
        over = means.watchdog.left_s <= 0
        ways.insert(0 if over else len(ways), Way(WATCHDOG))
    return ways


def decide_fencing(
    fencing: Fencing | None, means: Means, ready: Collection[str], age_s: float
) -> Step:
    """The next step for a disk of a lost node.

    `ready` are the nodes that can carry anything out; `age_s` is how long this outcome is known.
    """
    ways = find_ways(means)
    if fencing is None:
        return Start(ways[0]) if ways else Stay(means.lacking)
    if fencing.status.phase == PROVEN:
        return Wait()
    spec = fencing.spec
    here = Way(spec.method, spec.executor)
    if means.watchdog is not None and means.watchdog.left_s <= 0:
        if spec.method == WATCHDOG and fencing.status.phase != IMPOSSIBLE:
            return Prove(fencing, means.watchdog)
        if Way(WATCHDOG) not in _ways_tried(fencing):
            return Start(
                Way(WATCHDOG), _tried_with(fencing, "another proof was there before"), fencing
            )
    failure = _find_failure(fencing, means, ready, age_s)
    if not failure:
        left_s = [ANSWER_S.get(spec.method, ROUND_S) - age_s]
        if means.watchdog is not None:
            left_s.append(means.watchdog.left_s)
        return Wait(max(0.0, min(left_s)))
    done = {*_ways_tried(fencing), here}
    left = [way for way in ways if way not in done]
    if left:
        return Start(left[0], _tried_with(fencing, failure), fencing)
    ended = fencing.status.phase == IMPOSSIBLE or here not in ways
    if age_s >= ROUND_S and ways and (ended or len(ways) > 1):
        return Start(ways[0], (), fencing)
    again_s = ROUND_S - age_s if age_s < ROUND_S else ROUND_S
    if not ended:
        return Wait(again_s)
    reasons = [each.describe() for each in _tried_with(fencing, failure)]
    return Stay("; ".join([*reasons, means.lacking] if means.lacking else reasons), again_s)


def _find_failure(fencing: Fencing, means: Means, ready: Collection[str], age_s: float) -> str:
    """Why this way does not lead on; "": it may."""
    status, here = fencing.status, Way(fencing.spec.method, fencing.spec.executor)
    if status.phase == IMPOSSIBLE:
        return status.message or "impossible"
    if here.method == WATCHDOG:
        return "" if means.watchdog is not None else "nothing says now when a watchdog resets it"
    if here.executor and here.executor not in ready:
        return f"node {here.executor} is not ready itself"
    if status.attempts >= ATTEMPTS_LIMIT:
        return status.message or f"no proof after {status.attempts} attempts"
    if age_s >= ANSWER_S.get(here.method, ROUND_S):
        return status.message or "no answer"
    return ""


def _ways_tried(fencing: Fencing) -> set[Way]:
    return {Way(each.method, each.executor) for each in fencing.spec.tried or ()}


def _tried_with(fencing: Fencing, failure: str) -> tuple[TriedMethod, ...]:
    spec = fencing.spec
    return (*(spec.tried or ()), TriedMethod(spec.method, spec.executor, failure))


def find_brake(lost: Collection[str], total: int, share_max: float) -> str:
    """Why no disk of any lost node is taken now; "": they may be.

    One node may always be lost: with two or three of them that is a large share already.
    """
    allowed = max(1, int(share_max * total + 1e-9))
    if len(lost) <= allowed:
        return ""
    shown = ", ".join(sorted(lost)[:5]) + (", ..." if len(lost) > 5 else "")
    return (
        f"{len(lost)} of {total} nodes are silent at once ({shown}), more than {allowed}: it may be"
        " the servers' own network that fails, so no disk is taken from any of them"
    )


def order_executors(ready: Collection[str], wanting: Collection[str], volume: str) -> list[str]:
    """Ready nodes as executors for a disk: those that a pod waits on for it, then the others, not
    always the same first."""
    first = sorted(set(wanting) & set(ready))
    others = sorted(set(ready) - set(first))
    turn = sum(volume.encode()) % len(others) if others else 0
    return [*first, *others[turn:], *others[:turn]]
