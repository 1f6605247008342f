"""Fixtures: the server on a unix socket."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.http.world import Caller, FakeNode, World, one_metric
from volagent.aio.clock import SystemClock
from volagent.api.admission import Admission
from volagent.api.inprocess import InProcessClient
from volagent.api.server import ApiServer
from volagent.client.http import HttpClient
from volagent.store.sqlite import open_store


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
        metrics=one_metric,
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
