"""The clients under test: each sees a server of its own, empty but for what every server has."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.unit.http.world import one_metric
from volagent.aio.clock import SystemClock
from volagent.aio.tasks import Supervisor
from volagent.api.admission import Admission
from volagent.api.inprocess import InProcessClient
from volagent.api.server import ApiServer
from volagent.client.contract import Client
from volagent.client.http import HttpClient
from volagent.store.sqlite import open_store

NODE_NAME = "vm-1"


@asynccontextmanager
async def serve_in_process(directory: Path) -> AsyncIterator[InProcessClient]:
    """A server without HTTP, with its housekeeping."""
    store = open_store(directory)
    client = InProcessClient(
        store, Admission(), SystemClock(), token_key=b"k" * 32, default_node_name=NODE_NAME
    )
    await client.housekeeping.bootstrap()
    async with Supervisor() as tasks:
        tasks.start_loop("housekeeping", client.housekeeping.run())
        yield client
        tasks.stop_loops()
    await store.close()


@asynccontextmanager
async def serve_over_http(directory: Path) -> AsyncIterator[HttpClient]:
    """The same server behind HTTP on a unix socket."""
    async with serve_in_process(directory) as served:
        server = ApiServer(
            served, node_view=None, ready=lambda: None, metrics=one_metric, version="0"
        )
        socket_path = str(directory / "api.sock")
        await server.start_unix(socket_path)
        async with HttpClient(f"unix://{socket_path}") as client:
            yield client
        await server.close()


@pytest.fixture(params=[serve_in_process, serve_over_http], ids=["in-process", "http"])
async def client(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Client]:
    async with request.param(tmp_path) as served:
        yield served
