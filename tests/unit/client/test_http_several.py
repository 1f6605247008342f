"""A client of several servers asks one that answers."""

import asyncio
from contextlib import suppress

import pytest
from aiohttp import web

from tests.etcd_server import free_ports
from volagent.client.contract import CONFIG_MAPS, Unavailable
from volagent.client.http import HttpClient


class FakeServer:
    """Answers every GET with its name, or with 503; watches never end by themselves."""

    def __init__(self, name):
        self.name = name
        self.asked = 0
        self.available = True
        self.watches = 0

    async def __aenter__(self):
        self._runner = web.ServerRunner(web.Server(self._serve), shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_):
        await self._runner.cleanup()

    async def _serve(self, request):
        self.asked += 1
        if not self.available:
            return web.json_response({"kind": "Status", "code": 503, "message": "no"}, status=503)
        if "watch" not in request.query:
            return web.json_response({"metadata": {"name": self.name}})
        self.watches += 1
        response = web.StreamResponse()
        await response.prepare(request)
        line = '{"type": "ADDED", "object": {"metadata": {"name": "x"}}}\n'
        with suppress(ConnectionError):
            await response.write(line.encode())
            while request.transport is not None:
                await asyncio.sleep(0.01)
        return response


@pytest.fixture
async def servers():
    async with FakeServer("one") as one, FakeServer("two") as two:
        yield one, two


async def name_of_answer(client):
    return (await client.get(CONFIG_MAPS, "x", "default"))["metadata"]["name"]


async def test_first_server_is_asked_as_long_as_it_answers(servers):
    one, two = servers
    async with HttpClient([one.url, two.url]) as client:
        assert [await name_of_answer(client) for _ in range(3)] == ["one"] * 3
    assert two.asked == 0


async def test_server_without_a_connection_is_passed_over_at_once(servers):
    one, _ = servers
    gone = f"http://127.0.0.1:{free_ports(1)[0]}"
    async with HttpClient([gone, one.url]) as client:
        assert await name_of_answer(client) == "one"


async def test_error_says_so_when_no_server_has_a_connection():
    gone = [f"http://127.0.0.1:{port}" for port in free_ports(2)]
    async with HttpClient(gone) as client:
        with pytest.raises(Unavailable, match="cannot be reached"):
            await name_of_answer(client)


async def test_next_server_is_asked_when_one_says_that_it_is_unavailable(servers):
    one, two = servers
    one.available = False
    async with HttpClient([one.url, two.url]) as client:
        with pytest.raises(Unavailable):
            await name_of_answer(client)
        assert await name_of_answer(client) == "two"


async def test_watch_ends_when_its_server_is_left(servers):
    one, two = servers
    async with HttpClient([one.url, two.url]) as client:
        changes = client.watch(CONFIG_MAPS, resource_version="1")
        assert len(await anext(changes)) == 1
        one.available = False
        with pytest.raises(Unavailable):
            await name_of_answer(client)
        with pytest.raises((Unavailable, StopAsyncIteration)):
            await anext(changes)
        again = client.watch(CONFIG_MAPS, resource_version="1")
        assert len(await anext(again)) == 1
        await again.aclose()
    assert (one.watches, two.watches) == (1, 1)
