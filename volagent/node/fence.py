"""When this node gives its exclusive disks up, and when it is to be reset. Pure.

All times are seconds of the clock that counts suspensions (`Clock.boottime`). The cluster may count
from the moment the last successful renewal was *sent*:

    sent ── lease_s ── the lease is over: give up ── give_up_s ── not done: reset
         └──────────── reset_after_s, after the last time it was fed: the watchdog resets ┘

The watchdog is fed by nothing but a renewal that was answered in time, or by having nothing to give
up. An answer takes a period at most, so `promise_s` after the last renewal was sent this node
cannot write any more, whatever became of its agent.
"""

import enum
import math
from dataclasses import dataclass, replace

MARGIN_S = 1
"""For timers of whole seconds, and the moment that a reset takes."""


class Duty(enum.Enum):
    """What a node has to do about its exclusive disks."""

    KEEP = "keep them"
    GIVE_UP = "give them up"
    RESET = "reset the machine"
    RETURN = "have none, and wait for the server's word"


@dataclass(frozen=True, slots=True)
class FenceRules:
    """The settings."""

    fences_itself: bool
    period_s: float
    lease_s: float
    give_up_s: float
    reset_after_s: int

    @property
    def grace_s(self) -> float:
        """How long containers may take to end before they are killed: a third of the time."""
        return self.give_up_s / 3

    def promise_s(self, watchdog_s: int) -> int:
        """When the machine has been reset for certain, counted from the last renewal sent."""
        return math.ceil(self.period_s) + watchdog_s + MARGIN_S


@dataclass(frozen=True, slots=True)
class Contact:
    """How this node stands with the servers."""

    renewed_s: float
    """When the last successful renewal was sent; for a node that has none yet, when it began."""
    met: bool = False
    """There was one by this process, and the server's word was read after it."""
    lapsed: bool = False
    """The lease was over since that word: what it permitted is void."""
    promised: bool = False
    """The cluster was told that this node is reset when it falls silent."""


def is_over(rules: FenceRules, contact: Contact, now_s: float) -> bool:
    """Whether the cluster may take this node for lost."""
    return now_s - contact.renewed_s >= rules.lease_s


def is_due(rules: FenceRules, contact: Contact, now_s: float) -> bool:
    """Whether the time for giving up is over, too."""
    return now_s - contact.renewed_s >= rules.lease_s + rules.give_up_s


def look(rules: FenceRules, contact: Contact, now_s: float) -> Contact:
    """Notice that the lease is over."""
    return replace(contact, lapsed=True) if is_over(rules, contact, now_s) else contact


def renew(rules: FenceRules, contact: Contact, *, sent_s: float, now_s: float) -> Contact:
    """Take a renewal that was answered now. One that is answered too late mends nothing."""
    return replace(look(rules, contact, now_s), renewed_s=sent_s)


def may_touch(rules: FenceRules, contact: Contact, now_s: float) -> bool:
    """Whether permissions of the server may be used at this moment."""
    if not contact.met:
        return False
    return not rules.fences_itself or not look(rules, contact, now_s).lapsed


def judge(
    rules: FenceRules, contact: Contact, now_s: float, *, holds: bool, begun: bool = False
) -> Duty:
    """What is to be done now; `holds`: somebody here may still write to an exclusive disk.

    Giving up that has begun goes to its end. One that has not is not begun after a renewal that
    came late: who counts from that renewal has no proof yet, and whoever fenced a disk by other
    means is heard before anything is permitted again.
    """
    if rules.fences_itself and holds:
        if is_over(rules, contact, now_s):
            due = is_due(rules, contact, now_s)
            return Duty.RESET if due and contact.promised else Duty.GIVE_UP
        if begun:
            return Duty.GIVE_UP
    lapsed = look(rules, contact, now_s).lapsed
    return Duty.RETURN if lapsed or not contact.met else Duty.KEEP


def may_feed(rules: FenceRules, contact: Contact, now_s: float, *, holds: bool) -> bool:
    """Whether the watchdog may be fed: with a renewal in hand, or with nothing to give up."""
    return not holds or not is_due(rules, contact, now_s)
