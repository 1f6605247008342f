"""The real API over a real store on a unix socket, in a thread of its own; no node behind it."""

import asyncio
import threading

import pytest

from tests.unit.http.world import one_metric
from volagent.aio.clock import SystemClock
from volagent.api.admission import Admission
from volagent.api.inprocess import InProcessClient
from volagent.api.server import ApiServer
from volagent.cli.main import run_command
from volagent.store.sqlite import open_store


async def _serve(tmp_path, path, started, stop):
    store = open_store(tmp_path / "state")
    client = InProcessClient(
        store, Admission(), SystemClock(), token_key=b"k" * 32, default_node_name="vm-1"
    )
    await client.housekeeping.bootstrap()
    server = ApiServer(
        client, node_view=None, ready=lambda: None, metrics=one_metric, version="0.1.0"
    )
    await server.start_unix(path)
    started.set()
    await asyncio.to_thread(stop.wait)
    await server.close()
    await store.close()


@pytest.fixture
def socket_path(tmp_path):
    path = str(tmp_path / "s")
    started, stop = threading.Event(), threading.Event()
    thread = threading.Thread(target=asyncio.run, args=(_serve(tmp_path, path, started, stop),))
    thread.start()
    assert started.wait(10)
    yield path
    stop.set()
    thread.join()


@pytest.fixture
def call(socket_path, capsys, monkeypatch):
    """`call("get", "pods")` → (exit code, standard output, standard error)."""
    monkeypatch.setenv("VOLAGENT_SOCKET", socket_path)

    def run(*arguments):
        code = run_command([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
