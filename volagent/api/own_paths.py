"""The paths of `node.volagent.dev`: what the command line asks beside objects, and how
machines join. Administrators only, but for joining.

Each answer comes from views of the same process; a part that does not run here answers 404.
"""

from collections.abc import Callable

from aiohttp import web

from volagent.api.admission import Admission
from volagent.api.auth import User, forbid
from volagent.api.backups import Backups
from volagent.api.decode import decode_document, decode_value, media_type, read_body
from volagent.api.joining import Joining
from volagent.api.nodeview import AttachmentView, NodeView, PlacementView
from volagent.api.responses import json_response
from volagent.api.routes import Target
from volagent.api.trashview import TrashView
from volagent.client.contract import PODS, BadRequest, NotFound
from volagent.objects.meta import Document

NODE_GROUP = "node.volagent.dev"
BACKUP = "application/jsonl"
_JOINING = (["v1", "token"], ["v1", "certificate"])


class OwnPaths:
    """Answers them."""

    def __init__(
        self,
        node: NodeView | None,
        placement: PlacementView | None,
        attachments: AttachmentView | None,
        trash: TrashView | None,
        describe_kubeconfig: Callable[[str], Document],
        joining: Joining | None = None,
        backups: Backups | None = None,
    ) -> None:
        """`describe_kubeconfig` is given the server's address as asked for, or ""."""
        self._joining = joining
        self._backups = backups
        self._node = node
        self._placement = placement
        self._attachments = attachments
        self._trash = trash
        self._describe_kubeconfig = describe_kubeconfig

    async def answer(self, request: web.BaseRequest, parts: list[str], user: User) -> web.Response:
        """`parts` is the path's, from `apis` on. Raises `ApiError`."""
        method, asked = request.method, parts[2:]
        if asked in _JOINING and method == "POST":
            if self._joining is None:
                raise NotFound("this server certifies no nodes: it needs --listen https://...")
            body = decode_value(await read_body(request), "application/json")
            return json_response(await self._joining.answer(user, asked, body), 201)
        if not user.is_admin:
            raise forbid(user, "get", f"path {request.path}")
        match asked:
            case ["v1", "trash", *rest] if self._trash is not None:
                return await _answer_trash(self._trash, request, rest)
            case ["v1", "kubeconfig"] if method == "GET":
                return json_response(self._describe_kubeconfig(request.query.get("server") or ""))
            case ["v1", "backup"] if method == "GET" and self._backups is not None:
                return web.Response(body=await self._backups.take(), content_type=BACKUP)
            case ["v1", "explain", "namespaces", namespace, "pods", name] if method == "GET":
                return json_response(self._explain(namespace, name))
        if self._node is None:
            raise NotFound("this server runs no node agent")
        return await _answer_node(self._node, request, asked)

    def _explain(self, namespace: str, name: str) -> Document:
        """By who knows most: the scheduler before there is a node, the node when it is here."""
        found = self._placement and self._placement.explain(namespace, name)
        found = found or self._explain_here(namespace, name)
        if not found and self._attachments is not None:
            found = self._attachments.explain(namespace, name)
        if not found:
            raise NotFound(f'pods "{name}" not found')
        return found

    def _explain_here(self, namespace: str, name: str) -> Document | None:
        """By the node of this process; None for pods of others, where others can be asked."""
        if self._node is None:
            return None
        try:
            found = self._node.explain(namespace, name)
        except NotFound:
            if self._attachments is None:
                raise
            return None
        if self._attachments is not None:
            self._attachments.complete(namespace, name, found)
        return found


async def _answer_node(view: NodeView, request: web.BaseRequest, asked: list[str]) -> web.Response:
    method = request.method
    match asked:
        case ["v1", "mounts", "namespaces", namespace, "pods", name] if method == "GET":
            return json_response(view.mounts(namespace, name))
        case ["v1", "status"] if method == "GET":
            return json_response(view.status())
        case ["v1", "plan"] if method == "POST":
            return json_response(view.plan(await _read_pod(request)))
    raise NotFound("the server could not find the requested resource")


async def _answer_trash(
    trash: TrashView, request: web.BaseRequest, parts: list[str]
) -> web.Response:
    if not parts and request.method == "GET":
        return json_response(await trash.show())
    body = decode_value(await read_body(request), "application/json")
    ids = body.get("ids") if isinstance(body, dict) else None
    if not isinstance(ids, list) or not all(isinstance(each, str) for each in ids):
        raise BadRequest('want {"ids": [...]}, as `volagent trash list` shows them')
    if parts == ["restore"] and request.method == "POST":
        restored = [await trash.restore(each) for each in ids]
        return json_response({"items": restored})
    if parts == ["empty"] and request.method == "POST":
        return json_response(await trash.empty(ids))
    raise NotFound("the server could not find the requested resource")


async def _read_pod(request: web.BaseRequest) -> Document:
    """A Pod as it would be stored: checked, with its defaults. Raises `Invalid`, `BadRequest`."""
    body = await read_body(request)
    content_type = media_type(request)
    given = decode_value(body, content_type)
    metadata = given.get("metadata") if isinstance(given, dict) else None
    namespace = metadata.get("namespace") if isinstance(metadata, dict) else None
    target = Target(PODS, namespace if isinstance(namespace, str) and namespace else "default")
    return Admission().prepare_create(PODS, decode_document(body, content_type, target))
