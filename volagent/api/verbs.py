"""The verbs on resources: each HTTP request becomes one call of the `Client`.

What a verb may not do is answered here (405, 415); what an object may not be, by the registry
behind the client.
"""

import asyncio
from typing import Any

from aiohttp import web

from volagent.api import tables
from volagent.api.apply_managers import Writer
from volagent.api.binding import read_binding
from volagent.api.decode import (
    JSON_TYPES,
    decode_document,
    decode_json,
    decode_value,
    media_type,
    read_body,
)
from volagent.api.query import EMPTY_QUERY, Query, read_dry_run
from volagent.api.responses import encode_json, json_response
from volagent.api.routes import Target
from volagent.api.serving import ServedClient
from volagent.api.strictness import check_applied, check_fields, check_patch
from volagent.api.watchstream import WatchStreams
from volagent.api.whole_lists import WholeLists, send_text
from volagent.client.contract import (
    PODS,
    SERVICE_ACCOUNTS,
    ApiError,
    BadRequest,
    Invalid,
    Listing,
    MethodNotAllowed,
    NotFound,
    UnsupportedMediaType,
)
from volagent.objects.meta import Document

APPLY_PATCH = "application/apply-patch+yaml"
PATCH_TYPES = (
    "application/json-patch+json", "application/merge-patch+json",
    "application/strategic-merge-patch+json", APPLY_PATCH,
)  # fmt: skip
MAY_NOT_CREATE = web.RequestKey("may_not_create", bool)
"""Set in a request whose user may change the object but not make it: an apply could do either."""
UNNAMED = "unknown"
"""Who writes without saying who: neither a `fieldManager` nor a `User-Agent`."""
MANAGER_LIMIT_CHARS = 128
DELETE_TOGETHER_LIMIT = 128
"""Objects of one collection that are deleted at the same time: they share commits."""


