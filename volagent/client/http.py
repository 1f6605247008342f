"""A `Client` over HTTP: volagent's API on a unix socket or TLS, or any Kubernetes API server.

Errors come back as the `ApiError` subclass that the server's `Status` means; what keeps an answer
from coming is `Unavailable`. A watch is one connection; when it breaks, whoever watches lists again
(see the informers). Nothing is retried here, except that a server to which there is no connection
is passed over for the next one. Create and close inside the event loop that uses it.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import aiohttp
import msgspec

from volagent.client.contract import (
    PODS,
    SERVICE_ACCOUNTS,
    WITH_STATUS,
    BadRequest,
    Listing,
    Resource,
    Selection,
    Unavailable,
    WatchEvent,
)
from volagent.client.http_errors import error_from_status, read_error
from volagent.objects.meta import Document

ANSWER_TIMEOUT_S = 60.0
CONNECT_TIMEOUT_S = 10.0
SLOW_S = 2.0
"""A caller that gives a request up after so long has another server asked from then on."""
UNAVAILABLE = 503
_DECODER = msgspec.json.Decoder()
_ENCODER = msgspec.json.Encoder()


class _Line(msgspec.Struct):
    """One line of a watch."""

    type: str
    object: Document


_LINE_DECODER = msgspec.json.Decoder(_Line)


class HttpClient:
    """Speaks to one server, or to one of several. An async context manager, or call `close`."""

    def __init__(
        self,
        server: str | Sequence[str],
        *,
        token: str = "",
        tls: ssl.SSLContext | None = None,
        answer_timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> None:
        """`server` is `unix:///path` or `https://address:port`, the latter also as several;
        `tls` as `make_client_context`."""
        servers = (server,) if isinstance(server, str) else tuple(server)
        self._bases = [each.rstrip("/") for each in servers]
        self._at = 0
        self._watches: set[aiohttp.ClientResponse] = set()
        connector: aiohttp.BaseConnector
        if servers[0].startswith("unix://"):
            connector = aiohttp.UnixConnector(servers[0].removeprefix("unix://"), limit=0)
            self._bases = ["http://volagent"]
        else:
            connector = aiohttp.TCPConnector(ssl=tls if tls is not None else True, limit=0)
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=answer_timeout_s, connect=CONNECT_TIMEOUT_S),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections. Idempotent."""
        await self._session.close()

    async def get(self, resource: Resource, name: str, namespace: str = "") -> Document:
        """One object. Raises `NotFound`."""
        return await self._ask("GET", _path(resource, namespace, name))

    async def list(
        self,
        resource: Resource,
        selection: Selection = Selection(),  # noqa: B008  # a frozen value
        *,
        resource_version: str = "",
        limit: int = 0,
        continue_token: str = "",
    ) -> Listing:
        """All objects that fit, at one revision."""
        query = _select(selection)
        if resource_version:
            query["resourceVersion"] = resource_version
        if limit:
            query["limit"] = str(limit)
        if continue_token:
            query["continue"] = continue_token
        answer = await self._ask("GET", _path(resource, selection.namespace), query)
        metadata = answer.get("metadata") or {}
        items = answer.get("items") or []
        for item in items:  # Kubernetes leaves these out inside a list
            item.setdefault("kind", resource.kind)
            item.setdefault("apiVersion", resource.api_version)
        return Listing(
            items,
            metadata.get("resourceVersion", ""),
            metadata.get("continue", ""),
            metadata.get("remainingItemCount"),
        )

    async def watch(
        self,
        resource: Resource,
        selection: Selection = Selection(),  # noqa: B008  # a frozen value
        *,
        resource_version: str,
        bookmarks: bool = False,
    ) -> AsyncIterator[Sequence[WatchEvent]]:
        """Changes after a revision, as the contract has it; ends when the server ends it."""
        query = _select(selection) | {"watch": "true", "resourceVersion": resource_version}
        if bookmarks:
            query["allowWatchBookmarks"] = "true"
        endless = aiohttp.ClientTimeout(total=None, connect=CONNECT_TIMEOUT_S)
        base = self._bases[self._at]
        url = base + _path(resource, selection.namespace)
        try:
            async with self._session.get(url, params=query, timeout=endless) as response:
                if response.status != 200:
                    self._leave_if_unavailable(base, response.status)
                    raise read_error(response.status, await response.read())
                self._watches.add(response)
                try:
                    rest = b""
                    async for chunk in response.content.iter_any():
                        *lines, rest = (rest + chunk).split(b"\n")
                        events = [_read_line(line) for line in lines if line]
                        if events:
                            yield events
                finally:
                    self._watches.discard(response)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._leave(base)
            raise _unavailable(error) from error

    async def issue_token(
        self, service_account: str, namespace: str, request: Document
    ) -> Document:
        """A service account token."""
        path = _path(SERVICE_ACCOUNTS, namespace, service_account, "token")
        return await self._ask("POST", path, body=request)

    async def bind_pod(
        self,
        name: str,
        namespace: str,
        node: str,
        *,
        uid: str = "",
        resource_version: str = "",
        dry_run: bool = False,
    ) -> None:
        """Give a pod its node, once."""
        metadata = {"name": name, "uid": uid, "resourceVersion": resource_version}
        binding: Document = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {field: value for field, value in metadata.items() if value},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        await self._ask("POST", _path(PODS, namespace, name, "binding"), _dry(dry_run), binding)

    async def redeclare_pod(self, name: str, namespace: str, *, uid: str) -> Document:
        """Declare a pod again whose node is lost, in one write."""
        body: Document = {"preconditions": {"uid": uid}}
        return await self._ask("POST", _path(PODS, namespace, name, "redeclare"), {}, body)

    async def create(
        self, resource: Resource, document: Document, namespace: str = "", *, dry_run: bool = False
    ) -> Document:
        """Store a new object."""
        return await self._ask("POST", _path(resource, namespace), _dry(dry_run), document)

    async def update(
        self,
        resource: Resource,
        document: Document,
        namespace: str = "",
        *,
        subresource: str = "",
        dry_run: bool = False,
    ) -> Document:
        """Replace an object."""
        name = (document.get("metadata") or {}).get("name")
        if not name or not isinstance(name, str):
            raise BadRequest("metadata.name: Required value: name is required for an update")
        path = _path(resource, namespace, name, subresource)
        return await self._ask("PUT", path, _dry(dry_run), document)

    async def patch(
        self,
        resource: Resource,
        name: str,
        patch: Any,
        namespace: str = "",
        *,
        content_type: str = "application/merge-patch+json",
        subresource: str = "",
        dry_run: bool = False,
    ) -> Document:
        """Change a part of an object."""
        if subresource == WITH_STATUS:
            status = patch.get("status")
            rest = {field: value for field, value in patch.items() if field != "status"}
            written = await self.patch(resource, name, rest, namespace, dry_run=dry_run)
            metadata = {"resourceVersion": written["metadata"]["resourceVersion"]}
            patch, subresource = {"metadata": metadata, "status": status}, "status"
        path = _path(resource, namespace, name, subresource)
        return await self._ask("PATCH", path, _dry(dry_run), patch, content_type)

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str = "",
        *,
        grace_period_seconds: int | None = None,
        uid: str = "",
        resource_version: str = "",
        dry_run: bool = False,
    ) -> Document:
        """Delete an object, or ask it to go."""
        options: Document = {"kind": "DeleteOptions", "apiVersion": "v1"}
        if grace_period_seconds is not None:
            options["gracePeriodSeconds"] = grace_period_seconds
        conditions = {"uid": uid, "resourceVersion": resource_version}
        if uid or resource_version:
            options["preconditions"] = {
                field: value for field, value in conditions.items() if value
            }
        if dry_run:
            options["dryRun"] = ["All"]
        return await self._ask("DELETE", _path(resource, namespace, name), body=options)

    async def ask(self, method: str, path: str, body: Any = None) -> Document:
        """A request for a path that names no resource; the answer's document."""
        return await self._ask(method, path, body=body)

    async def _ask(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
    ) -> Document:
        status, answer = await self._send(method, path, query, body, content_type)
        if status >= 400:
            raise read_error(status, answer)
        try:
            document: Document = _DECODER.decode(answer)
        except msgspec.DecodeError as error:
            raise Unavailable(f"the server's answer is not JSON: {error}") from error
        return document

    async def _send(
        self, method: str, path: str, query: dict[str, str] | None, body: Any, content_type: str
    ) -> tuple[int, bytes]:
        data = _ENCODER.encode(body) if body is not None else None
        headers = {"Content-Type": content_type} if data is not None else None
        clock = asyncio.get_running_loop().time
        for left in range(len(self._bases) - 1, -1, -1):
            base, began_s = self._bases[self._at], clock()
            try:
                async with self._session.request(
                    method, base + path, params=query, data=data, headers=headers
                ) as response:
                    answer = await response.read()
            except aiohttp.ClientConnectorError as error:
                self._leave(base)
                if not left:
                    raise _unavailable(error) from error
                continue  # it was not sent, so another server may be asked
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                self._leave(base)
                raise _unavailable(error) from error
            except asyncio.CancelledError:
                if clock() - began_s >= SLOW_S:
                    self._leave(base)
                raise
            self._leave_if_unavailable(base, response.status)
            return response.status, answer
        raise Unavailable("no server is known")

    def _leave_if_unavailable(self, base: str, status: int) -> None:
        if status == UNAVAILABLE:
            self._leave(base)

    def _leave(self, base: str) -> None:
        """Ask the next server from now on; what is watched at this one is watched there, too."""
        if len(self._bases) > 1 and self._bases[self._at] == base:
            self._at = (self._at + 1) % len(self._bases)
            for response in tuple(self._watches):
                response.close()


