"""A server on a unix socket over a real registry, and a caller that sees the bare HTTP."""

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from volagent.aio.clock import SystemClock
from volagent.api.admission import Admission
from volagent.api.inprocess import InProcessClient
from volagent.api.server import ApiServer
from volagent.client.contract import NotFound
from volagent.client.http import HttpClient
from volagent.store.sqlite import open_store


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

    async def __call__(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> Answer:
        data = body if isinstance(body, bytes | None) else msgspec.json.encode(body)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if data is not None:
            named.setdefault("Content-Type", "application/json")
        async with self._session.request(
            method, "http://volagent" + path, data=data, headers=named
        ) as response:
            return Answer(response.status, await response.read(), response.headers)

    async def raw(self, text: bytes) -> bytes:
        """Send bytes that need not be HTTP; everything until the server closes."""
        reader, writer = await asyncio.open_unix_connection(self.path)
        writer.write(text)
        writer.write_eof()
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


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    store = open_store(tmp_path / "state")
    client = InProcessClient(store, Admission(), SystemClock(), token_key=b"k" * 32)
    await client.housekeeping.bootstrap()
    ready: list[str] = []
    server = ApiServer(
        client,
        node_view=FakeNode(),
        ready=lambda: ready[0] if ready else None,
        metrics=lambda: b"volagent_up 1\n",
        version="0.0.1",
    )
    path = str(tmp_path / "api.sock")
    await server.start_unix(path)
    caller = Caller(path)
    yield World(server, client, caller, path, ready)
    await caller.close()
    await server.close()
    await store.close()


@pytest.fixture
async def http_client(world: World) -> AsyncIterator[HttpClient]:
    async with HttpClient(f"unix://{world.socket_path}") as client:
        yield client


@pytest.fixture
def unused_socket_path(tmp_path: Path) -> str:
    """A path that no socket has yet, short enough for one."""
    path = str(tmp_path / "s")
    assert len(path) < 108
    assert socket.AF_UNIX
    return path


def make_pod(name: str = "web", **spec: Any) -> dict[str, Any]:
    """A small valid pod."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": [{"name": "main", "image": "busybox:1.36"}], **spec},
    }
