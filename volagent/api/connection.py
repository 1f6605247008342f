"""One HTTP connection: aiohttp's, with the caller's identity, an end for watches, and JSON errors.

aiohttp does not tell a handler that its client went away; a watch that has nothing to send would
never notice. `on_lost` is called (in the loop's thread) at the moment the connection is lost; only
watches set it, so that no write is cancelled half-way because its client left.
"""

from collections.abc import Callable

from aiohttp import web

from volagent.api.auth import User
from volagent.api.responses import status_response
from volagent.client.contract import ApiError, BadRequest

KEEP_ALIVE_S = 300.0
LINGER_S = 1.0
"""How long the rest of a refused body is read and thrown away, so that the answer arrives."""


class Connection(web.RequestHandler):
    """The protocol of one client's connection."""

    __slots__ = ("caller", "on_lost")

    def connection_made(self, transport: object) -> None:
        """Begin with an unknown caller and no watch."""
        self.caller: User | None = None
        self.on_lost: Callable[[], object] | None = None
        super().connection_made(transport)  # type: ignore[arg-type]  # asyncio's own type

    def connection_lost(self, exc: BaseException | None) -> None:
        """Tell the watch that runs on this connection, if one does."""
        if self.on_lost is not None:
            self.on_lost()
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """A `Status` where aiohttp would send a text page: for what is not even HTTP."""
        error: ApiError
        if 400 <= status < 500:
            error = BadRequest(f"not a valid HTTP request: {message or exc}")
        else:
            error = ApiError("the request could not be read")
        response = status_response(error)
        response.force_close()
        return response


class HttpServer(web.Server):
    """Makes a `Connection` for each client. `handler` answers every request."""

    def __init__(self, handler: Callable[[web.BaseRequest], object]) -> None:
        super().__init__(
            handler,  # type: ignore[arg-type]  # aiohttp keeps the exact type private
            access_log=None,
            keepalive_timeout=KEEP_ALIVE_S,
            lingering_time=LINGER_S,
        )

    def __call__(self) -> Connection:
        """The protocol of a new connection."""
        return Connection(self, loop=self._loop, **self._kwargs)