def make_client_context(ca_file: str = "", certificate: str = "", key: str = "") -> ssl.SSLContext:
    """TLS that trusts `ca_file` (PEM; "" for the system's), with a client certificate if given."""
    context = ssl.create_default_context(cafile=ca_file or None)
    if certificate:
        context.load_cert_chain(certificate, key or None)
    return context


def _path(resource: Resource, namespace: str, name: str = "", subresource: str = "") -> str:
    root = f"/apis/{resource.group}/{resource.version}" if resource.group else "/api/v1"
    place = f"/namespaces/{quote(namespace, safe='')}" if namespace and resource.namespaced else ""
    path = f"{root}{place}/{resource.plural}"
    if name:
        path = f"{path}/{quote(name, safe='')}"
    return f"{path}/{subresource}" if subresource else path


def _select(selection: Selection) -> dict[str, str]:
    query = {
        "labelSelector": selection.label_selector,
        "fieldSelector": selection.field_selector,
    }
    return {name: text for name, text in query.items() if text}


def _dry(dry_run: bool) -> dict[str, str] | None:
    return {"dryRun": "All"} if dry_run else None


def _read_line(line: bytes) -> WatchEvent:
    try:
        event = _LINE_DECODER.decode(line)
    except msgspec.MsgspecError as error:
        raise Unavailable(f"the watch sent what is no event: {error}") from error
    if event.type == "ERROR":
        raise error_from_status(event.object)
    return WatchEvent(event.type, event.object)


def _unavailable(error: BaseException) -> Unavailable:
    if isinstance(error, asyncio.TimeoutError):
        return Unavailable("the server did not answer in time")
    return Unavailable(f"the server cannot be reached: {error}")
