"""From a document to a typed view, with errors that name the field as Kubernetes does.

A wrong JSON type is a `MalformedObject` (400); a missing field that must be there an
`InvalidObject` (422).
"""

import re
from typing import Any, TypeVar

import msgspec

from volagent.objects.field_errors import InvalidObject, MalformedObject, required
from volagent.objects.meta import Document

T = TypeVar("T")

_AT = re.compile(r"(?P<text>.*?) - at (?:`key` in )?`\$\.?(?P<path>.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<name>[^`]+)`")
_TYPES = {"str": "string", "int": "integer", "float": "number", "bool": "boolean", "null": "null"}
_QUOTED = re.compile(r"`([^`]*)`")
_KEYS_TRIED_LIMIT = 1000


def read_view(document: Document, view: type[T]) -> T:
    """The typed view of a document. Raises `MalformedObject`, `InvalidObject`."""
    try:
        return msgspec.convert(document, view)
    except msgspec.ValidationError as error:
        raise explain_type_error(error, document, view) from error


def read_optional(holder: Document, name: str, kind: type[T], field: str) -> T | None:
    """A member of a document that no view has. Raises `MalformedObject`."""
    value = holder.get(name)
    if value is None:
        return None
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        text, path = _take_apart(str(error))
        raise MalformedObject(f"{field}.{path}" if path else field, text) from error


def explain_type_error(
    error: msgspec.ValidationError, document: Document, view: Any
) -> MalformedObject | InvalidObject:
    """What msgspec says, with the field's path and JSON's names of types."""
    message = str(error)
    text, path = _take_apart(message)
    if "[...]" in path:
        path = _name_keys(message, path, document, view)
    missing = _MISSING.match(text)
    if missing is None:
        return MalformedObject(path, text)
    field = f"{path}.{missing['name']}" if path else missing["name"]
    metadata = document.get("metadata")
    name = metadata.get("name", "") if isinstance(metadata, dict) else ""
    return InvalidObject(str(document.get("kind", "")), str(name), [required(field)])


def _take_apart(message: str) -> tuple[str, str]:
    found = _AT.fullmatch(message)
    text, path = (found["text"], found["path"]) if found else (message, "")
    if _MISSING.match(text):
        return text, path
    return _QUOTED.sub(_name_types, text).replace("Expected", "expected"), path


def _name_types(found: re.Match[str]) -> str:
    names = [_TYPES.get(name, name) for name in found[1].split(" | ")]
    return " or ".join(name for name in names if name != "null" or len(names) == 1)


def _name_keys(message: str, path: str, document: Document, view: Any) -> str:
    """Put the first guilty key for each `[...]`, which is all that msgspec says of a mapping."""
    before, _, after = path.partition("[...]")
    holder: Any = document
    for part in re.findall(r"[^.\[\]]+", before):
        holder = holder[int(part)] if isinstance(holder, list) else holder.get(part)
    if not isinstance(holder, dict):
        return path
    for key in list(holder)[:_KEYS_TRIED_LIMIT]:
        try:
            msgspec.convert(_with_only(document, before, key), view)
        except msgspec.ValidationError as error:
            if str(error) == message:
                return f"{before}[{key}]{after}"
    return path


def _with_only(document: Document, path: str, key: str) -> Any:
    """A copy of the document in which the mapping at `path` has just one key."""

    def copy(value: Any, parts: list[str]) -> Any:
        if not parts:
            return {key: value[key]}
        if isinstance(value, list):
            index = int(parts[0])
            return [*value[:index], copy(value[index], parts[1:]), *value[index + 1 :]]
        return {**value, parts[0]: copy(value[parts[0]], parts[1:])}

    return copy(document, re.findall(r"[^.\[\]]+", path))
