"""Strategic merge patch: what `kubectl apply`, `edit` and `patch` send for built-in kinds. Pure.

It is a merge patch whose lists can be merged by a key instead of replaced. Which lists, and by
which key, comes from the `patchStrategy` and `patchMergeKey` tags of the Kubernetes types, kept
here as `_LISTS`. Directives: `$patch: replace|delete|merge`, `$retainKeys`,
`$deleteFromPrimitiveList/x`, `$setElementOrder/x`. Source of the rules: apimachinery
`pkg/util/strategicpatch/patch.go`; unlike there, items whose merge key occurs twice (port 53 for
TCP and UDP) are told apart by their order instead of being lost.

Nothing is changed in place: a result shares the untouched parts with the document it was made from.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from volagent.client.contract import BadRequest, Resource
from volagent.objects.meta import Document

_DELETE = "$deleteFromPrimitiveList/"
_ORDER = "$setElementOrder/"
_PATCH = "$patch"
_RETAIN = "$retainKeys"


@dataclass(frozen=True)
class _Shape:
    """What is special about an object's fields: lists that merge, and objects that contain some."""

    keys: Mapping[str, str] = field(default_factory=dict)
    """List field → merge key of its items; "" for a list of primitives merged as a set."""
    inner: Mapping[str, "_Shape"] = field(default_factory=dict)
    """Field → shape of the object, or of the list's items."""


_PLAIN = _Shape()
_METADATA = _Shape({"finalizers": "", "ownerReferences": "uid"})
_CONDITIONS = _Shape({"conditions": "type"})
_CONTAINER = _Shape(
    {"env": "name", "ports": "containerPort", "volumeMounts": "mountPath",
     "volumeDevices": "devicePath"},
)  # fmt: skip
_POD_SPEC = _Shape(
    {
        "containers": "name", "initContainers": "name", "ephemeralContainers": "name",
        "volumes": "name", "imagePullSecrets": "name", "hostAliases": "ip",
        "topologySpreadConstraints": "topologyKey", "schedulingGates": "name",
        "resourceClaims": "name",
    },
    {"containers": _CONTAINER, "initContainers": _CONTAINER, "ephemeralContainers": _CONTAINER},
)  # fmt: skip
_LISTS: Mapping[str, _Shape] = {
    "Pod": _Shape(
        inner={
            "spec": _POD_SPEC,
            "status": _Shape({"conditions": "type", "podIPs": "ip", "hostIPs": "ip"}),
        }
    ),
    "Node": _Shape(
        inner={
            "spec": _Shape({"podCIDRs": ""}),
            "status": _Shape({"conditions": "type", "addresses": "type"}),
        }
    ),
    "Namespace": _Shape(inner={"status": _CONDITIONS}),
    "PersistentVolumeClaim": _Shape(inner={"status": _CONDITIONS}),
    "ServiceAccount": _Shape({"secrets": "name", "imagePullSecrets": "name"}),
}


def apply_strategic(resource: Resource, document: Document, patch: Document) -> Document:
    """The document with a strategic merge patch applied. Raises `BadRequest`."""
    known = _LISTS.get(resource.kind, _PLAIN)
    shape = _Shape(known.keys, {**known.inner, "metadata": _METADATA})
    merged = _merge_object(document, patch, shape)
    if not isinstance(merged.get("metadata"), dict):
        raise BadRequest("the patched document has no metadata")
    return merged


def _merge_object(target: Document, patch: Document, shape: _Shape) -> Document:
    directive = patch.get(_PATCH)
    if directive == "replace":
        return {key: value for key, value in patch.items() if key != _PATCH}
    if directive == "delete":
        return {}
    if directive not in (None, "merge"):
        raise BadRequest(f"unknown $patch directive: {directive}")
    merged = _retain(target, patch)
    for name, value in patch.items():
        if name.startswith("$"):
            continue
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, dict):
            inner = shape.inner.get(name, _PLAIN)
            held = merged.get(name)
            merged[name] = _merge_object(held if isinstance(held, dict) else {}, value, inner)
        elif isinstance(value, list) and name in shape.keys and shape.keys[name]:
            merged[name] = _merge_items(name, _items(merged, name), value, shape, patch)
        elif isinstance(value, list) and name in shape.keys:
            merged[name] = _merge_set(name, _items(merged, name), value, patch)
        else:
            merged[name] = value
    _merge_directives(merged, patch, shape)
    return merged


