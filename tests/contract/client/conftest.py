"""The clients under test: each sees a server of its own, empty but for what every server has."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from volagent.aio.clock import SystemClock
from volagent.aio.tasks import Supervisor
from volagent.api.admission import Admission
from volagent.api.inprocess import InProcessClient
from volagent.client.contract import Client
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


@pytest.fixture(params=["in-process"])
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with serve_in_process(tmp_path) as served:
        yield served
