"""The OpenAPI v3 documents: one for each group and version, made from the tables when asked for.

kubectl finds in them what it explains, by which keys it merges lists, and that the server checks
fields and does dry runs. They are made anew for each request and not kept: clients keep them, by
the hash in their address. Pure but for reading the tables.
"""

from collections.abc import Iterable, Iterator
from functools import cache
from hashlib import sha256
from typing import Any

from volagent.api.discovery import KUBERNETES_MAJOR, KUBERNETES_MINOR
from volagent.api.openapi.schema import PLAIN, Field, Form, Shape, Type, all_types
from volagent.api.resources import TRAITS, traits_of
from volagent.client.contract import RESOURCES, Resource
from volagent.objects.meta import Document

HASH_CHARS = 32
_PARAMETERS = ("dryRun", "fieldManager", "fieldValidation")
_METHODS = {
    "collection": {"get": "list", "post": "post", "delete": "deletecollection"},
    "object": {"get": "get", "put": "put", "patch": "patch", "delete": "delete"},
    "status": {"get": "get", "put": "put", "patch": "patch"},
}
_MIXED = {
    "quantity": "io.k8s.apimachinery.pkg.api.resource.Quantity",
    "intstr": "io.k8s.apimachinery.pkg.util.intstr.IntOrString",
}
"""Plain values that may be text or a number."""
_MIXED_SCHEMAS: Document = {
    _MIXED["quantity"]: {
        "description": "An amount: a number with an optional suffix such as m, k, M, Gi.",
        "oneOf": [{"type": "string"}, {"type": "number"}],
    },
    _MIXED["intstr"]: {
        "description": "A number or a text.",
        "oneOf": [{"type": "integer"}, {"type": "string"}],
        "format": "int-or-string",
    },
}
_WRITING = frozenset({"post", "put", "patch", "delete"})
_CHANGING = frozenset({"post", "put", "patch"})


def root_of(resource: Resource) -> str:
    """Where a resource's group and version is served: `/api/v1`, `/apis/storage.k8s.io/v1`."""
    return f"/apis/{resource.api_version}" if resource.group else f"/api/{resource.version}"


def openapi_index() -> Document:
    """`/openapi/v3`: where the documents are."""
    roots = dict.fromkeys(root_of(resource) for resource in RESOURCES)
    suffix = f"?hash={tables_hash()}"
    return {
        "paths": {root[1:]: {"serverRelativeURL": f"/openapi/v3{root}{suffix}"} for root in roots}
    }


@cache
def tables_hash() -> str:
    """Changes when any of the documents does."""
    text = repr([(name, repr(found)) for name, found in all_types().items()])
    text += repr([traits.resource for traits in TRAITS])
    return sha256(text.encode()).hexdigest()[:HASH_CHARS].upper()


def openapi_document(path: str) -> Document | None:
    """What is served at a path below `/openapi/v3`; None for one that is not."""
    if path == "/openapi/v3":
        return openapi_index()
    root = path.removeprefix("/openapi/v3")
    resources = [resource for resource in RESOURCES if root_of(resource) == root]
    if root == path or not resources:
        return None
    paths: Document = {}
    for resource in resources:
        paths |= _describe_paths(root, resource)
    kinds = [resource.kind for resource in resources]
    by_kind = {resource.kind: resource for resource in RESOURCES}
    schemas = {
        found.full_name: _describe_type(found, by_kind.get(found.name) if found.is_kind else None)
        for found in _reachable(kinds)
    }
    return {
        "openapi": "3.0.0",
        "info": {"title": "volagent", "version": f"v{KUBERNETES_MAJOR}.{KUBERNETES_MINOR}.0"},
        "paths": paths,
        "components": {"schemas": schemas | _MIXED_SCHEMAS},
    }


def _reachable(kinds: Iterable[str]) -> Iterator[Type]:
    """The types of kinds and all that they are made of."""
    types = all_types()
    waiting = list(kinds)
    seen = set(waiting)
    while waiting:
        found = types[waiting.pop()]
        yield found
        for field in found.fields.values():
            base = field.form.base
            if base not in PLAIN and base not in seen:
                seen.add(base)
                waiting.append(base)


def _describe_paths(root: str, resource: Resource) -> Document:
    place = f"{root}/namespaces/{{namespace}}" if resource.namespaced else root
    paths: Document = {}
    collection = f"{place}/{resource.plural}"
    paths[collection] = _describe_path("collection", resource)
    if resource.namespaced:
        listed = _operation("get", "list", resource)
        paths[f"{root}/{resource.plural}"] = {"get": listed}
    paths[f"{collection}/{{name}}"] = _describe_path("object", resource)
    if traits_of(resource).has_status:
        paths[f"{collection}/{{name}}/status"] = _describe_path("status", resource)
    return paths


def _describe_path(what: str, resource: Resource) -> Document:
    return {
        method: _operation(method, action, resource) for method, action in _METHODS[what].items()
    }


def _operation(method: str, action: str, resource: Resource) -> Document:
    kind = {"group": resource.group, "version": resource.version, "kind": resource.kind}
    operation: Document = {
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": kind,
        "responses": {"200": {"description": "OK"}},
    }
    names = _PARAMETERS if method in _CHANGING else _PARAMETERS[:1] if method in _WRITING else ()
    if names:
        operation["parameters"] = [
            {"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": True}}
            for name in names
        ]
    return operation


def _describe_type(found: Type, resource: Resource | None) -> Document:
    described: Document = {
        "description": found.description,
        "type": "object",
        "properties": {
            name: _describe_field(field) for name, field in sorted(found.fields.items())
        },
    }
    needed = sorted(name for name, field in found.fields.items() if field.required)
    if needed:
        described["required"] = needed
    if found.whole:
        described["x-kubernetes-map-type"] = "atomic"
    if resource is not None:
        described["x-kubernetes-group-version-kind"] = [
            {"group": resource.group, "kind": resource.kind, "version": resource.version}
        ]
    return described


def _describe_field(field: Field) -> Document:
    form = field.form
    described: Document = {"description": field.description} if field.description else {}
    if form.default:
        described["default"] = form.default
    value = _describe_value(form)
    match form.shape:
        case Shape.SINGLE:
            if "$ref" in value and described:
                return described | {"allOf": [value]}
            return described | value
        case Shape.MAP:
            whole: Document = {"x-kubernetes-map-type": "atomic"} if form.whole else {}
            return described | {"type": "object", "additionalProperties": value} | whole
        case Shape.LIST:
            return described | {"type": "array", "items": value} | _describe_merging(form)


def _describe_merging(form: Form) -> Document:
    if form.whole:
        return {"x-kubernetes-list-type": "atomic"}
    strategy = f"merge,{form.patch}" if form.patch else "merge"
    if not form.keys:
        return {"x-kubernetes-list-type": "set", "x-kubernetes-patch-strategy": strategy}
    return {
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": [*form.keys],
        "x-kubernetes-patch-merge-key": form.keys[0],
        "x-kubernetes-patch-strategy": strategy,
    }


def _describe_value(form: Form) -> Document:
    if form.base not in PLAIN:
        return {"$ref": f"#/components/schemas/{all_types()[form.base].full_name}"}
    kind, detail = PLAIN[form.base]
    if form.base in _MIXED:
        return {"$ref": f"#/components/schemas/{_MIXED[form.base]}"}
    value: dict[str, Any] = {"type": kind}
    if detail:
        value["format"] = detail
    return value