def _retain(target: Document, patch: Document) -> Document:
    retained = patch.get(_RETAIN)
    if retained is None:
        return dict(target)
    if not isinstance(retained, list):
        raise BadRequest("$retainKeys must be a list")
    return {key: value for key, value in target.items() if key in retained}


def _merge_directives(merged: Document, patch: Document, shape: _Shape) -> None:
    """Deletions from, and the order of, lists that the patch itself does not hold."""
    for name, value in patch.items():
        field_name = name.removeprefix(_DELETE).removeprefix(_ORDER)
        if field_name == name or field_name in patch or field_name not in merged:
            continue
        key = shape.keys.get(field_name)
        if key is None or not isinstance(value, list):
            raise BadRequest(f"{name} is not allowed here")
        if key:
            merged[field_name] = _merge_items(
                field_name, _items(merged, field_name), [], shape, patch
            )
        else:
            merged[field_name] = _merge_set(field_name, _items(merged, field_name), [], patch)


def _merge_items(
    name: str, target: list[Any], patch: list[Any], shape: _Shape, owner: Document
) -> list[Any]:
    """A list of objects merged by its key."""
    key = shape.keys[name]
    inner = shape.inner.get(name, _PLAIN)
    if any(isinstance(item, dict) and item.get(_PATCH) == "replace" for item in patch):
        return [item for item in patch if item.get(_PATCH) != "replace"]
    before = dict(zip(_identities(target, key), target, strict=True))
    kept = dict(before)
    wanted = _identities(patch, key)
    for identity, item in zip(wanted, patch, strict=True):
        if item.get(_PATCH) == "delete":
            kept.pop(identity, None)
        else:
            kept[identity] = _merge_object(kept.get(identity, {}), item, inner)
    order = owner.get(_ORDER + name)
    if order is not None:
        wanted = _identities(order, key)
    return [kept[identity] for identity in _arrange(list(kept), wanted, list(before))]


def _merge_set(name: str, target: list[Any], patch: list[Any], owner: Document) -> list[Any]:
    """A list of primitives merged as a set."""
    removed = owner.get(_DELETE + name) or []
    order = owner.get(_ORDER + name) or patch
    for items in (patch, removed, order):
        if not isinstance(items, list) or not all(isinstance(item, str | int) for item in items):
            raise BadRequest(f"{name} must be a list of primitive values")
    kept = [item for item in dict.fromkeys([*target, *patch]) if item not in removed]
    return _arrange(kept, order, target)


def _arrange(kept: list[Any], wanted: list[Any], before: list[Any]) -> list[Any]:
    """What is kept, in the patch's order; the others keep their places as well as they can."""
    named = [item for item in wanted if item in kept]
    others = [item for item in kept if item not in named]
    place = {item: index for index, item in enumerate(before)}
    arranged: list[Any] = []
    rest = iter(named)
    following = next(rest, None)
    for item in others:
        while following is not None and not (
            item in place and following in place and place[item] < place[following]
        ):
            arranged.append(following)
            following = next(rest, None)
        arranged.append(item)
    while following is not None:
        arranged.append(following)
        following = next(rest, None)
    return arranged


def _items(document: Document, name: str) -> list[Any]:
    held = document.get(name)
    return held if isinstance(held, list) else []


def _identities(items: Any, key: str) -> list[tuple[str | int, int]]:
    """What tells the items apart: the merge key's value, and its how-manieth occurrence this is."""
    found: list[tuple[str | int, int]] = []
    seen: dict[str | int, int] = {}
    for item in items if isinstance(items, list) else [items]:
        value = item.get(key) if isinstance(item, dict) else None
        if not isinstance(value, str | int):
            raise BadRequest(f"map: {item} does not contain declared merge key: {key}")
        seen[value] = seen.get(value, -1) + 1
        found.append((value, seen[value]))
    return found
