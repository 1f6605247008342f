"""JSON patch (RFC 6902) and merge patch (RFC 7386), and the choice between the kinds. Pure.

Nothing is changed in place: a result shares the untouched parts with the document it was made from.
A patch that is malformed raises `BadRequest`; one that cannot be applied to this document raises
`Invalid`, as kube-apiserver answers 422 for a failed operation.
"""

from collections.abc import Callable
from typing import Any

from volagent.api.strategic import apply_strategic
from volagent.client.contract import BadRequest, Invalid, Resource, UnsupportedMediaType
from volagent.objects.meta import Document

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
MAX_OPERATIONS = 10_000
"""Operations of one JSON patch, as kube-apiserver limits it."""


def apply_patch(resource: Resource, document: Document, patch: Any, content_type: str) -> Document:
    """The document with a patch applied.

    Raises `BadRequest`, `Invalid`, and `UnsupportedMediaType` for a kind of patch nobody knows.
    """
    if content_type == JSON_PATCH:
        return _object(apply_json_patch(document, patch))
    if content_type == MERGE_PATCH:
        return _object(merge(document, _mapping(patch)))
    if content_type == STRATEGIC_PATCH:
        return apply_strategic(resource, document, _mapping(patch))
    raise UnsupportedMediaType(
        "the body of the request was in an unknown format - accepted media types include: "
        f"{JSON_PATCH}, {MERGE_PATCH}, {STRATEGIC_PATCH}"
    )


def merge(target: Any, patch: Any) -> Any:
    """A merge patch applied: null removes, objects merge, everything else replaces."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged


def apply_json_patch(document: Any, operations: Any) -> Any:
    """All operations of a JSON patch, in order, or none."""
    if not isinstance(operations, list) or not all(isinstance(one, dict) for one in operations):
        raise BadRequest("a JSON patch is a list of operations")
    if len(operations) > MAX_OPERATIONS:
        raise BadRequest(
            f"The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, "
            f"got {len(operations)}"
        )
    for operation in operations:
        document = _apply(document, operation)
    return document


def _apply(document: Any, operation: dict[str, Any]) -> Any:
    kind = operation.get("op")
    path = _pointer(operation, "path")
    match kind:
        case "add":
            return _put(document, path, _value(operation), insert=True)
        case "replace":
            _look_up(document, path)
            return _put(document, path, _value(operation), insert=False)
        case "remove":
            return _remove(document, path)
        case "test":
            if not _same(_look_up(document, path), _value(operation)):
                raise _failed(f"testing value {operation['path']} failed")
            return document
        case "copy":
            value = _look_up(document, _pointer(operation, "from"))
            return _put(document, path, value, insert=True)
        case "move":
            source = _pointer(operation, "from")
            if path[: len(source)] == source and path != source:
                raise _failed(f"cannot move {operation['from']} into itself")
            value = _look_up(document, source)
            return _put(_remove(document, source), path, value, insert=True)
        case _:
            raise BadRequest(f'unexpected operation "{kind}" in a JSON patch')


def _pointer(operation: dict[str, Any], field: str) -> list[str]:
    text = operation.get(field)
    if not isinstance(text, str) or (text and not text.startswith("/")):
        raise BadRequest(f'"{field}" of a JSON patch operation must be a JSON pointer')
    return [part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:]]


def _value(operation: dict[str, Any]) -> Any:
    if "value" not in operation:
        raise BadRequest('a JSON patch operation lacks its "value"')
    return operation["value"]


def _look_up(document: Any, path: list[str]) -> Any:
    for part in path:
        if isinstance(document, dict) and part in document:
            document = document[part]
        elif isinstance(document, list):
            document = document[_index(part, len(document) - 1, path)]
        else:
            raise _missing(path)
    return document


def _put(document: Any, path: list[str], value: Any, *, insert: bool) -> Any:
    """A copy with a value at a path; in a list it is inserted, or replaces what is there."""
    if not path:
        return value

    def place(parent: Any, part: str) -> Any:
        if isinstance(parent, dict):
            return {**parent, part: value}
        items = list(parent)
        if not insert:
            items[_index(part, len(items) - 1, path)] = value
        elif part == "-":
            items.append(value)
        else:
            items.insert(_index(part, len(items), path), value)
        return items

    return _change(document, path, place)


def _remove(document: Any, path: list[str]) -> Any:
    if not path:
        raise _failed("cannot remove the whole document")

    def take_out(parent: Any, part: str) -> Any:
        if isinstance(parent, dict):
            if part not in parent:
                raise _missing(path)
            return {key: value for key, value in parent.items() if key != part}
        items = list(parent)
        del items[_index(part, len(items) - 1, path)]
        return items

    return _change(document, path, take_out)


def _change(
    document: Any, path: list[str], change: Callable[[Any, str], Any], depth: int = 0
) -> Any:
    """A copy with the container at the end of a path changed, sharing all the rest."""
    part = path[depth]
    if not isinstance(document, dict | list):
        raise _missing(path)
    if depth == len(path) - 1:
        return change(document, part)
    if isinstance(document, dict):
        if part not in document:
            raise _missing(path)
        return {**document, part: _change(document[part], path, change, depth + 1)}
    index = _index(part, len(document) - 1, path)
    return [
        *document[:index],
        _change(document[index], path, change, depth + 1),
        *document[index + 1 :],
    ]


def _index(part: str, last: int, path: list[str]) -> int:
    if not (part.isascii() and part.isdigit()) or (len(part) > 1 and part[0] == "0"):
        raise _missing(path)
    index = int(part) if len(part) < 10 else last + 1
    if index > last:
        raise _missing(path)
    return index


def _same(left: Any, right: Any) -> bool:
    """JSON equality: unlike Python's, `true` is not 1."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same, left, right))
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    return bool(left == right)


def _mapping(patch: Any) -> Document:
    if not isinstance(patch, dict):
        raise BadRequest("a merge patch is an object")
    return patch


def _object(document: Any) -> Document:
    if not isinstance(document, dict) or not isinstance(document.get("metadata"), dict):
        raise _failed("the patched document is no object with metadata")
    return document


def _failed(why: str) -> Invalid:
    return Invalid(
        f"the server rejected our request due to an error in our request: {why}",
        details={"causes": [{"reason": "UnexpectedServerResponse", "message": why}]},
    )


def _missing(path: list[str]) -> Invalid:
    pointer = "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in path)
    return _failed(f'the path "{pointer}" does not exist in the document')
