"""open-iscsi's iscsiadm: sessions are opened and closed by it, in children that can be killed.

Its exit status says what happened (iscsiadm(8), EXIT STATUS); its text is only shown to people.
What it is asked for never contains a password (see `records.py`).
"""

import errno
import hashlib
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from volagent.host.child import ENVIRONMENT
from volagent.host.errors import Absent, HostError, TimedOut, Unsupported
from volagent.host.iscsi.contract import LunWish, PortalFailure, Refusal
from volagent.host.iscsi.node_records import NodeRecords
from volagent.host.iscsi.records import Records, discovery_settings, node_settings
from volagent.host.iscsi.sysfs import Session

if TYPE_CHECKING:
    from volagent.host.process import Helpers, Outcome

QUICK_TIMEOUT_S: Final = 20.0
"""For what only reads and writes records."""
DISCOVER_TIMEOUT_S: Final = 20.0
LOGIN_TIMEOUT_S: Final = 45.0
"""Longer than open-iscsi tries, so that no login goes on unseen."""
LOGOUT_TIMEOUT_S: Final = 60.0
_PROGRAM: Final = "iscsiadm"
_PACKAGE: Final = "iscsiadm is not installed: apt-get install open-iscsi"

_DONE: Final = 0
_SESSION_MISSING: Final = 2
_SESSION_EXISTS: Final = 15
_NO_DAEMON: Final = (18, 20)
_NOTHING_FOUND: Final = 21
_UNAUTHORIZED: Final = 24
_UNREACHABLE: Final = (4, 8, 11)


class Refused(Exception):
    """A portal did not do what it was asked for."""

    def __init__(self, failure: PortalFailure) -> None:
        super().__init__(str(failure))
        self.failure = failure


def backend_of(portal: str) -> str:
    """The bulkhead of everything that a portal has to answer."""
    return f"iscsi:{portal}"


def interface_of(wish: LunWish) -> str:
    """open-iscsi's interface for a wish: one of our own when the initiator's name is given."""
    if not wish.initiator_name:
        return wish.interface
    digest = hashlib.sha256(f"{wish.interface}\n{wish.initiator_name}".encode()).hexdigest()
    return f"volagent-{digest[:16]}"


