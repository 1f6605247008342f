"""A server over a real registry, a caller that sees the bare HTTP, a node that answers."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import msgspec
import yarl

from volagent.api.inprocess import InProcessClient
from volagent.api.server import ApiServer
from volagent.client.contract import NotFound


@dataclass
class Answer:
    """What came back."""

    code: int
    body: bytes
    headers: Any = field(default_factory=dict)

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


class Caller:
    """Sends requests as given and returns what comes back."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._session = aiohttp.ClientSession(connector=aiohttp.UnixConnector(path))

    async def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        data = body if isinstance(body, bytes | None) else msgspec.json.encode(body)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if data is not None:
            named.setdefault("Content-Type", "application/json")
        async with self._session.request(
            method, "http://volagent" + path, data=data, headers=named
        ) as response:
            return Answer(response.status, await response.read(), response.headers)

    async def get_raw(self, path: str) -> Answer:
        """GET a path exactly as given, escapes included."""
        url = yarl.URL("http://volagent" + path, encoded=True)
        async with self._session.get(url) as response:
            return Answer(response.status, await response.read(), response.headers)

    async def raw(self, text: bytes) -> bytes:
        """Send bytes that need not be HTTP; everything until the server closes."""
        reader, writer = await asyncio.open_unix_connection(self.path)
        writer.write(text)
        answer = await reader.read()
        writer.close()
        return answer

    async def close(self) -> None:
        await self._session.close()


class FakeNode:
    """A node that knows one pod."""

    def explain(self, namespace: str, name: str) -> dict[str, Any]:
        if name != "web":
            raise NotFound(f'pods "{name}" not found on node here')
        return {"kind": "Explanation", "pod": f"{namespace}/{name}"}

    def mounts(self, namespace: str, name: str) -> dict[str, Any]:
        return {"kind": "PodMounts", "pod": f"{namespace}/{name}"}

    def plan(self, document: dict[str, Any]) -> dict[str, Any]:
        return {"kind": "Plan", "pod": document["metadata"]["name"]}

    def status(self) -> dict[str, Any]:
        return {"kind": "NodeStatus"}


@dataclass
class World:
    """The server and what is behind it."""

    server: ApiServer
    client: InProcessClient
    call: Caller
    socket_path: str
    ready: list[str]
    """Reasons for not being ready."""


def make_pod(name: str = "web", **spec: Any) -> dict[str, Any]:
    """A small valid pod."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": [{"name": "main", "image": "busybox:1.36"}], **spec},
    }


async def one_metric() -> bytes:
    """What `/metrics` answers when nothing is measured."""
    return b"volagent_up 1\n"
