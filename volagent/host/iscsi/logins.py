"""Sessions with the portals of a target: opened side by side, closed when nothing is left on them.

A portal is first connected to by a child that can be killed, so that one that is dead costs its
volumes seconds and nobody else anything; then it is asked what it offers, so that a target that it
does not know is told at once (open-iscsi takes that for silence); then comes the login. What it
offered a little while ago is believed, until a login is refused: then it is asked again.

Portals of one array are asked one after the other. All discovery sessions of open-iscsi have one
ISID, and a login with the ISID of a session that exists ends that session (RFC 7143, 6.3.5): two at
a time close each other's connection, and each looks like silence.

All of this happens under the lock of the target, which the caller holds.
"""

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

from volagent.host.errors import HostError
from volagent.host.iscsi.admin import IscsiAdmin, Refused, backend_of, explain_error
from volagent.host.iscsi.contract import LunWish, NoSession, PortalFailure, Refusal
from volagent.host.iscsi.multipath import runs_daemon
from volagent.host.iscsi.records import Records, split_portal
from volagent.host.iscsi.sysfs import Session, Sysfs

if TYPE_CHECKING:
    from volagent.host.process import Helpers

REACH_TIMEOUT_S: Final = 4.0
"""How long a portal may take to accept a connection."""
OFFERS_SHOWN_MAX: Final = 5
BELIEVED_S: Final = 300.0
"""How long what a portal has offered is taken for what it offers."""


@dataclass(frozen=True, slots=True)
class _Offers:
    """What a portal has offered: tags by target."""

    at_s: float
    tags: dict[str, str]


