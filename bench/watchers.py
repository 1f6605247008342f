"""Many watchers in a process of their own, and how long after its request each event arrives.

`python -m bench.watchers SOCKET COUNT EVENTS VERSION`: prints `ready` when all watch, and at the
end one JSON list of lags in milliseconds, measured at every `SAMPLED_EACH`th watcher; the others
only read. The objects carry the moment they were sent as the label `sent` (nanoseconds of the
system's monotonic clock).
"""

import asyncio
import json
import re
import sys
import time

PATH = "/api/v1/namespaces/default/configmaps?watch=1"
SAMPLED_EACH = 20
_SENT = re.compile(rb'"sent":"(\d+)"')
_TYPE = re.compile(rb'"type":"ADDED"')


class _Watcher(asyncio.Protocol):
    """Reads until so many objects were added."""

    def __init__(self, expected: int, version: str, *, sampled: bool) -> None:
        self.lags_ms: list[float] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.began: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._expected = expected
        self._version = version
        self._sampled = sampled
        self._seen = 0
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        transport.write(
            f"GET {PATH}&resourceVersion={self._version} HTTP/1.1\r\nHost: v\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        if not self.began.done():
            self.began.set_result(None)
        if not self._sampled:
            self._seen += data.count(b'"sent":"')  # one lost at a chunk's border does not matter
            return
        now_ns = time.monotonic_ns()
        text = self._rest + data
        end = text.rfind(b"\n") + 1
        self._rest = text[end:]
        lags = [(now_ns - int(sent)) / 1e6 for sent in _SENT.findall(text[:end])]
        self.lags_ms += lags
        if len(self.lags_ms) >= self._expected and not self.done.done():
            self.done.set_result(None)


async def _watch(socket: str, count: int, expected: int, version: str) -> None:
    loop = asyncio.get_running_loop()
    watchers = []
    for number in range(count):
        sampled = number % SAMPLED_EACH == 0

        def make(sampled: bool = sampled) -> _Watcher:
            return _Watcher(expected, version, sampled=sampled)

        watchers.append((await loop.create_unix_connection(make, socket))[1])
    await asyncio.gather(*(watcher.began for watcher in watchers))
    print("ready", flush=True)
    sampled_ones = watchers[::SAMPLED_EACH]
    await asyncio.gather(*(watcher.done for watcher in sampled_ones))
    print(json.dumps([lag for watcher in sampled_ones for lag in watcher.lags_ms]))


if __name__ == "__main__":
    asyncio.run(_watch(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]))
