"""An agent's certificate, renewed by the server that it joined, long before it expires."""

import asyncio
import ssl
from typing import Any, Protocol

from volagent.aio.clock import Clock
from volagent.client.contract import ApiError
from volagent.client.credentials import Credentials, CredentialsError, make_request
from volagent.node.register import read_machine_id
from volagent.observe.logs import get_logger

CERTIFICATE_PATH = "/apis/node.volagent.dev/v1/certificate"
LOOK_AT_CERTIFICATE_S = 3600.0

_log = get_logger("agent")


class Asks(Protocol):
    """The way to the server."""

    async def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """One request beside objects. Raises `ApiError`."""


async def renew_certificate(
    node: str, credentials: Credentials, client: Asks, context: ssl.SSLContext, clock: Clock
) -> None:
    """Have it renewed when little of its life is left, for ever; connections to come use it."""
    while True:
        try:
            if credentials.wants_renewal(clock.wall()):
                request = make_request(node)
                answer = await client.ask("POST", CERTIFICATE_PATH, {
                    "node": node, "request": request.request, "machineID": read_machine_id(),
                })  # fmt: skip
                credentials.keep(request, answer["certificate"], answer["ca"])
                credentials.load_into(context)
                _log.info("certificate renewed", node=node)
        except (ApiError, CredentialsError, OSError) as error:
            _log.warning("certificate not renewed", node=node, error=str(error))
        await asyncio.sleep(LOOK_AT_CERTIFICATE_S)