@dataclass(frozen=True, slots=True)
class Logins:
    """What can be done to the sessions with a target."""

    helpers: "Helpers"
    sysfs: Sysfs
    records: Records
    admin: IscsiAdmin
    _asking: WeakValueDictionary[str, asyncio.Lock] = field(default_factory=WeakValueDictionary)
    """By target and by portal: both tell that it is one array."""
    _offers: dict[tuple[str, str], _Offers] = field(default_factory=dict)
    """By portal and interface."""

    def sessions(self, iqn: str, interface: str) -> tuple[Session, ...]:
        """All of a target by that interface, whatever became of them."""
        return tuple(
            session for session in self.sysfs.sessions(iqn) if session.interface == interface
        )

    def usable_sessions(self, wish: LunWish, interface: str) -> tuple[Session, ...]:
        """Those by the wish's portals, in the wish's order."""
        found = {session.portal: session for session in self.sessions(wish.iqn, interface)}
        return tuple(
            found[portal]
            for portal in wish.portals
            if portal in found and found[portal].usable
        )  # fmt: skip

    async def connect(self, wish: LunWish, interface: str) -> tuple[PortalFailure, ...]:
        """Have a session with every portal that answers; the others. Raises `NoSession`."""
        known = {session.portal: session for session in self.sessions(wish.iqn, interface)}
        several = len(wish.portals) > 1 and runs_daemon()
        answers = await asyncio.gather(
            *(
                self._log_in(wish, portal, interface, several_paths=several)
                for portal in wish.portals
                if portal not in known
            )
        )
        failures = [answer for answer in answers if answer is not None]
        failures += [
            PortalFailure(portal, Refusal.SILENT, f"its session is {known[portal].state}")
            for portal in wish.portals
            if portal in known and not known[portal].usable
        ]
        if not self.usable_sessions(wish, interface):
            raise NoSession(wish.iqn, tuple(failures))
        return tuple(failures)

    async def look_up(self, wish: LunWish, interface: str) -> None:
        """Ask the portals now what a login will need, as far as that needs no credentials."""
        known = {session.portal for session in self.sessions(wish.iqn, interface)}
        await asyncio.gather(
            *(
                self._look_up(wish, portal, interface)
                for portal in wish.portals
                if portal not in known and self._recall(wish, portal, interface) is None
            )
        )

    async def _look_up(self, wish: LunWish, portal: str, interface: str) -> None:
        try:
            await self._reach(portal)
            await self._find_offers(wish, portal, interface)
        except (Refused, HostError):
            return  # the login will say so

    async def _log_in(
        self, wish: LunWish, portal: str, interface: str, *, several_paths: bool
    ) -> PortalFailure | None:
        recalled = self._recall(wish, portal, interface)
        failure: PortalFailure | None = None
        try:
            await self._reach(portal)
            if recalled is not None:
                failure = await self._try(wish, portal, interface, recalled, several_paths)
                if failure is None or failure.refusal is Refusal.CREDENTIALS:
                    return failure
                self._offers.pop((portal, interface), None)
            tag = await self._find_tag(wish, portal, interface)
        except Refused as error:
            return error.failure
        except HostError as error:
            return explain_error(portal, error)
        if recalled is not None and tag == recalled:
            return failure
        return await self._try(wish, portal, interface, tag, several_paths)

    async def _try(
        self, wish: LunWish, portal: str, interface: str, tag: str, several_paths: bool
    ) -> PortalFailure | None:
        try:
            await self.admin.log_in(wish, portal, interface, tag, several_paths=several_paths)
        except Refused as error:
            return error.failure
        except HostError as error:
            return explain_error(portal, error)
        return None

    async def _find_tag(self, wish: LunWish, portal: str, interface: str) -> str:
        """The tag of the target's portal group; "" for one that is not told. Raises `Refused`."""
        try:
            offered = await self._find_offers(wish, portal, interface)
        except Refused as error:
            # A portal that keeps its list to itself may still accept the login.
            refusal = error.failure.refusal
            if refusal is not Refusal.CREDENTIALS or wish.discovery_chap is not None:
                raise
            return ""
        if wish.iqn not in offered:
            failure = PortalFailure(portal, Refusal.UNKNOWN_TARGET, _list_offers(offered))
            raise Refused(failure)
        return offered[wish.iqn]

    async def _find_offers(self, wish: LunWish, portal: str, interface: str) -> dict[str, str]:
        async with self._turn(wish.iqn), self._turn(portal):
            offered = await self.admin.find_targets(wish, portal, interface)
        self._offers[portal, interface] = _Offers(time.monotonic(), offered)
        return offered

    def _recall(self, wish: LunWish, portal: str, interface: str) -> str | None:
        """The tag by which a portal has offered the target not long ago."""
        offers = self._offers.get((portal, interface))
        if offers is None:
            return None
        if time.monotonic() - offers.at_s > BELIEVED_S:
            del self._offers[portal, interface]
            return None
        return offers.tags.get(wish.iqn)

    def _turn(self, key: str) -> asyncio.Lock:
        return self._asking.setdefault(key, asyncio.Lock())

    async def _reach(self, portal: str) -> None:
        address, port = split_portal(portal)
        await self.helpers.call(
            "reach_portal",
            {"path": portal, "address": address, "port": int(port)},
            backend=backend_of(portal),
            timeout_s=REACH_TIMEOUT_S,
        )

    async def close_idle(self, iqn: str, interface: str) -> list[str]:
        """Close the sessions of ours that show nothing any more; what was done, in words."""
        said = []
        for session in self.sessions(iqn, interface):
            if self.sysfs.paths(session):
                continue
            if not self.records.is_ours(iqn, session.portal, interface):
                said.append(f"the session with {session.portal} is not ours and stays")
                continue
            await self.admin.log_out(session)
            said.append(f"logged out of {session.portal}")
        if not self.sessions(iqn, interface):
            await self.admin.forget_interface(interface)
        return said


def _list_offers(offered: dict[str, str]) -> str:
    names = sorted(offered)
    more = f" and {len(names) - OFFERS_SHOWN_MAX} more" if len(names) > OFFERS_SHOWN_MAX else ""
    return f"it offers {', '.join(names[:OFFERS_SHOWN_MAX]) or 'nothing'}{more}"
