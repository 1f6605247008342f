"""In between a store and etcd: passes requests on, and loses what a test wants lost."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import aiohttp
from aiohttp import web

Between = Callable[[], Awaitable[None]]


async def _nothing() -> None:
    return


class LossyEtcd:
    """Where a store connects to; use as an async context manager."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self.lost_answers = 0
        """So many writes are carried out, and their answers are lost."""
        self.lost_requests = 0
        """So many writes never arrive."""
        self.between: Between = _nothing
        """Called after a write whose answer will be lost was carried out."""
        self.watching = True
        """False: watches are cut off, and none begins."""
        self._watches: dict[asyncio.Task[None], web.BaseRequest] = {}
        self.url = ""

    async def __aenter__(self) -> "LossyEtcd":
        self._session = aiohttp.ClientSession()
        self._runner = web.ServerRunner(web.Server(self._serve), shutdown_timeout=0.2)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cut_watches()
        await self._runner.cleanup()
        await self._session.close()
        await asyncio.sleep(0)

    def cut_watches(self) -> None:
        """End those that run."""
        self.watching = False
        for task, request in tuple(self._watches.items()):
            _hang_up(request)
            task.cancel()

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        url = self._endpoint + request.path
        if request.path == "/v3/watch":
            return await self._watch(request, url, body)
        is_write = request.path == "/v3/kv/txn"
        if is_write and self.lost_requests > 0:
            self.lost_requests -= 1
            _hang_up(request)
            return web.Response()
        async with self._session.post(url, data=body) as answer:
            text = await answer.read()
            status = answer.status
        if is_write and self.lost_answers > 0:
            self.lost_answers -= 1
            await self.between()
            _hang_up(request)
        return web.Response(body=text, status=status)

    async def _watch(self, request: web.BaseRequest, url: str, body: bytes) -> web.StreamResponse:
        response = web.StreamResponse()
        if not self.watching:
            _hang_up(request)
            return response
        await response.prepare(request)
        task = asyncio.ensure_future(self._pass_on(response, url, body))
        self._watches[task] = request
        await asyncio.wait([task])
        self._watches.pop(task, None)
        return response

    async def _pass_on(self, response: web.StreamResponse, url: str, body: bytes) -> None:
        endless = aiohttp.ClientTimeout(total=None)
        with suppress(aiohttp.ClientError, ConnectionError):
            async with self._session.post(url, data=body, timeout=endless) as answer:
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)


def _hang_up(request: web.BaseRequest) -> None:
    if request.transport is not None:
        request.transport.abort()
