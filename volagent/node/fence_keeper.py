"""Keeps this node's promise to the cluster: no lease, no exclusive disks (docs/adr/0009, 0011).

`fence.py` says what the duty of the moment is; here it is done:

- *give up* when the lease is over, and *reset* the machine when that has not ended in its time;
- *return* when a server is heard again (and at the start): first read which disks this node was
  fenced off and discard them, then arm the watchdog and tell the cluster so, then read the Node;
  only what that says may be touched. With `fences_itself` off, this is all that is done here.
- feed the watchdog with every renewal that came in time, and while there is nothing to give up.

What another process of this boot had promised is kept: the time of its last renewal lies on tmpfs.
For the event loop's thread; a loop that stands still feeds nothing, which is the point.
"""

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Final, Protocol

from volagent.aio.clock import Clock
from volagent.client.contract import ApiError
from volagent.host.errors import HostError
from volagent.host.watchdog import Watchdog
from volagent.node.fence import (
    Contact,
    Duty,
    FenceRules,
    is_due,
    is_over,
    judge,
    look,
    may_feed,
    may_touch,
    renew,
)
from volagent.node.fence_memory import FenceMemory
from volagent.node.fence_word import FenceWord, Promise
from volagent.objects.fencing import Fencing
from volagent.observe.logs import get_logger
from volagent.observe.metrics import fence_armed, fence_give_up_seconds, fence_give_ups

TICK_S: Final = 0.5
ARM_AGAIN_S: Final = 60.0
RETURN_TIMEOUT_S: Final = 8.0
LEAVE_TIMEOUT_S: Final = 3.0

_log = get_logger("fence")


class Body(Protocol):
    """The node, as far as disks are given up (`surrender.py`)."""

    def held(self) -> list[str]:
        """Exclusive disks that somebody here may write to."""

    def give_up(self, grace_s: float) -> None:
        """Begin, or go on, to give all of them up."""

    def discard(self, fencings: Collection[Fencing]) -> None:
        """Begin to give up, unwritten, what proven Fencings are about."""

    def bring_back(self) -> None:
        """Let pods go on that have given up what they had."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What can be done to the machine as a whole."""

    watchdog: Watchdog
    reset: Callable[[], None]
    """At once, unwritten. Raises `HostError`."""
    boot_id: str


