"""The HTTP server: from a request to an answer, with one boundary for everything that goes wrong.

One handler for all paths, split by hand, on aiohttp's low-level server. Order of work: (1) who is
it, (2) what do they want, (3) may they, (4) do it. Whatever fails is answered with a `Status`; an
exception nobody classified is logged with its trace and answered with 500 without it.

Listening sockets are closed by `close`, which also ends the watches; requests under way may finish
within `DRAIN_S`. Everything runs in one event loop's thread.
"""

import asyncio
import os
import socket
import ssl
import traceback
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import cast

from aiohttp import web

from volagent.api.auth import TokenAuthenticator, User, forbid
from volagent.api.authority import Authority
from volagent.api.backups import Backups
from volagent.api.connection import Connection, HttpServer
from volagent.api.decode import decode_value, media_type, read_body
from volagent.api.discovery import discovery_documents, version_document
from volagent.api.joining import Joining
from volagent.api.kubeconfig import describe_kubeconfig
from volagent.api.listen import BACKLOG, ListenError, bind_unix
from volagent.api.nodeview import AttachmentView, NodeView, PlacementView
from volagent.api.openapi.document import openapi_document
from volagent.api.own_paths import NODE_GROUP, OwnPaths
from volagent.api.peer import ACCESS_GROUP, identify_peer
from volagent.api.query import Query, parse_query
from volagent.api.rbac import Authorizer
from volagent.api.responses import json_response, status_response, text_response
from volagent.api.reviews import AUTHENTICATION, AUTHORIZATION, Reviews
from volagent.api.routes import Target, find_target, split_path
from volagent.api.serving import ServedClient
from volagent.api.tls import (
    identify_certificate,
    keep_connections_small,
    load_certificate,
    make_server_context,
)
from volagent.api.trashview import TrashView
from volagent.api.verbs import APPLY_PATCH, MAY_NOT_CREATE, Verbs
from volagent.api.watchstream import WatchStreams
from volagent.client.contract import (
    ROLES,
    ApiError,
    Forbidden,
    MethodNotAllowed,
    NotFound,
    Unauthorized,
)
from volagent.objects.meta import Document
from volagent.objects.rbac import Action
from volagent.observe.logs import get_logger

SOCKET_MODE = 0o666
"""Everybody may connect, so that everybody is told by name what they lack; the kernel says who it
is (as D-Bus does). 0660 makes it a bare "permission denied"."""
DRAIN_S = 5.0

_HEALTH_PATHS = frozenset({"healthz", "livez", "readyz"})
_PREFIX_PARTS = {"api": 2, "apis": 3}
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_REVIEW_GROUPS = (AUTHORIZATION, AUTHENTICATION)
_log = get_logger("api")


@dataclass(frozen=True, slots=True)
class Beside:
    """What a server may have beside its objects."""

    trash: TrashView | None = None
    authorizer: Authorizer | None = None
    """None: only members of system:masters may do anything."""
    placement: PlacementView | None = None
    attachments: AttachmentView | None = None
    authority: Authority | None = None
    """Who made the server's certificate; None: somebody else."""
    make_joining: Callable[[Callable[[], str]], Joining | None] = lambda _address: None
    """What lets machines join, given where this server is reached."""
    backups: Backups | None = None