class Verbs:
    """Answers requests for resources, for a caller who may do what they ask."""

    def __init__(self, client: ServedClient, watches: WatchStreams) -> None:
        self._client = client
        self._watches = watches
        self._lists = WholeLists()

    async def answer(
        self, request: web.BaseRequest, target: Target, query: Query
    ) -> web.StreamResponse:
        """Do what the method says. Raises `ApiError`."""
        if target.subresource:
            return await self._answer_subresource(request, target, query)
        method = request.method
        if not target.name:
            if method == "POST":
                return await self._create(request, target, query)
            if method == "GET":
                return await self._list(request, target, query)
            if method == "DELETE":
                return await self._delete_collection(request, target, query)
        elif method == "GET":
            return await self._get(request, target, query)
        elif method == "PUT":
            return await self._update(request, target, query)
        elif method == "PATCH":
            return await self._patch(request, target, query)
        elif method == "DELETE":
            return await self._delete(request, target, query)
        raise _not_allowed(target)

    async def _answer_subresource(
        self, request: web.BaseRequest, target: Target, query: Query
    ) -> web.StreamResponse:
        if target.subresource == "token" and target.resource == SERVICE_ACCOUNTS:
            if request.method != "POST":
                raise _not_allowed(target)
            return await self._issue_token(request, target)
        if target.subresource == "binding" and target.resource == PODS:
            if request.method != "POST":
                raise _not_allowed(target)
            return await self._bind(request, target, query)
        if target.subresource == "redeclare" and target.resource == PODS:
            if request.method != "POST":
                raise _not_allowed(target)
            return await self._redeclare(request, target, query)
        if target.subresource != "status":
            raise NotFound("the server could not find the requested resource")
        if request.method == "GET":
            return await self._get(request, target, query)
        if request.method == "PUT":
            return await self._update(request, target, query)
        if request.method == "PATCH":
            return await self._patch(request, target, query)
        raise _not_allowed(target)

    async def _create(self, request: web.BaseRequest, target: Target, query: Query) -> web.Response:
        if target.resource.namespaced and not target.namespace:
            raise _not_allowed(target)
        body = await read_body(request)
        document = decode_document(body, media_type(request), target)
        warnings = check_fields(document, target.resource.kind, query.field_validation, body)
        created = await self._client.create(
            target.resource,
            document,
            target.namespace,
            dry_run=query.dry_run,
            writer=_writer(request, query),
        )
        return json_response(tables.shape_object(request, target, created), 201, warnings)

    async def _get(self, request: web.BaseRequest, target: Target, query: Query) -> web.Response:
        found = await self._client.get(target.resource, target.name, target.namespace)
        return json_response(tables.shape_object(request, target, found, query.include_object))

    async def _list(
        self, request: web.BaseRequest, target: Target, query: Query
    ) -> web.StreamResponse:
        if query.watch:
            shape = tables.choose_watch_shape(request, target, query.include_object)
            return await self._watches.serve(request, target, query, shape)
        if query.limit < 0:
            raise BadRequest("limit may not be negative")
        if tables.wants_table(request):
            listing = await self._read_list(target, query)
            return json_response(tables.table_of(target.resource, listing, query.include_object))

        async def make() -> bytes:
            return encode_json(list_document(target, await self._read_list(target, query)))

        if query == EMPTY_QUERY:
            text = await self._lists.share((target.resource, target.namespace), make)
        else:
            text = await make()
        return await send_text(request, text)

    async def _read_list(self, target: Target, query: Query) -> Listing:
        return await self._client.list(
            target.resource,
            query.select(target.namespace),
            resource_version=query.resource_version,
            limit=query.limit,
            continue_token=query.continue_token,
        )

    async def _update(self, request: web.BaseRequest, target: Target, query: Query) -> web.Response:
        body = await read_body(request)
        document = decode_document(body, media_type(request), target)
        warnings = check_fields(document, target.resource.kind, query.field_validation, body)
        updated = await self._client.update(
            target.resource,
            document,
            target.namespace,
            subresource=target.subresource,
            dry_run=query.dry_run,
            writer=_writer(request, query),
        )
        return json_response(tables.shape_object(request, target, updated), 200, warnings)

    async def _patch(self, request: web.BaseRequest, target: Target, query: Query) -> web.Response:
        content_type = media_type(request)
        if content_type not in PATCH_TYPES:
            raise UnsupportedMediaType(
                f"the body of the request was in an unknown format ({content_type or 'not given'})"
                f" - accepted media types include: {', '.join(PATCH_TYPES)}"
            )
        body = await read_body(request)
        if not body.strip():
            raise BadRequest("the request has no body: a patch is expected")
        if content_type == APPLY_PATCH:
            return await self._apply(request, target, query, body)
        if query.force is not None:
            raise _invalid_options("force", "Forbidden: may not be specified for non-apply patch")
        patch = decode_json(body)
        warnings = check_patch(patch, target.resource.kind, query.field_validation, body)
        patched = await self._client.patch(
            target.resource,
            target.name,
            patch,
            target.namespace,
            content_type=content_type,
            subresource=target.subresource,
            dry_run=query.dry_run,
            writer=_writer(request, query),
        )
        return json_response(tables.shape_object(request, target, patched), 200, warnings)

    async def _apply(
        self, request: web.BaseRequest, target: Target, query: Query, body: bytes
    ) -> web.Response:
        if not query.field_manager:
            raise _invalid_options(
                "fieldManager", "Required value: is required for apply patch", "FieldValueRequired"
            )
        form = "" if body.lstrip().startswith(b"{") else "application/yaml"
        config = decode_document(body, form, target)
        check_applied(config, target.resource.kind)
        warnings = check_fields(config, target.resource.kind, query.field_validation, body)
        applied, is_new = await self._client.apply(
            target.resource,
            config,
            target.namespace,
            _writer(request, query),
            force=bool(query.force),
            may_create=MAY_NOT_CREATE not in request,
            subresource=target.subresource,
            dry_run=query.dry_run,
        )
        shaped = tables.shape_object(request, target, applied)
        return json_response(shaped, 201 if is_new else 200, warnings)

    async def _delete(self, request: web.BaseRequest, target: Target, query: Query) -> web.Response:
        options = await _read_delete_options(request, query)
        deleted = await self._client.delete(
            target.resource, target.name, target.namespace, **options
        )
        return json_response(deleted)

    async def _delete_collection(
        self, request: web.BaseRequest, target: Target, query: Query
    ) -> web.Response:
        if target.resource.namespaced and not target.namespace:
            raise _not_allowed(target)
        options = await _read_delete_options(request, query)
        listing = await self._client.list(target.resource, query.select(target.namespace))
        for start in range(0, len(listing.items), DELETE_TOGETHER_LIMIT):
            part = listing.items[start : start + DELETE_TOGETHER_LIMIT]
            await asyncio.gather(*(self._delete_one(target, item, options) for item in part))
        return json_response(list_document(target, listing))

    async def _delete_one(self, target: Target, item: Document, options: dict[str, Any]) -> None:
        try:
            await self._client.delete(
                target.resource, item["metadata"]["name"], target.namespace, **options
            )
        except NotFound:
            return  # somebody else was faster

    async def _bind(self, request: web.BaseRequest, target: Target, query: Query) -> web.Response:
        body = await read_body(request)
        binding = read_binding(decode_value(body, media_type(request)), target.name)
        await self._client.bind_pod(
            target.name,
            target.namespace,
            binding.target.name,
            uid=binding.metadata.uid,
            resource_version=binding.metadata.resource_version,
            dry_run=query.dry_run,
        )
        answer = {
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201,
        }  # fmt: skip
        return json_response(answer, 201)

    async def _issue_token(self, request: web.BaseRequest, target: Target) -> web.Response:
        body = await read_body(request)
        value = decode_value(body, media_type(request)) if body.strip() else {}
        if not isinstance(value, dict):
            raise BadRequest("the body must be a TokenRequest")
        issued = await self._client.issue_token(target.name, target.namespace, value)
        return json_response(issued, 201)

    async def _redeclare(
        self, request: web.BaseRequest, target: Target, query: Query
    ) -> web.Response:
        uid = (await _read_delete_options(request, query)).get("uid") or ""
        if not uid:
            raise BadRequest("preconditions.uid: Required value: which pod is to be declared again")
        made = await self._client.redeclare_pod(target.name, target.namespace, uid=uid)
        return json_response(made, 201)


