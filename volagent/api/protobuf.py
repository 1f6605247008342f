"""The few requests that kubectl sends as protobuf: reviews, tokens, and what `create KIND` makes.

kubectl's typed clients encode so what they send, whatever the server says it accepts, for kinds
that Kubernetes has compiled in. Those that have no other way are read here, into the same documents
as JSON; nothing is ever answered in protobuf. Source: the `generated.proto` files of
`k8s.io/api/{core,rbac,authorization,authentication}/v1` and `runtime.Unknown`.
"""

from base64 import b64encode
from collections.abc import Mapping
from typing import Any, Final

from volagent.client.contract import BadRequest
from volagent.objects.meta import Document

MEDIA_TYPE: Final = "application/vnd.kubernetes.protobuf"
_MAGIC: Final = b"k8s\x00"
_FIXED64: Final = 1

Schema = Mapping[int, tuple[str, Any]]
"""Field number → JSON name and `str`, `int`, `bool`, `[str]`, a message's schema or `[schema]`,
`{str}` or `{bytes}` for a map of texts or of base64."""

_RESOURCE: Schema = {
    1: ("namespace", str), 2: ("verb", str), 3: ("group", str), 4: ("version", str),
    5: ("resource", str), 6: ("subresource", str), 7: ("name", str),
}  # fmt: skip
_PATH: Schema = {1: ("path", str), 2: ("verb", str)}
_ASKED: Schema = {1: ("resourceAttributes", _RESOURCE), 2: ("nonResourceAttributes", _PATH)}
_ASKED_OF: Schema = {**_ASKED, 3: ("user", str), 4: ("groups", [str])}
_BOUND: Schema = {1: ("kind", str), 2: ("apiVersion", str), 3: ("name", str), 4: ("uid", str)}
_TOKEN: Schema = {
    1: ("audiences", [str]), 3: ("boundObjectRef", _BOUND), 4: ("expirationSeconds", int),
}  # fmt: skip
_METADATA: Schema = {
    1: ("name", str), 2: ("generateName", str), 3: ("namespace", str), 11: ("labels", {str}),
    12: ("annotations", {str}),
}  # fmt: skip
_OBJECT: Schema = {1: ("metadata", _METADATA)}
_RULE: Schema = {
    1: ("verbs", [str]), 2: ("apiGroups", [str]), 3: ("resources", [str]),
    4: ("resourceNames", [str]), 5: ("nonResourceURLs", [str]),
}  # fmt: skip
_SUBJECT: Schema = {
    1: ("kind", str), 2: ("apiGroup", str), 3: ("name", str), 4: ("namespace", str),
}  # fmt: skip
_ROLE_REF: Schema = {1: ("apiGroup", str), 2: ("kind", str), 3: ("name", str)}
_ROLE: Schema = {**_OBJECT, 2: ("rules", [_RULE])}
_BINDING: Schema = {**_OBJECT, 2: ("subjects", [_SUBJECT]), 3: ("roleRef", _ROLE_REF)}
SCHEMAS: Final[dict[str, Schema]] = {
    "SelfSubjectAccessReview": {2: ("spec", _ASKED)},
    "SelfSubjectRulesReview": {2: ("spec", {1: ("namespace", str)})},
    "SubjectAccessReview": {2: ("spec", _ASKED_OF)},
    "LocalSubjectAccessReview": {2: ("spec", _ASKED_OF)},
    "SelfSubjectReview": {},
    "TokenReview": {2: ("spec", {1: ("token", str), 2: ("audiences", [str])})},
    "TokenRequest": {2: ("spec", _TOKEN)},
    "Namespace": _OBJECT,
    "ServiceAccount": _OBJECT,
    "ConfigMap": {
        **_OBJECT,
        2: ("data", {str}),
        3: ("binaryData", {bytes}),
        4: ("immutable", bool),
    },
    "Secret": {**_OBJECT, 2: ("data", {bytes}), 3: ("type", str), 4: ("stringData", {str})},
    "Role": _ROLE,
    "ClusterRole": _ROLE,
    "RoleBinding": _BINDING,
    "ClusterRoleBinding": _BINDING,
}
"""Kind → what is read of it."""


def decode_protobuf(body: bytes) -> Document:
    """The document of an encoded object. Raises `BadRequest` for what is not known here."""
    if not body.startswith(_MAGIC):
        raise BadRequest("the body does not begin as Kubernetes' protobuf does")
    try:
        envelope = _read(body[len(_MAGIC) :], {
            1: ("type", {1: ("apiVersion", str), 2: ("kind", str)}), 2: ("raw", bytes),
        })  # fmt: skip
        kind = envelope.get("type", {}).get("kind", "")
        schema = SCHEMAS.get(kind)
        if schema is None:
            raise BadRequest(f"{kind or 'an object'} cannot be read from protobuf: send JSON")
        return {**envelope.get("type", {}), **_read(envelope.get("raw", b""), schema)}
    except (IndexError, ValueError) as error:
        raise BadRequest(f"the body is no valid protobuf: {error}") from error


def _read(data: bytes, schema: Schema) -> Document:
    """One message; fields that the schema lacks are skipped."""
    found: Document = {}
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        number, wire = tag >> 3, tag & 7
        value: int | bytes
        match wire:
            case 0:
                value, at = _read_varint(data, at)
            case 2:
                length, at = _read_varint(data, at)
                if at + length > len(data):
                    raise ValueError("a field ends beyond the message")
                value, at = data[at : at + length], at + length
            case 1 | 5:
                value, at = b"", at + (8 if wire == _FIXED64 else 4)
            case _:
                raise ValueError(f"wire type {wire}")
        if number in schema:
            _put(found, *schema[number], value)
    return found


def _put(found: Document, name: str, kind: Any, value: int | bytes) -> None:
    if not isinstance(value, bytes):
        found[name] = kind(value)
    elif isinstance(kind, list):
        found.setdefault(name, []).append(_convert(kind[0], value))
    elif isinstance(kind, set):
        (of,) = kind
        entry = _read(value, {1: ("key", str), 2: ("value", bytes)})
        held = entry.get("value", b"")
        text = held.decode() if of is str else b64encode(held).decode()
        found.setdefault(name, {})[entry.get("key", "")] = text
    else:
        found[name] = _convert(kind, value)


def _convert(kind: Any, value: bytes) -> Any:
    if kind is bytes:
        return value
    return value.decode() if kind is str else _read(value, kind)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if not byte & 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number is too long")
