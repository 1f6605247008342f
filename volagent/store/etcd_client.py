"""Calls to an etcd cluster, over its JSON gateway: one attempt each, with a deadline.

An attempt that gets no clear answer is `Silent`: it may have been carried out, or may still be. The
next attempt then goes to another member. Nothing is repeated here: who asks knows what may be
asked twice. Only `read` repeats, since reading changes nothing.

For one event loop's thread; create and close inside it.
"""

import asyncio
import ssl
from collections.abc import AsyncGenerator, Sequence
from typing import TypeVar

import aiohttp
import msgspec

from volagent.aio.backoff import BackOff
from volagent.store import etcd_wire as wire
from volagent.store.contract import Compacted, NoSpace, StoreError, Unreachable
from volagent.store.etcd_wire import Request

ATTEMPT_S = 2.0
"""What a member has for one answer; an election of etcd's own takes about one."""
CONNECT_S = 1.0
READ_S = 8.0
"""So long a read is tried, with one member after another."""
RETRY = BackOff(first_s=0.05, max_s=0.5)
CALLS_AT_ONCE = 64
"""More calls wait until one of these is answered."""

_RESOURCE_EXHAUSTED, _OUT_OF_RANGE, _INVALID, _NOT_FOUND = 8, 11, 3, 5
_REFUSED = frozenset({_INVALID, 7, 12, 16})  # permission denied, unimplemented, unauthenticated
_ENCODER = msgspec.json.Encoder()

T = TypeVar("T")


class Silent(StoreError):
    """No clear answer: what was asked for may or may not have happened."""


class Unsent(Silent):
    """No connection: this attempt cannot have happened."""


class Absent(StoreError):
    """What was named is not there: a lease that is over."""


class EtcdClient:
    """Speaks to whichever member answers."""

    def __init__(self, endpoints: Sequence[str], tls: ssl.SSLContext | None) -> None:
        """`endpoints` are `https://host:port`, or `http://`, without a final slash."""
        self.endpoints = tuple(endpoints)
        self._at = 0
        self._slots = asyncio.Semaphore(CALLS_AT_ONCE)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=tls if tls is not None else True, limit=0),
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    @property
    def endpoint(self) -> str:
        """The member that is asked next."""
        return self.endpoints[self._at]

    def leave(self, endpoint: str) -> None:
        """Ask another member from now on, if it is still this one that is asked."""
        if self.endpoint == endpoint:
            self._at = (self._at + 1) % len(self.endpoints)

    async def attempt(
        self, path: str, request: Request, answer: type[T], *, at: str = "", within_s: float = 0.0
    ) -> T:
        """One call. Raises `Silent`, `NoSpace`, `Compacted`, `Absent`, other `StoreError`."""
        async with self._slots:
            endpoint = at or self.endpoint
            try:
                return await self._call(endpoint, path, request, answer, within_s)
            except Silent:
                if not at:
                    self.leave(endpoint)
                raise

    async def _call(
        self, endpoint: str, path: str, request: Request, answer: type[T], within_s: float
    ) -> T:
        limit = aiohttp.ClientTimeout(total=within_s or ATTEMPT_S, sock_connect=CONNECT_S)
        try:
            async with self._session.post(
                f"{endpoint}/v3/{path}", data=_ENCODER.encode(request), timeout=limit
            ) as response:
                body = await response.read()
                status = response.status
            if status == 200:
                return msgspec.json.decode(body, type=answer, strict=False)
        except aiohttp.ClientConnectorError as failure:
            raise Unsent(f"{endpoint}: {failure}") from failure
        except (aiohttp.ClientError, TimeoutError, OSError) as failure:
            raise Silent(f"{endpoint}: {str(failure) or 'no answer in time'}") from failure
        except msgspec.MsgspecError as failure:
            raise Silent(f"{endpoint}: not etcd's answer: {failure}") from failure
        raise _explain(status, body)

    async def read(self, request: Request) -> wire.Range:
        """A linearizable read, of whichever member answers first. Raises `Unreachable`."""
        return await self.insist("kv/range", request, wire.Range)

    async def insist(self, path: str, request: Request, answer: type[T]) -> T:
        """A call that may be repeated without harm, until it is answered. Raises `Unreachable`."""
        failures, error = 0, Silent("")
        try:
            async with asyncio.timeout(READ_S):
                while True:
                    try:
                        return await self.attempt(path, request, answer)
                    except Silent as silence:
                        failures, error = failures + 1, silence
                    await asyncio.sleep(RETRY.delay_s(failures, 0.5))
        except TimeoutError:
            raise Unreachable(f"etcd does not answer: {error}") from error

    async def stream(self, path: str, request: Request, line: type[T]) -> AsyncGenerator[T]:
        """The lines of an answer that goes on. Raises `Silent` when it is cut off, `StoreError`."""
        endpoint = self.endpoint
        endless = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S)
        decoder = msgspec.json.Decoder(line, strict=False)
        try:
            async with self._session.post(
                f"{endpoint}/v3/{path}", data=_ENCODER.encode(request), timeout=endless
            ) as response:
                if response.status != 200:
                    raise _explain(response.status, await response.read())
                rest = bytearray()
                async for chunk in response.content.iter_any():
                    rest += chunk
                    if b"\n" in chunk:
                        *lines, rest = rest.split(b"\n")
                        for each in lines:
                            yield decoder.decode(each)
        except (aiohttp.ClientError, TimeoutError, OSError, msgspec.MsgspecError) as error:
            self.leave(endpoint)
            raise Silent(f"{endpoint}: {str(error) or 'no answer in time'}") from error
        except Silent:
            self.leave(endpoint)
            raise


def make_tls(ca: str, certificate: str, key: str) -> ssl.SSLContext:
    """TLS to etcd. Raises `OSError`, `ssl.SSLError`."""
    context = ssl.create_default_context(cafile=ca or None)
    if certificate:
        context.load_cert_chain(certificate, key or None)
    return context


def _explain(status: int, body: bytes) -> StoreError:
    try:
        failure = msgspec.json.decode(body, type=wire.Failure, strict=False)
    except msgspec.MsgspecError:
        return Silent(f"etcd answered {status}: {body[:200].decode(errors='replace').strip()}")
    return explain(failure)


def explain(failure: wire.Failure) -> StoreError:
    """The error that a failure of etcd's means."""
    said = failure.error or failure.message
    code = failure.code or failure.grpc_code
    if code == _RESOURCE_EXHAUSTED and "space" in said:
        return NoSpace("etcd has reached its quota (--quota-backend-bytes)")
    if code == _OUT_OF_RANGE and "compacted" in said:
        return Compacted(said)
    if code == _NOT_FOUND:
        return Absent(said)
    if code in _REFUSED:
        return StoreError(f"etcd refused: {said}")
    return Silent(said)