@dataclass(frozen=True, slots=True)
class IscsiAdmin:
    """Runs iscsiadm. Everything raises `HostError`, and `TimedOut` among that."""

    helpers: "Helpers"
    records: Records
    nodes: NodeRecords

    def demand_installed(self) -> None:
        """Raises `Unsupported` when there is no open-iscsi here."""
        if shutil.which(_PROGRAM, path=ENVIRONMENT["PATH"]) is None:
            raise Unsupported("exec", _PROGRAM, errno.ENOENT, _PACKAGE)

    async def ensure_interface(self, wish: LunWish) -> str:
        """Have the interface for a wish; its name."""
        name = interface_of(wish)
        if name == wish.interface:
            return name
        if self.records.find_interface(name) is None:
            await self._demand("-m", "iface", "-I", name, "-o", "new", subject=name)
        base = self.records.find_interface(wish.interface)
        settings = self.records.read(base) if base is not None else {}
        settings |= {"iface.iscsi_ifacename": name, "iface.initiatorname": wish.initiator_name}
        settings.setdefault("iface.transport_name", "tcp")
        file = self.records.find_interface(name)
        await self.helpers.run_in_pool(self.records.write, file, settings, name)
        return name

    async def find_targets(self, wish: LunWish, portal: str, interface: str) -> dict[str, str]:
        """The targets a portal offers, in small letters, each with its portal group's tag.

        Raises `Refused`.
        """
        arguments = ("-t", "sendtargets", "-p", portal, "-I", interface, "-o", "nonpersistent")
        if wish.discovery_chap is None:
            outcome = await self._ask(portal, "-m", "discovery", *arguments)
        else:
            outcome = await self._find_as(wish, portal, arguments)
        if outcome.returncode not in (_DONE, _NOTHING_FOUND):
            raise Refused(_explain(portal, outcome))
        found = {}
        for line in outcome.stdout.decode(errors="replace").splitlines():
            where, _, name = line.strip().partition(" ")
            if name.split() and where.partition(",")[0] == portal:
                found[name.split()[0].lower()] = where.rpartition(",")[2]
            elif name.split():
                found.setdefault(name.split()[0].lower(), "")
        return found

    async def _find_as(self, wish: LunWish, portal: str, arguments: tuple[str, ...]) -> "Outcome":
        """Ask with credentials; the record that holds them goes at once."""
        assert wish.discovery_chap is not None
        record = ("-m", "discoverydb", "-t", "sendtargets", "-p", portal)
        await self._demand(*record, "-o", "new", subject=portal)
        try:
            file = self.records.find_discovery(portal)
            settings = discovery_settings(wish.discovery_chap)
            await self.helpers.run_in_pool(self.records.write, file, settings, portal)
            return await self._ask(portal, "-m", "discoverydb", *arguments, "--discover")
        finally:
            await self._quick(*record, "-o", "delete")

    async def log_in(
        self, wish: LunWish, portal: str, interface: str, tag: str, *, several_paths: bool
    ) -> None:
        """Open a session. Raises `Refused`; then its record is gone too."""
        where = f"{portal},{tag}" if tag else portal
        node = ("-m", "node", "-T", wish.iqn, "-p", where, "-I", interface)
        settings = node_settings(wish.session_chap, several_paths=several_paths)
        record = (wish.iqn, portal, tag, interface, settings)
        pool = self.helpers.run_in_pool
        try:
            if not await pool(self.nodes.make, *record):
                await self._demand(*node, "-o", "new", subject=portal)
                await pool(self.nodes.complete, *record)
            outcome = await self._ask(portal, *node, "--login", timeout_s=LOGIN_TIMEOUT_S)
        except TimedOut:
            raise  # iscsid may go on: the record tells that its session is ours
        except HostError:
            await self._forget_node(wish.iqn, portal, interface)
            raise
        if outcome.returncode not in (_DONE, _SESSION_EXISTS):
            await self._forget_node(wish.iqn, portal, interface)
            raise Refused(_explain(portal, outcome))

    async def log_out(self, session: Session) -> None:
        """Close a session, and forget what it was opened with. Raises `HostError`."""
        node = (
            "-m", "node", "-T", session.iqn, "-p", session.portal, "-I", session.interface,
        )  # fmt: skip
        outcome = await self._ask(session.portal, *node, "--logout", timeout_s=LOGOUT_TIMEOUT_S)
        if outcome.returncode not in (_DONE, _SESSION_MISSING, _NOTHING_FOUND):
            raise HostError("logout", session.portal, 0, outcome.complaint)
        await self._forget_node(session.iqn, session.portal, session.interface)

    async def _forget_node(self, iqn: str, portal: str, interface: str) -> None:
        """Remove the record of a login; quietly, the next login replaces it."""
        if not await self.helpers.run_in_pool(self.nodes.remove, iqn, portal, interface):
            node = ("-m", "node", "-T", iqn, "-p", portal, "-I", interface)
            await self._quick(*node, "-o", "delete")

    async def forget_interface(self, name: str) -> None:
        """Remove an interface that was made here; another is left alone."""
        if name.startswith("volagent-") and self.records.find_interface(name) is not None:
            await self._quick("-m", "iface", "-I", name, "-o", "delete")

    async def _demand(self, *arguments: str, subject: str) -> None:
        outcome = await self._quick(*arguments)
        if outcome.returncode != _DONE:
            raise HostError(_PROGRAM, subject, 0, outcome.complaint)

    async def _quick(self, *arguments: str) -> "Outcome":
        return await self._run(arguments, "local", QUICK_TIMEOUT_S)

    async def _ask(
        self, portal: str, *arguments: str, timeout_s: float = DISCOVER_TIMEOUT_S
    ) -> "Outcome":
        return await self._run(arguments, backend_of(portal), timeout_s)

    async def _run(self, arguments: tuple[str, ...], backend: str, timeout_s: float) -> "Outcome":
        return await self.helpers.run((_PROGRAM, *arguments), backend=backend, timeout_s=timeout_s)


def _explain(portal: str, outcome: "Outcome") -> PortalFailure:
    status = outcome.returncode
    if status == _UNAUTHORIZED:
        return PortalFailure(portal, Refusal.CREDENTIALS)
    if status in _NO_DAEMON:
        return PortalFailure(portal, Refusal.NO_DAEMON)
    if status in _UNREACHABLE:
        return PortalFailure(portal, Refusal.SILENT, outcome.complaint)
    return PortalFailure(portal, Refusal.FAILED, outcome.complaint)


def explain_error(portal: str, error: HostError) -> PortalFailure:
    """What an error of a call about a portal says about the portal."""
    if isinstance(error, TimedOut):
        return PortalFailure(portal, Refusal.SILENT, error.detail)
    if isinstance(error, Absent):
        return PortalFailure(portal, Refusal.FAILED, str(error))
    return PortalFailure(portal, Refusal.UNREACHABLE, str(error))
