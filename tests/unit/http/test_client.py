"""The HTTP client: what goes wrong becomes the error that its caller can act upon."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from tests.unit.http.world import World, make_pod
from volagent.client.contract import (
    CONFIG_MAPS,
    PODS,
    AlreadyExists,
    ApiError,
    BadRequest,
    Conflict,
    Gone,
    Invalid,
    Unavailable,
)
from volagent.client.http import HttpClient
from volagent.client.http_errors import error_from_status

Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
Serve = Callable[[Answer], Awaitable[HttpClient]]


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Serve]:
    """Starts a server that answers everything in one way; gives a client of it."""
    runners: list[web.ServerRunner] = []
    clients: list[HttpClient] = []

    async def start(answer: Answer) -> HttpClient:
        runner = web.ServerRunner(web.Server(answer))
        await runner.setup()
        runners.append(runner)
        path = str(tmp_path / f"{len(runners)}.sock")
        await web.UnixSite(runner, path).start()
        clients.append(HttpClient(f"unix://{path}"))
        return clients[-1]

    yield start
    for client in clients:
        await client.close()
    for runner in runners:
        await runner.cleanup()


async def follow(client: HttpClient, seen: list[tuple[str, object]]) -> None:
    async for batch in client.watch(PODS, resource_version="1"):
        seen += [(event.type, event.object) for event in batch]


@pytest.mark.parametrize(
    ("reason", "code", "kind"),
    [
        ("AlreadyExists", 409, AlreadyExists),
        ("Conflict", 409, Conflict),
        ("", 409, Conflict),
        ("Expired", 410, Gone),
        ("Gone", 410, Gone),
        ("Invalid", 422, Invalid),
        ("ServiceUnavailable", 503, Unavailable),
    ],
)
def test_status_becomes_its_error(reason: str, code: int, kind: type[ApiError]) -> None:
    error = error_from_status({"reason": reason, "code": code, "message": "m", "details": {"a": 1}})
    assert (type(error), error.message, error.details) == (kind, "m", {"a": 1})


def test_status_keeps_its_code_when_nobody_knows_it() -> None:
    error = error_from_status({"reason": "TooManyRequests", "code": 429})
    assert (type(error), error.status["code"], error.status["reason"]) == (
        ApiError, 429, "TooManyRequests",
    )  # fmt: skip


async def test_causes_arrive_when_an_object_is_invalid(http_client: HttpClient) -> None:
    with pytest.raises(Invalid) as caught:
        await http_client.create(PODS, make_pod(volumes=[{"name": "A"}]), "default")
    assert caught.value.details["causes"][0]["field"] == "spec.volumes[0].name"


async def test_server_is_unavailable_when_nobody_listens(tmp_path: Path) -> None:
    async with HttpClient(f"unix://{tmp_path}/none") as client:
        with pytest.raises(Unavailable):
            await client.list(PODS)
        with pytest.raises(Unavailable):
            await follow(client, [])


async def test_error_has_the_text_when_the_answer_is_no_status(serve: Serve) -> None:
    async def answer(_request: web.BaseRequest) -> web.Response:
        return web.Response(status=502, text="<h1>bad gateway</h1>")

    client = await serve(answer)
    with pytest.raises(ApiError, match="502: <h1>bad gateway") as caught:
        await client.get(PODS, "a", "b")
    assert caught.value.code == 502


async def test_server_is_unavailable_when_it_answers_with_no_json(serve: Serve) -> None:
    async def answer(_request: web.BaseRequest) -> web.Response:
        return web.Response(text="hello")

    client = await serve(answer)
    with pytest.raises(Unavailable, match="not JSON"):
        await client.get(PODS, "a", "b")


async def test_watch_reads_lines_that_arrive_in_pieces_and_breaks_with_them(serve: Serve) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for piece in (b'{"type":"ADDED","obj', b'ect":{"a":1}}\n{"type":', b'"X","object":{}}\n'):
            await response.write(piece)
        assert request.transport is not None
        request.transport.abort()
        return response

    client = await serve(answer)
    seen: list[tuple[str, object]] = []
    with pytest.raises(Unavailable):
        await follow(client, seen)
    assert seen == [("ADDED", {"a": 1}), ("X", {})]


async def test_watch_is_gone_when_it_says_so_in_an_event(serve: Serve) -> None:
    async def answer(_request: web.BaseRequest) -> web.Response:
        line = b'{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired"}}\n'
        return web.Response(body=line)

    client = await serve(answer)
    with pytest.raises(Gone):
        await follow(client, [])


async def test_watch_ends_when_the_server_ends_it(world: World, http_client: HttpClient) -> None:
    await world.client.create(CONFIG_MAPS, {"metadata": {"name": "a"}}, "default")
    async for batch in http_client.watch(CONFIG_MAPS, resource_version="0"):
        assert [event.object["metadata"]["name"] for event in batch] == ["a"]
        await world.server.close()


async def test_update_is_refused_when_the_object_has_no_name(http_client: HttpClient) -> None:
    with pytest.raises(BadRequest, match=r"metadata\.name"):
        await http_client.update(PODS, {"metadata": {}}, "default")


async def test_name_stays_one_part_of_the_path_when_it_has_slashes(serve: Serve) -> None:
    paths = []

    async def answer(request: web.BaseRequest) -> web.Response:
        paths.append(request.raw_path)
        return web.json_response({})

    client = await serve(answer)
    await client.get(PODS, "a/../b?c", "n s")
    assert paths == ["/api/v1/namespaces/n%20s/pods/a%2F..%2Fb%3Fc"]
