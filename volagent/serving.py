"""How the API is served: who is known, which certificates, on what it listens. Composition."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from volagent import __version__
from volagent.aio.clock import Clock
from volagent.api.auth import ServiceAccountTokens, TokenAuthenticator, TokenFile, TokenFileError
from volagent.api.authority import Authority
from volagent.api.inprocess import InProcessClient
from volagent.api.listen import TlsListener, UnixListener, parse_listener
from volagent.api.nodeview import NodeView
from volagent.api.rbac import Authorizer
from volagent.api.server import ApiServer, Beside
from volagent.api.tls import TlsError
from volagent.client.shared import SharedCopies
from volagent.observe.logs import get_logger
from volagent.observe.systemd import notify
from volagent.settings import Settings

_log = get_logger("daemon")


class Serving:
    """The server with everything it needs from the settings."""

    def __init__(
        self,
        settings: Settings,
        client: InProcessClient,
        copies: SharedCopies,
        clock: Clock,
        *,
        node_view: NodeView,
        ready: Callable[[], str | None],
        metrics: Callable[[], Awaitable[bytes]],
        beside: Beside,
    ) -> None:
        """`beside` lacks what is made here. Raises `TokenFileError`, `TlsError`."""
        self._settings = settings
        self._tokens: TokenFile | None = None
        self.authority: Authority | None = None
        if _needs_authority(settings):
            self.authority = Authority(Path(settings.state_dir) / "pki", clock)
        authenticators: list[TokenAuthenticator] = [ServiceAccountTokens(client, client.issuer)]
        if settings.auth.token_file:
            self._tokens = TokenFile(settings.auth.token_file)
            authenticators.insert(0, self._tokens)
        self.server = ApiServer(
            client,
            node_view=node_view,
            ready=ready,
            metrics=metrics,
            version=__version__,
            authenticators=authenticators,
            beside=replace(beside, authorizer=Authorizer(copies), authority=self.authority),
        )

    async def open_listeners(self) -> None:
        """Listen on everything the settings name. Raises `ListenError`, `TlsError`."""
        tls = self._settings.tls
        for text in self._settings.listen:
            match parse_listener(text):
                case UnixListener(path):
                    await self.server.start_unix(path)
                case TlsListener(host, port):
                    certificate, key, client_ca = tls.certificate, tls.key, tls.client_ca
                    if self.authority is not None:
                        certificate, key = self.authority.ensure_server([host])
                        client_ca = client_ca or self.authority.path
                    await self.server.start_tls(host, port, certificate, key, client_ca)

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


def _needs_authority(settings: Settings) -> bool:
    """Whether something is served over TLS for which no certificate was given."""
    listens = any(text.startswith("https://") for text in settings.listen)
    return listens and not settings.tls.certificate