class FenceKeeper:
    """One node's fence."""

    def __init__(
        self, rules: FenceRules, *, body: Body, word: FenceWord, machine: Machine,
        memory: FenceMemory, clock: Clock,
    ) -> None:  # fmt: skip
        self._rules = rules
        self._body = body
        self._word = word
        self._machine = machine
        self._memory = memory
        self._clock = clock
        self._wake = asyncio.Event()
        self._told: ApiError | None = None
        self._began_s: float | None = None
        """When giving up began, while it goes on."""
        self._armed_at_s = float("-inf")
        self._leaves = False
        self._started_s = clock.boottime()
        self._contact = memory.recall(self._started_s)
        word.on_proven = body.discard

    @property
    def contact(self) -> Contact:
        """How this node stands with the servers."""
        return self._contact

    def may_touch(self) -> bool:
        """Whether what servers permit may be used now; for `AttachmentGate.guard`."""
        return may_touch(self._rules, self._contact, self._clock.boottime())

    def renewed(self, sent_s: float) -> None:
        """The lease was renewed, by a request that was sent then."""
        if self._leaves:
            return
        rules, now_s, holds = self._rules, self._clock.boottime(), bool(self._body.held())
        if judge(rules, self._contact, now_s, holds=holds) is Duty.RESET:
            self._reset()  # this process, or the machine, stood still: it is too late
            return
        feeds = may_feed(rules, self._contact, now_s, holds=holds)
        self._contact = renew(rules, self._contact, sent_s=sent_s, now_s=now_s)
        if rules.fences_itself:
            self._memory.write(self._contact)
        if feeds:
            self._feed()
        self._wake.set()

    async def run(self) -> None:
        """Do the duty of each moment, for ever."""
        while True:
            if not self._leaves:
                await self._tick()
            try:
                async with asyncio.timeout(TICK_S):
                    await self._wake.wait()
            except TimeoutError:
                continue
            self._wake.clear()

    async def leave(self) -> None:
        """Before an orderly end: take the promise back, then stop the watchdog.

        What cannot be taken back stays: then the watchdog goes on, and resets the machine unless an
        agent is started again in time.
        """
        self._leaves = True
        watchdog = self._machine.watchdog
        if self._contact.promised:
            try:
                async with asyncio.timeout(LEAVE_TIMEOUT_S):
                    await self._word.settle(None)
            except (ApiError, TimeoutError) as error:
                self._stay_armed(str(error) or "no answer in time")
                return
        self._memory.forget()
        if not watchdog.disarm():
            _log.error("watchdog goes on: it cannot be stopped (nowayout)", device=watchdog.path,
                       remedy="start the agent again, or the machine is reset")  # fmt: skip
        fence_armed.set(0)

    def _stay_armed(self, error: str) -> None:
        watchdog, held = self._machine.watchdog, self._body.held()
        if not held and watchdog.disarm():
            _log.warning("watchdog stopped; the cluster was not told", error=error)
            return
        watchdog.abandon()
        _log.error(
            "watchdog goes on, since the cluster could not be told otherwise", error=error,
            disks=held, remedy=f"start the agent within {self._rules.reset_after_s} s, or the"
            " machine is reset",
        )  # fmt: skip

    # -- the duties --------------------------------------------------------------------------

    async def _tick(self) -> None:
        rules, now_s, holds = self._rules, self._clock.boottime(), self._body.held()
        self._contact = look(rules, self._contact, now_s)
        begun = self._began_s is not None
        duty = judge(rules, self._contact, now_s, holds=bool(holds), begun=begun)
        if duty is not Duty.GIVE_UP and duty is not Duty.RESET:
            self._note_given_up()
        match duty:
            case Duty.RESET:
                self._reset()
            case Duty.GIVE_UP:
                self._give_up(holds)
            case Duty.RETURN:
                if not holds:
                    self._feed()
                if not is_over(rules, self._contact, now_s):
                    await self._return()
            case Duty.KEEP:
                self._body.bring_back()
                await self._arm_again()

    def _give_up(self, holds: list[str]) -> None:
        now_s = self._clock.boottime()
        if self._began_s is None:
            if now_s - self._started_s < self._rules.period_s:
                return  # a process that has just begun: its first renewal is on its way
            self._began_s = now_s
            fence_give_ups.inc()
            _log.error(
                "no lease: giving exclusive disks up", disks=holds,
                silent_s=round(now_s - self._contact.renewed_s, 1),
                budget_s=self._rules.give_up_s, resets=self._contact.promised,
            )  # fmt: skip
        late = is_due(self._rules, self._contact, now_s)
        self._body.give_up(0.0 if late else self._rules.grace_s)

    def _note_given_up(self) -> None:
        if self._began_s is not None:
            took_s = self._clock.boottime() - self._began_s
            self._began_s = None
            fence_give_up_seconds.observe(took_s)
            _log.warning("exclusive disks given up", took_s=round(took_s, 2))

    def _reset(self) -> None:
        _log.critical(
            "disks could not be given up in time: resetting the machine",
            disks=self._body.held(),
            silent_s=round(self._clock.boottime() - self._contact.renewed_s, 1),
        )  # fmt: skip
        try:
            self._machine.reset()
        except HostError as error:
            _log.critical("not reset: the watchdog will", error=str(error))

    async def _return(self) -> None:
        """The server's word, and nothing is touched before it."""
        # A lapse from here on, while the servers are asked, makes what they say void.
        self._contact = replace(self._contact, met=False, lapsed=False)
        try:
            async with asyncio.timeout(RETURN_TIMEOUT_S):
                await self._word.read_fencings()
                promise = self._arm()
                node = await self._word.settle(promise)
        except (ApiError, TimeoutError) as error:
            self._contact = replace(self._contact, lapsed=True)
            self._tell(error)
            return
        if promise is None:
            self._unpromise()
        self._contact = look(self._rules, self._contact, self._clock.boottime())
        if self._contact.lapsed:
            return
        self._contact = replace(self._contact, met=True)
        self._told = None
        self._word.resume(node)
        self._body.bring_back()
        _log.info("permitted by a server", promise_s=self._word.promise_s)

    def _tell(self, error: ApiError | TimeoutError) -> None:
        if self._told is None and isinstance(error, ApiError):
            self._told = error
            _log.warning("nothing permitted yet: the server was not asked", error=error.message)

    # -- the watchdog ------------------------------------------------------------------------

    def _arm(self) -> Promise | None:
        """Arm it, with a renewal in hand; what may be promised then."""
        rules, watchdog = self._rules, self._machine.watchdog
        if not rules.fences_itself or not watchdog.path:
            return None
        self._armed_at_s = self._clock.monotonic()
        try:
            given_s = watchdog.arm(rules.reset_after_s)
        except HostError as error:
            fence_armed.set(0)
            _log.warning("no watchdog: nothing is promised", error=str(error),
                         remedy="see `volagent doctor`")  # fmt: skip
            return None
        fence_armed.set(1)
        # Noted before it is told: whoever comes after this process has to keep it.
        self._contact = replace(self._contact, promised=True)
        self._memory.write(self._contact)
        return Promise(rules.promise_s(given_s), watchdog.path, self._machine.boot_id)

    async def _arm_again(self) -> None:
        """Now and then, while there is none: its driver may have been loaded, its user gone."""
        if not self._rules.fences_itself or self._machine.watchdog.is_armed:
            return
        if self._clock.monotonic() - self._armed_at_s < ARM_AGAIN_S:
            return
        promise = self._arm()
        if promise is not None:
            try:
                async with asyncio.timeout(RETURN_TIMEOUT_S):
                    await self._word.settle(promise)
            except (ApiError, TimeoutError) as error:
                self._tell(error)  # told or not: the next try finds it armed, and tells again
                self._contact = replace(self._contact, met=False)

    def _unpromise(self) -> None:
        """The cluster knows that nothing is promised: what a killed process left ends, too."""
        left, watchdog = self._contact.promised, self._machine.watchdog
        self._contact = replace(self._contact, promised=False)
        self._memory.forget()
        if left and not watchdog.is_armed and not self._rules.fences_itself:
            try:
                watchdog.arm(self._rules.reset_after_s)
            except HostError as error:
                _log.warning("watchdog of an earlier agent not stopped", error=str(error))
        watchdog.disarm()

    def _feed(self) -> None:
        try:
            self._machine.watchdog.feed()
        except HostError as error:
            _log.error("watchdog not fed", error=str(error))