def _writer(request: web.BaseRequest, query: Query) -> Writer:
    """Who writes: as the request names them, else by the program that sends it."""
    if query.field_manager:
        return Writer(query.field_manager, named=True)
    program = request.headers.get("User-Agent", "").partition("/")[0]
    return Writer(program[:MANAGER_LIMIT_CHARS] or UNNAMED)


def _invalid_options(field: str, why: str, reason: str = "FieldValueForbidden") -> Invalid:
    """The query of a patch breaks a rule."""
    causes = [{"reason": reason, "message": why, "field": field}]
    details = {"group": "meta.k8s.io", "kind": "PatchOptions", "causes": causes}
    text = f'PatchOptions.meta.k8s.io "" is invalid: {field}: {why}'
    return Invalid(text, details=details)


def list_document(target: Target, listing: Listing) -> Document:
    """The `PodList` of a listing."""
    metadata: Document = {"resourceVersion": listing.resource_version}
    if listing.continue_token:
        metadata["continue"] = listing.continue_token
        if listing.remaining is not None:
            metadata["remainingItemCount"] = listing.remaining
    return {
        "kind": f"{target.resource.kind}List",
        "apiVersion": target.resource.api_version,
        "metadata": metadata,
        "items": listing.items,
    }


async def _read_delete_options(request: web.BaseRequest, query: Query) -> dict[str, Any]:
    """The arguments for `Client.delete`: what the body says beats the query."""
    options: dict[str, Any] = {
        "grace_period_seconds": query.grace_period_seconds,
        "dry_run": query.dry_run,
    }
    body = await read_body(request)
    if body.strip():
        given = decode_value(body, _options_type(request))
        if not isinstance(given, dict):
            raise BadRequest("the body must be DeleteOptions")
        grace = given.get("gracePeriodSeconds")
        if grace is not None:
            options["grace_period_seconds"] = _check_type("gracePeriodSeconds", grace, int)
        if given.get("dryRun"):
            options["dry_run"] = read_dry_run(given["dryRun"])
        conditions = _check_type("preconditions", given.get("preconditions") or {}, dict)
        for field, argument in (("uid", "uid"), ("resourceVersion", "resource_version")):
            value = conditions.get(field) or ""
            options[argument] = _check_type(f"preconditions.{field}", value, str)
    grace = options["grace_period_seconds"]
    if grace is not None and grace < 0:
        raise BadRequest(f"gracePeriodSeconds: Invalid value: {grace}: must not be negative")
    return options


def _options_type(request: web.BaseRequest) -> str:
    content_type = media_type(request)
    return "" if content_type in JSON_TYPES else content_type


def _check_type(field: str, value: Any, kind: type) -> Any:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise BadRequest(f"{field}: wrong type, expected {kind.__name__}")
    return value


def _not_allowed(target: Target) -> ApiError:
    what = f"{target.resource.plural}/{target.subresource}".rstrip("/")
    return MethodNotAllowed(
        f"the server does not allow this method on the requested resource ({what})"
    )