class ApiServer:
    """Serves a `Client` over HTTP.

    `ready` gives the reason why the daemon is not ready, or None once it is; `metrics` the text of
    `/metrics`; `version` is volagent's own. `authenticators` know bearer tokens.
    """

    def __init__(
        self,
        client: ServedClient,
        *,
        node_view: NodeView | None,
        ready: Callable[[], str | None],
        metrics: Callable[[], Awaitable[bytes]],
        version: str,
        authenticators: Sequence[TokenAuthenticator] = (),
        beside: Beside = Beside(),  # a frozen value
    ) -> None:
        self._watches = WatchStreams(client)
        self._verbs = Verbs(client, self._watches)
        self._own_paths = OwnPaths(
            node_view, beside.placement, beside.attachments, beside.trash,
            self._describe_kubeconfig,
            beside.make_joining(lambda: self._tls_address),
            beside.backups,
        )  # fmt: skip
        self._authorizer = authorizer = beside.authorizer
        self._authority = beside.authority
        self._reviews = None if authorizer is None else Reviews(authorizer, self.identify_token)
        self._ready = ready
        self._metrics = metrics
        self._authenticators = tuple(authenticators)
        self._documents = discovery_documents() | {"/version": version_document(version)}
        self._http: HttpServer | None = None
        self._listeners: list[asyncio.Server] = []
        self._socket_paths: list[str] = []
        self._certificates: list[tuple[ssl.SSLContext, str, str]] = []
        self._access_group = ACCESS_GROUP
        self._tls_address = ""

    @property
    def watch_count(self) -> int:
        """How many watches are being served."""
        return self._watches.count

    async def start_unix(
        self, path: str, mode: int = SOCKET_MODE, group: str = ACCESS_GROUP
    ) -> None:
        """Listen on a unix socket; root and the members of `group` may do everything.

        Raises `ListenError`.
        """
        self._access_group = group
        loop = asyncio.get_running_loop()
        listener = bind_unix(path, mode, group)
        self._listeners.append(
            await loop.create_unix_server(self._server(), sock=listener, backlog=BACKLOG)
        )
        self._socket_paths.append(path)

    async def start_tls(
        self, host: str, port: int, certificate: str, key: str, client_ca: str = ""
    ) -> int:
        """Listen on a TCP port with TLS; the port, which matters when 0 was asked for.

        Raises `ListenError`, `TlsError`.
        """
        keep_connections_small()
        context = make_server_context(certificate, key, client_ca)
        self._certificates.append((context, certificate, key))
        loop = asyncio.get_running_loop()
        try:
            server = await loop.create_server(
                self._server(), host, port, ssl=context, backlog=BACKLOG
            )
        except OSError as error:
            raise ListenError(f"cannot listen on https://{host}:{port}: {error}") from error
        self._listeners.append(server)
        reached = "127.0.0.1" if host in ("0.0.0.0", "::", "") else host
        shown = f"[{reached}]" if ":" in reached else reached
        self._tls_address = f"https://{shown}:{server.sockets[0].getsockname()[1]}"
        return int(server.sockets[0].getsockname()[1])

    def reload_certificates(self) -> None:
        """Read the certificates again, for connections to come. Raises `TlsError`."""
        for context, certificate, key in self._certificates:
            load_certificate(context, certificate, key)

    async def close(self) -> None:
        """Stop listening, end watches, let the other requests finish. Idempotent."""
        paths, self._socket_paths = self._socket_paths, []
        for path in paths:
            _remove(path)  # while we still listen: later it could be a successor's
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener.close()
        self._watches.close()
        http, self._http = self._http, None
        if http is not None:
            http.pre_shutdown()
            await http.shutdown(DRAIN_S)

    def _server(self) -> HttpServer:
        if self._http is None:
            self._http = HttpServer(self._handle)
        return self._http

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self._answer(request)
        except ApiError as error:
            return status_response(error)
        except ConnectionError:
            raise  # the client is gone: nobody to answer
        except Exception as error:  # noqa: BLE001  # boundary: a bug must not show its trace
            _log.error(
                "request failed",
                method=request.method,
                path=request.raw_path,
                error=repr(error),
                trace=traceback.format_exc(),
            )
            return status_response(
                ApiError("an error in the server; its log has the details, keyed by this path")
            )

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        path, _, query_text = request.raw_path.partition("?")
        parts = split_path(path)
        if parts[0] in _HEALTH_PATHS:
            return self._answer_health(parts)
        if parts == ["cacert"] and self._authority is not None:
            return text_response(self._authority.certificate.decode())
        user = await self._identify(request)  # (1)
        if len(parts) > _PREFIX_PARTS.get(parts[0], len(parts)):
            if parts[1] == NODE_GROUP:
                return await self._own_paths.answer(request, parts, user)
            if parts[1] in _REVIEW_GROUPS and self._reviews is not None:
                return await self._answer_review(request, parts, user)
            target = find_target(parts)  # (2)
            query = parse_query(query_text)
            if not user.is_admin:  # (3)
                await self._authorize(user, request, target, query)
            return await self._verbs.answer(request, target, query)  # (4)
        if parts == ["metrics"]:
            return await self._answer_metrics(user)
        return self._answer_document(request, parts)

    async def _authorize(
        self, user: User, request: web.BaseRequest, target: Target, query: Query
    ) -> None:
        """Raises `Forbidden`."""
        resource = target.resource
        verb = verb_of(request.method, target, query)
        name = f"{resource.plural}/{target.subresource}" if target.subresource else resource.plural
        action = Action(verb, resource.group, name, target.namespace, target.name)
        if self._authorizer is None or not self._authorizer.may(user, action, query.field_selector):
            raise _forbid_target(user, verb, target)
        if request.method == "POST" and not target.subresource:
            body = decode_value(await read_body(request), media_type(request))
            if isinstance(body, dict):
                self._authorizer.check_new(user, resource, body)
        if request.method == "PATCH" and media_type(request) == APPLY_PATCH:
            create = Action("create", resource.group, name, target.namespace, target.name)
            if not self._authorizer.may(user, create):
                request[MAY_NOT_CREATE] = True
        if resource.group == ROLES.group and request.method in ("POST", "PUT"):
            body = decode_value(await read_body(request), media_type(request))
            if isinstance(body, dict):
                namespace = {"namespace": target.namespace} if target.namespace else {}
                body["metadata"] = {**(body.get("metadata") or {}), **namespace}
                self._authorizer.check_escalation(user, resource, body)
        elif resource.group == ROLES.group and request.method == "PATCH":
            escalate = Action("escalate", resource.group, resource.plural, target.namespace)
            if not self._authorizer.may(user, escalate):
                raise forbid(user, "patch", f"{resource.plural}: use PUT, so that it can be checked"
                             " that it gives away nothing that the user does not have")  # fmt: skip

    async def _answer_review(
        self, request: web.BaseRequest, parts: list[str], user: User
    ) -> web.Response:
        assert self._reviews is not None
        if request.method != "POST":
            raise MethodNotAllowed("the server does not allow this method on this path")
        body = decode_value(await read_body(request), media_type(request))
        return json_response(await self._reviews.answer(user, parts, body), 201)

    async def identify_token(self, token: str) -> User | None:
        """Whose a bearer token is; None for one that nobody knows. Raises `Unauthorized`."""
        for authenticator in self._authenticators:
            user = await authenticator.identify(token)
            if user is not None:
                return user
        return None

    async def _identify(self, request: web.BaseRequest) -> User:
        connection = cast(Connection, request.protocol)
        if connection.caller is not None:
            return connection.caller
        transport = connection.transport
        if transport is None:
            raise ConnectionResetError("the client is gone")
        peer = transport.get_extra_info("socket")
        if peer.family == socket.AF_UNIX:
            connection.caller = identify_peer(peer, self._access_group)
            return connection.caller
        return await self._identify_remote(request, transport)

    async def _identify_remote(
        self, request: web.BaseRequest, transport: asyncio.BaseTransport
    ) -> User:
        given = request.headers.get("Authorization")
        if given is not None:
            scheme, _, token = given.partition(" ")
            if scheme.lower() == "bearer" and token:
                user = await self.identify_token(token.strip())
                if user is not None:
                    return user
            raise Unauthorized("Unauthorized: the token is not known or has expired")
        user = identify_certificate(transport.get_extra_info("peercert"))
        if user is None:
            raise Unauthorized("Unauthorized: send a bearer token or a client certificate")
        return user

    def _answer_health(self, parts: list[str]) -> web.Response:
        reason = self._ready() if parts[0] == "readyz" else None
        if reason is None:
            return text_response("ok")
        return text_response(f"not ready: {reason}\n", 503)

    async def _answer_metrics(self, user: User) -> web.Response:
        if not user.is_admin:
            raise forbid(user, "get", "path /metrics")
        return web.Response(
            body=await self._metrics(), headers={"Content-Type": "text/plain; version=0.0.4"}
        )

    def _answer_document(self, request: web.BaseRequest, parts: list[str]) -> web.Response:
        path = "/" + "/".join(parts)
        document = self._documents.get(path) or openapi_document(path)
        if document is None:
            raise NotFound("the server could not find the requested resource")
        if request.method not in ("GET", "HEAD"):
            raise MethodNotAllowed("the server does not allow this method on this path")
        return json_response(document)

    def _describe_kubeconfig(self, asked: str) -> Document:
        address = asked or self._tls_address
        return describe_kubeconfig(self._authority, address, "volagent-admin")


def verb_of(method: str, target: Target, query: Query) -> str:
    """The verb of a request, as rules name it."""
    if method == "DELETE" and not target.name:
        return "deletecollection"
    return _VERBS.get(method, "get" if target.name else "watch" if query.watch else "list")


def _forbid_target(user: User, verb: str, target: Target) -> ApiError:
    resource = target.resource
    place = (
        f' in the namespace "{target.namespace}"' if target.namespace else " at the cluster scope"
    )
    group = f".{resource.group}" if resource.group else ""
    name = f' "{target.name}"' if target.name else ""
    hint = f": {user.hint}" if user.hint else ""
    part = f"/{target.subresource}" if target.subresource else ""
    return Forbidden(
        f'{resource.plural}{group}{name} is forbidden: User "{user.name}" cannot {verb} resource'
        f' "{resource.plural}{part}" in API group "{resource.group}"{place}{hint}',
        details={"name": target.name, "group": resource.group, "kind": resource.plural},
    )


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
