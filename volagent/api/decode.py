"""Request bodies: from bytes of unknown honesty to a JSON document.

Bounded in every direction before anything is built from them: bytes, nesting, and for YAML the
nodes that aliases expand to. Whatever is refused is an `ApiError` that says where.
"""

from typing import Any

import msgspec
from aiohttp import web

from volagent.api import protobuf
from volagent.api.routes import Target
from volagent.client.contract import ApiError, BadRequest, TooLarge, UnsupportedMediaType
from volagent.objects.field_errors import MalformedObject
from volagent.objects.meta import Document, TypedObject
from volagent.objects.reading import read_view

BODY_LIMIT_BYTES = 3 * 1024 * 1024
NESTING_LIMIT = 64

JSON_TYPES = frozenset({"", "application/json", "*/*"})
YAML_TYPES = frozenset({"application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml"})
_DECODER = msgspec.json.Decoder()


class _Envelope(TypedObject, frozen=True):
    """The outer shape of every object."""

    spec: dict[str, Any] | None = None
    status: dict[str, Any] | None = None


_BODY = web.RequestKey("body", bytes)
"""Where a request keeps what was read of it."""


async def read_body(request: web.BaseRequest) -> bytes:
    """The whole body, however often it is asked for. Raises `TooLarge`, `BadRequest` when it ends
    early."""
    if _BODY in request:
        return request[_BODY]
    length = request.content_length
    if length is not None and length > BODY_LIMIT_BYTES:
        raise _too_large()
    if length == 0 or (length is None and not request.body_exists):
        return b""
    if "Expect" in request.headers:
        await _invite(request)
    chunks: list[bytes] = []
    size = 0
    try:
        while chunk := await request.content.readany():
            size += len(chunk)
            if size > BODY_LIMIT_BYTES:
                raise _too_large()
            chunks.append(chunk)
    except (web.RequestPayloadError, OSError, ValueError) as error:
        raise BadRequest(f"the body could not be read: {error}") from error
    body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
    request[_BODY] = body
    return body


async def _invite(request: web.BaseRequest) -> None:
    """Tell a client that asked first (curl, for large bodies) to go on."""
    if request.headers["Expect"].lower() != "100-continue":
        raise BadRequest("the request expects what is not known: only 100-continue is")
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0  # or aiohttp takes the answer for begun


def media_type(request: web.BaseRequest) -> str:
    """The body's type without parameters, in lower case; "" when not given."""
    text = request.headers.get("Content-Type")
    return text.partition(";")[0].strip().lower() if text else ""


def decode_json(body: bytes) -> Any:
    """The JSON value. Raises `BadRequest` with line and column, or for too deep nesting."""
    try:
        value = _DECODER.decode(body)
    except RecursionError as error:
        raise _too_deep() from error
    except UnicodeDecodeError as error:
        raise BadRequest(f"the body is not UTF-8: {error.reason}") from error
    except msgspec.DecodeError as error:
        raise BadRequest(f"the body is not valid JSON: {_locate(str(error), body)}") from error
    if body.count(b"{") + body.count(b"[") > NESTING_LIMIT and _is_deeper(value, NESTING_LIMIT):
        raise _too_deep()
    return value


def decode_yaml(body: bytes) -> Any:
    """The JSON value of one YAML document. Raises `BadRequest` with line and column."""
    from volagent.objects.manifest import ManifestError, read_yaml  # here: PyYAML is rare

    try:
        documents = read_yaml(body, nesting_limit=NESTING_LIMIT)
    except ManifestError as error:
        raise BadRequest(f"the body is not valid YAML: {error}") from error
    if len(documents) != 1:
        raise BadRequest(f"the body must be one YAML document, not {len(documents)}")
    return documents[0]


def decode_value(body: bytes, content_type: str) -> Any:
    """A JSON or YAML value. Raises `UnsupportedMediaType`, `BadRequest`."""
    if content_type in JSON_TYPES:
        value = decode_json(body)
    elif content_type in YAML_TYPES:
        value = decode_yaml(body)
    elif content_type == protobuf.MEDIA_TYPE:
        value = protobuf.decode_protobuf(body)
    else:
        accepted = "application/json, application/yaml"
        raise UnsupportedMediaType(
            f"the body of the request was in an unknown format ({content_type})"
            f" - accepted media types include: {accepted}"
        )
    return value


