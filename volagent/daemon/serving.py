"""How the API is served: who is known, which certificates, on what it listens. Composition."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from volagent import __version__
from volagent.api.auth import ServiceAccountTokens, TokenAuthenticator, TokenFile, TokenFileError
from volagent.api.authority import Authority
from volagent.api.inprocess import InProcessClient
from volagent.api.joining import BootstrapTokens, Joining
from volagent.api.listen import ListenError, TlsListener, UnixListener, parse_listener
from volagent.api.nodeview import NodeView
from volagent.api.rbac import Authorizer
from volagent.api.server import ApiServer, Beside
from volagent.api.tls import TlsError
from volagent.client.shared import SharedCopies
from volagent.daemon.errors import StartError
from volagent.daemon.process import Process
from volagent.observe.logs import get_logger
from volagent.observe.systemd import notify
from volagent.settings import Settings

LOOK_AT_CERTIFICATE_S = 6 * 3600.0

_log = get_logger("daemon")


class Serving:
    """A server with what it reads from files."""

    def __init__(
        self,
        settings: Settings,
        server: ApiServer,
        *,
        tokens: TokenFile | None = None,
        authority: Authority | None = None,
        publish_root: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        """`publish_root` tells pods the authority's certificate (PEM)."""
        self.server = server
        self._settings = settings
        self._tokens = tokens
        self._authority = authority
        self._publish_root = publish_root

    async def open_listeners(self) -> None:
        """Listen on everything the settings name. Raises `ListenError`, `TlsError`."""
        if self._authority is not None and self._publish_root is not None:
            await self._publish_root(self._authority.certificate.decode())
        tls = self._settings.tls
        made = self._ensure_certificate()
        for text in self._settings.listen:
            match parse_listener(text):
                case UnixListener(path):
                    await self.server.start_unix(path)
                case TlsListener(host, port):
                    certificate, key = made or (tls.certificate, tls.key)
                    client_ca = tls.client_ca
                    if self._authority is not None:
                        client_ca = client_ca or self._authority.path
                    await self.server.start_tls(host, port, certificate, key, client_ca)

    def _ensure_certificate(self) -> tuple[str, str] | None:
        """Our own certificate for all addresses, with its key; None when one was given."""
        if self._authority is None:
            return None
        found = map(parse_listener, self._settings.listen)
        return self._authority.ensure_server(
            listener.host for listener in found if isinstance(listener, TlsListener)
        )

    async def renew_certificate(self) -> None:
        """Have our own certificate made anew long before it expires, for ever."""
        while True:
            await asyncio.sleep(LOOK_AT_CERTIFICATE_S)
            try:
                if self._ensure_certificate() is not None:
                    self.server.reload_certificates()
            except (TlsError, OSError) as error:
                _log.warning("certificate not renewed", error=str(error))

    def reload(self) -> None:
        """SIGHUP: read certificates and tokens again; what cannot be used changes nothing."""
        notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            self.server.reload_certificates()
            if self._tokens is not None:
                self._tokens.reload()
        except (TlsError, TokenFileError) as error:
            _log.error("reload failed", error=str(error), remedy="correct the file and try again")
        else:
            _log.info("certificates and tokens read again")
        notify("READY=1")


def make_serving(
    process: Process,
    client: InProcessClient,
    copies: SharedCopies,
    metrics: Callable[[], Awaitable[bytes]],
    beside: Beside,
    *,
    node_view: NodeView | None,
    recovered: asyncio.Event | None,
) -> Serving:
    """The API of a server. `beside` lacks what is made here. Raises `StartError`."""
    settings, tokens, authority = process.settings, None, None
    authenticators: list[TokenAuthenticator] = [
        BootstrapTokens(client, process.clock), ServiceAccountTokens(client, client.issuer),
    ]  # fmt: skip
    try:
        if _needs_authority(settings):
            authority = Authority(Path(settings.state_dir) / "pki", process.clock)
        if settings.auth.token_file:
            tokens = TokenFile(settings.auth.token_file)
            authenticators.insert(0, tokens)
    except (TokenFileError, TlsError) as error:
        raise StartError(str(error)) from error

    def make_joining(address: Callable[[], str]) -> Joining | None:
        if authority is None:
            return None
        return Joining(client, authority, process.clock, address)

    def find_obstacle() -> str | None:
        if recovered is not None and not recovered.is_set():
            return "recovery is not over"
        return None if copies.is_synced else "the controllers have not seen everything"

    server = ApiServer(
        client,
        node_view=node_view,
        ready=find_obstacle,
        metrics=metrics,
        version=__version__,
        authenticators=authenticators,
        beside=replace(
            beside,
            authorizer=Authorizer(copies),
            authority=authority,
            make_joining=make_joining,
        ),
    )
    return Serving(
        settings, server, tokens=tokens, authority=authority,
        publish_root=client.housekeeping.publish_root,
    )  # fmt: skip


async def open_listeners(serving: Serving) -> None:
    """Begin to serve. Raises `StartError`."""
    try:
        await serving.open_listeners()
    except (ListenError, TlsError) as error:
        raise StartError(str(error)) from error


def _needs_authority(settings: Settings) -> bool:
    """Whether something is served over TLS for which no certificate was given."""
    listens = any(text.startswith("https://") for text in settings.listen)
    return listens and not settings.tls.certificate
