"""A disk with persistent reservations as SPC-4 5.13 has them, for any number of sessions.

`FakeDisk` is the storage; `FakeReservations` is what one machine says to it, by its paths. Written
from the standard, not from what asks it: it is the oracle too (`may_write`).
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from volagent.host.errors import HostError, Unsupported
from volagent.host.iscsi.sysfs import Path, Session
from volagent.host.reservations import Capabilities, Kind, Order, Standing

Nexus = tuple[str, str]
"""The initiator's name with its session's id, and the portal."""


@dataclass
class FakeDisk:
    supported: bool = True
    aborts: bool = True
    """Knows PREEMPT AND ABORT."""
    persists: bool = True
    """Knows APTPL."""
    forgets_sessions: bool = False
    """Takes a registration back when its session ends, as LIO does without access lists."""
    keys: dict[Nexus, int] = field(default_factory=dict)
    holder: Nexus | None = None
    kind: int = 0
    generation: int = 0
    kept: bool = False
    resets: int = 0
    aborted: list[int] = field(default_factory=list)

    def may_write(self, nexus: Nexus) -> bool:
        return not self.kind or nexus in self.keys

    def cut_power(self) -> None:
        if not self.kept:
            self.keys, self.holder, self.kind = {}, None, 0

    def end_session(self, nexus: Nexus) -> None:
        if self.forgets_sessions:
            self._unregister(nexus)

    def standing(self) -> Standing:
        holder = self.keys.get(self.holder, 0) if self.holder is not None else 0
        return Standing(self.generation, tuple(self.keys.values()), holder, self.kind)

    def order(
        self, nexus: Nexus, order: Order, keys: tuple[int, int], kind: int, *, kept: bool
    ) -> bool:
        own, other = keys
        if order in (Order.REGISTER, Order.REGISTER_AND_IGNORE):
            if order is Order.REGISTER and self.keys.get(nexus, 0) != own:
                return False
            self.generation += 1
            self.kept = kept
            if other:
                self.keys[nexus] = other
            else:
                self._unregister(nexus)
            return True
        if self.keys.get(nexus) != own:
            return False
        if order is Order.RESERVE:
            return self._reserve(nexus, kind)
        if order is Order.PREEMPT_AND_ABORT and not self.aborts:
            raise Unsupported("persistent reserve", "disk", 95)
        assert order in (Order.PREEMPT, Order.PREEMPT_AND_ABORT)
        return self._preempt(nexus, other, kind, aborts=order is Order.PREEMPT_AND_ABORT)

    def _reserve(self, nexus: Nexus, kind: int) -> bool:
        if self.kind:
            return nexus == self.holder and kind == self.kind
        self.holder, self.kind = nexus, kind
        return True

    def _preempt(self, nexus: Nexus, other: int, kind: int, *, aborts: bool) -> bool:
        gone = [each for each, key in self.keys.items() if key == other and each != nexus]
        if not gone:
            return False
        self.generation += 1
        held = self.holder in gone
        for each in gone:
            del self.keys[each]
        if held:
            self.holder, self.kind = nexus, kind
        if aborts:
            self.aborted.append(other)
        return True

    def _unregister(self, nexus: Nexus) -> None:
        self.keys.pop(nexus, None)
        if nexus == self.holder:  # of a reservation for registrants only
            self.holder, self.kind = None, 0


@dataclass
class FakeReservations:
    """`Persistent` of one machine; `paused` waits at random places, by a seed."""

    disk: FakeDisk
    initiator: str
    chance: random.Random | None = None
    silent: set[str] = field(default_factory=set)
    """Portals that do not answer."""
    on_order: Callable[[], None] = lambda: None

    async def capabilities(self, path: Path) -> Capabilities:
        await self._reach(path)
        if not self.disk.supported:
            raise Unsupported("persistent reserve", path.device, 95)
        return Capabilities(self.disk.persists, (5, 6))

    async def standing(self, path: Path) -> Standing:
        await self._reach(path)
        if not self.disk.supported:
            raise Unsupported("persistent reserve", path.device, 95)
        return self.disk.standing()

    async def order(
        self, path: Path, order: Order, keys: tuple[int, int], *, outlives_power: bool = False
    ) -> bool:
        await self._reach(path)
        self.on_order()
        kind = Kind.WRITE_EXCLUSIVE_REGISTRANTS_ONLY
        done = self.disk.order(self.nexus(path), order, keys, kind, kept=outlives_power)
        await self._pause()
        return done

    async def reset(self, path: Path) -> None:
        await self._reach(path)
        self.disk.resets += 1

    def nexus(self, path: Path) -> Nexus:
        return f"{self.initiator},{path.session.name}", path.session.portal

    async def _reach(self, path: Path) -> None:
        await self._pause()
        if path.session.portal in self.silent:
            raise HostError("persistent reserve", path.device, 5, "it does not answer")

    async def _pause(self) -> None:
        for _ in range(self.chance.randrange(6) if self.chance is not None else 0):
            await asyncio.sleep(0)


def make_path(portal: str = "10.0.0.5:3260", *, session: str = "session1") -> Path:
    """A path of LUN 1, in order."""
    made = Session(session, "iqn.lab:a", portal, "default", "LOGGED_IN", "host1", "0", "/sys/s")
    return Path(made, 1, f"/sys/{session}/{portal}", "naa.1", b"", "running", "sda", "8:0", 1 << 20)
