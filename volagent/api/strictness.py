"""Unknown and repeated fields: `fieldValidation=Strict` refuses them, `Warn` says so.

What is not known is kept in any case but `Strict`: the documents may hold fields of Kubernetes
versions that volagent does not know. Without `fieldValidation` the answer is as for `Warn`, but
repetitions are not looked for: that would cost programs that write often. Pure.
"""

import json
from collections.abc import Iterator
from typing import Any

import msgspec

from volagent.api.openapi.schema import PLAIN, Form, Shape, Type, all_types
from volagent.client.contract import BadRequest, Invalid
from volagent.objects.meta import Document

STRICT, IGNORE = "Strict", "Ignore"
_NAMED_LIMIT = 32
"""Faults that are named in one answer."""


class _Repeated(dict[str, Any]):
    """An object in which some fields occur more than once."""

    repeated: tuple[str, ...] = ()


def check_fields(
    document: Document, kind: str, validation: str, body: bytes = b""
) -> tuple[str, ...]:
    """Warnings about unknown and repeated fields; `validation` is the query's `fieldValidation`.

    `body` is what was sent, if it was JSON: repetitions can only be seen there. Raises `BadRequest`
    naming the fields when it is `Strict`.
    """
    if validation == IGNORE:
        return ()
    faults = find_unknown(document, kind)
    if validation:
        faults += find_repeated(body)
    del faults[_NAMED_LIMIT:]
    if not faults or validation != STRICT:
        return tuple(faults)
    version = document.get("apiVersion") or ""
    raise BadRequest(
        f'{kind} in version "{version}" cannot be handled as a {kind}:'
        f" strict decoding error: {', '.join(faults)}"
    )


def check_patch(patch: Any, kind: str, validation: str, body: bytes) -> tuple[str, ...]:
    """The same for a patch of any sort. Raises `Invalid`."""
    if validation == IGNORE:
        return ()
    faults: list[str] = []
    if isinstance(patch, dict):
        faults += find_unknown(patch, kind)
    elif isinstance(patch, list):
        for operation in patch:
            if isinstance(operation, dict) and operation.get("op") in ("add", "replace"):
                faults += find_unknown(_nest(operation), kind)
    if validation:
        faults += find_repeated(body)
    del faults[_NAMED_LIMIT:]
    if not faults or validation != STRICT:
        return tuple(faults)
    shown = msgspec.json.encode(body.decode(errors="replace")).decode()
    why = f"Invalid value: {shown}: strict decoding error: {', '.join(faults)}"
    raise Invalid(
        f' "" is invalid: patch: {why}',
        details={"causes": [{"reason": "FieldValueInvalid", "message": why, "field": "patch"}]},
    )


def check_applied(config: Document, kind: str) -> None:
    """Server-side apply can only own what it knows. Raises `BadRequest` naming the first other."""
    unknown = next(unknown_paths(config, all_types()[kind]), None)
    if unknown is None:
        return
    metadata = config["metadata"]
    place = f"{metadata.get('namespace', '')}/{metadata['name']}"
    raise BadRequest(
        f"failed to create typed patch object ({place}; {config['apiVersion']}, Kind={kind}):"
        f" .{unknown}: field not declared in schema"
    )


def find_unknown(document: Document, kind: str) -> list[str]:
    """`unknown field "spec.foo"` for each field that the kind does not have."""
    found = all_types().get(kind)
    if found is None:
        return []
    return [f'unknown field "{path}"' for path in unknown_paths(document, found)]


def unknown_paths(document: Document, known: Type, path: str = "") -> Iterator[str]:
    """Where a document has fields that its type has not; directives of patches are no fields."""
    for name, value in document.items():
        field = known.fields.get(name)
        here = f"{path}.{name}" if path else name
        if field is None:
            if not name.startswith("$"):
                yield here
        elif field.form.base not in PLAIN:
            yield from _inner_paths(value, field.form, here)


def _inner_paths(value: Any, form: Form, path: str) -> Iterator[str]:
    inner = all_types()[form.base]
    if form.shape is Shape.LIST:
        for index, item in enumerate(value if isinstance(value, list) else ()):
            if isinstance(item, dict):
                yield from unknown_paths(item, inner, f"{path}[{index}]")
    elif isinstance(value, dict):
        yield from unknown_paths(value, inner, path)


def find_repeated(body: bytes) -> list[str]:
    """`duplicate field "spec.foo"` for each field that an object in JSON has twice."""
    found: list[_Repeated] = []

    def collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members = dict(pairs)
        if len(members) == len(pairs):
            return members
        names = [name for name, _ in pairs]
        marked = _Repeated(members)
        marked.repeated = tuple(name for name in members if names.count(name) > 1)
        found.append(marked)
        return marked

    if not body.lstrip().startswith((b"{", b"[")):
        return []
    try:
        value = json.loads(body, object_pairs_hook=collect)
    except (ValueError, RecursionError):
        return []  # YAML that looks like JSON at first
    return [f'duplicate field "{path}"' for path in _repeated_paths(value, "")] if found else []


def _repeated_paths(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _repeated_paths(item, f"{path}[{index}]")
    elif isinstance(value, dict):
        if isinstance(value, _Repeated):
            yield from (f"{path}.{name}" if path else name for name in value.repeated)
        for name, member in value.items():
            yield from _repeated_paths(member, f"{path}.{name}" if path else name)


def _nest(operation: Document) -> Document:
    """What a JSON patch's operation puts, as the document that would hold only that."""
    path, value = operation.get("path"), operation.get("value")
    if not isinstance(path, str):
        return {}
    for part in reversed(path.split("/")[1:]):
        name = part.replace("~1", "/").replace("~0", "~")
        value = [value] if name == "-" or name.isdecimal() else {name: value}
    return value if isinstance(value, dict) else {}
