"""Many clients at once, as cheaply as Python can: the load must not be what is measured.

Each client keeps one connection and sends its next request when the last was answered. Nothing is
parsed but the status line and the length.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

Request = tuple[str, str, bytes]
"""Method, path, body."""


def encode(request: Request) -> bytes:
    """The bytes of one HTTP/1.1 request."""
    method, path, body = request
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: volagent\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class _Client(asyncio.Protocol):
    """Sends what the shared iterator gives until it ends."""

    def __init__(self, requests: Iterator[bytes]) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._requests = requests
        self._received = bytearray()
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        received = self._received
        received += data
        end = received.find(b"\r\n\r\n")
        if end < 0:
            return
        at = received.find(b"Content-Length: ", 0, end)
        length = int(received[at + 16 : received.find(b"\r", at)])
        if len(received) < end + 4 + length:
            return
        if not received.startswith(b"HTTP/1.1 20"):
            self.done.set_exception(RuntimeError(bytes(received[:600]).decode()))
            return
        del received[: end + 4 + length]
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the daemon closed the connection"))

    def _send(self) -> None:
        assert self._transport is not None
        request = next(self._requests, None)
        if request is not None:
            self._transport.write(request)
        else:
            self.done.set_result(None)
            self._transport.close()


async def send_all(
    socket: Path,
    requests: Sequence[Request],
    clients: int,
    stamp: Callable[[Request], Request] | None = None,
) -> None:
    """Send all requests over so many connections; raises on any that is refused.

    `stamp` makes each request what it is at the moment it is sent.
    """
    if stamp is None:
        encoded = iter([encode(request) for request in requests])
    else:
        encoded = (encode(stamp(request)) for request in requests)
    loop = asyncio.get_running_loop()
    made = [
        await loop.create_unix_connection(lambda: _Client(encoded), str(socket))
        for _ in range(clients)
    ]
    await asyncio.gather(*(client.done for _, client in made))