def decode_document(body: bytes, content_type: str, target: Target) -> Document:
    """An object for `target`, with kind, apiVersion and namespace filled in from the URL.

    Nulls are dropped, as typed servers do. Raises `BadRequest` when the body says another kind,
    name or namespace than the URL.
    """
    if not body.strip():
        raise BadRequest("the request has no body: an object is expected")
    value = decode_value(body, content_type)
    if not isinstance(value, dict):
        raise BadRequest(f"the body must be an object, not {_name_type(value)}")
    may_have_nulls = b"null" in body or content_type in YAML_TYPES
    document: Document = _drop_nulls(value) if may_have_nulls else value
    _check_types(document, target)
    _match_type(document, target)
    metadata = document.setdefault("metadata", {})
    if target.name:
        _match_name(metadata, target)
    namespace = metadata.get("namespace")
    if target.resource.namespaced:
        if not namespace:
            metadata["namespace"] = target.namespace
        elif namespace != target.namespace:
            raise BadRequest(
                "the namespace of the provided object does not match the namespace sent on the"
                f" request: metadata.namespace is {namespace!r}, the URL says {target.namespace!r}"
            )
    return document


def _check_types(document: Document, target: Target) -> None:
    """What the registry looks at before any rule of the kind is applied."""
    try:
        read_view(document, _Envelope)
    except MalformedObject as error:
        resource = target.resource
        raise BadRequest(
            f'{resource.kind} in version "{resource.api_version}" cannot be handled as a'
            f" {resource.kind}: {error}",
            details={"causes": [{"field": error.field, "message": error.message}]},
        ) from error


def _match_type(value: Document, target: Target) -> None:
    resource = target.resource
    kind = value.get("kind") or resource.kind
    version = value.get("apiVersion") or resource.api_version
    if kind != resource.kind or version != resource.api_version:
        field = "kind" if kind != resource.kind else "apiVersion"
        raise BadRequest(
            f'{kind} in version "{version}" cannot be handled as a {resource.kind}:'
            f" the URL serves {resource.kind} {resource.api_version}",
            details={"causes": [{"field": field, "message": "does not match the URL"}]},
        )
    if value.get("kind") != kind or value.get("apiVersion") != version:
        value["kind"], value["apiVersion"] = kind, version


def _match_name(metadata: Document, target: Target) -> None:
    name = metadata.get("name")
    if not name:
        metadata["name"] = target.name
    elif name != target.name:
        raise BadRequest(
            f"the name of the object ({name}) does not match the name on the URL ({target.name})",
            details={"causes": [{"field": "metadata.name", "message": "does not match the URL"}]},
        )


def _drop_nulls(value: Any) -> Any:
    """The value without the members that are null; nesting is bounded already."""
    if isinstance(value, dict):
        return {key: _drop_nulls(member) for key, member in value.items() if member is not None}
    if isinstance(value, list):
        return [_drop_nulls(item) for item in value]
    return value


def _is_deeper(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit + 1):
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inner += item.values()
            elif isinstance(item, list):
                inner += item
        if not inner:
            return False
        level = inner
    return any(isinstance(item, dict | list) for item in level)


def _locate(message: str, body: bytes) -> str:
    """msgspec's message with line and column in place of its byte offset."""
    text, _, offset = message.rpartition(" (byte ")
    if text and offset.rstrip(")").isdecimal():
        end = int(offset.rstrip(")"))
    else:
        text, end = message, len(body)
    before = body[:end]
    line = before.count(b"\n") + 1
    column = end - before.rfind(b"\n")
    return f"line {line} column {column}: {text.removeprefix('JSON is malformed: ')}"


def _name_type(value: Any) -> str:
    names = {str: "a string", list: "an array", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _too_deep() -> ApiError:
    return BadRequest(f"the body is nested more than {NESTING_LIMIT} levels deep")


def _too_large() -> ApiError:
    return TooLarge(f"the body is larger than the limit of {BODY_LIMIT_BYTES} bytes")
