"""Paths: which resource, namespace, object and sub-resource a URL names.

Split by hand: a table of a few hundred patterns costs more than the request's own work.
"""

from dataclasses import dataclass
from urllib.parse import unquote

from volagent.client.contract import RESOURCES, BadRequest, NotFound, Resource

_TABLE = {(r.group, r.version, r.plural): r for r in RESOURCES}
_NAMESPACED = {r.plural for r in RESOURCES if r.namespaced}


@dataclass(frozen=True, slots=True)
class Target:
    """What a path under `/api` or `/apis` names; empty parts are not given."""

    resource: Resource
    namespace: str = ""
    name: str = ""
    subresource: str = ""


def split_path(path: str) -> list[str]:
    """The decoded parts of a path, without the leading and one trailing slash.

    Raises `BadRequest` for a part that can be no name.
    """
    parts = path.split("/")[1:]
    if len(parts) > 1 and not parts[-1]:
        del parts[-1]
    if "%" in path:
        for index, part in enumerate(parts):
            parts[index] = decoded = _decode_part(part)
            if "/" in decoded or "\0" in decoded or decoded in (".", ".."):
                raise BadRequest(f'invalid path segment {decoded!r}: may not contain "/" or NUL')
    return parts


def _decode_part(part: str) -> str:
    try:
        return unquote(part, errors="strict")
    except UnicodeDecodeError as error:
        raise BadRequest(f"invalid path segment {part!r}: not UTF-8") from error


def find_target(parts: list[str]) -> Target:
    """The object or collection that the parts of a path name. Raises `NotFound`."""
    if parts[0] == "api":
        group, version, rest = "", parts[1] if len(parts) > 1 else "", parts[2:]
    else:
        group, version, rest = parts[1], parts[2] if len(parts) > 2 else "", parts[3:]
    namespace = ""
    if len(rest) >= 3 and rest[0] == "namespaces" and rest[2] in _NAMESPACED:
        namespace, rest = rest[1], rest[2:]
    if not rest or len(rest) > 3 or not all(rest):
        raise _unknown()
    resource = _TABLE.get((group, version, rest[0]))
    if resource is None:
        raise _unknown()
    if resource.namespaced:
        if not namespace and len(rest) > 1:
            raise _unknown()  # one object of all namespaces
    elif namespace:
        raise _unknown()
    return Target(
        resource,
        namespace,
        rest[1] if len(rest) > 1 else "",
        rest[2] if len(rest) > 2 else "",
    )


def _unknown() -> NotFound:
    return NotFound("the server could not find the requested resource")
