"""What the server offers: `/api`, `/apis`, `/version`, and enough OpenAPI for kubectl.

Built once from the table of resources. The OpenAPI document says only that field validation and dry
run are done by the server, which is all that `kubectl apply` asks of it; it describes no types.
"""

from collections import defaultdict

from volagent.client.contract import RESOURCES, Resource
from volagent.objects.meta import Document

KUBERNETES_MAJOR, KUBERNETES_MINOR = "1", "32"
"""The version of the Kubernetes API whose conventions are spoken."""

_STATUS_KINDS = {
    "Pod", "Node", "Namespace", "PersistentVolume", "PersistentVolumeClaim", "VolumeAttachment",
    "VolumeSnapshot", "VolumeSnapshotContent",
}  # fmt: skip
_VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
_CATEGORIES = {"pods": ["all"]}


def version_document(version: str) -> Document:
    """`/version`; `version` is volagent's own."""
    return {
        "major": KUBERNETES_MAJOR,
        "minor": KUBERNETES_MINOR,
        "gitVersion": f"v{KUBERNETES_MAJOR}.{KUBERNETES_MINOR}.0+volagent.{version}",
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "",
        "goVersion": "",
        "compiler": "",
        "platform": "linux",
    }


def discovery_documents() -> dict[str, Document]:
    """Path → document, for everything that is answered without looking at any object."""
    by_version: dict[tuple[str, str], list[Resource]] = defaultdict(list)
    for resource in RESOURCES:
        by_version[(resource.group, resource.version)].append(resource)
    groups: dict[str, list[str]] = defaultdict(list)
    documents: dict[str, Document] = {}
    openapi: dict[str, Document] = {}
    for (group, version), resources in by_version.items():
        if group:
            groups[group].append(version)
        root = f"/apis/{group}/{version}" if group else f"/api/{version}"
        documents[root] = _resource_list(resources)
        documents[f"/openapi/v3{root}"] = _openapi(root, resources)
        openapi[root[1:]] = {"serverRelativeURL": f"/openapi/v3{root}"}
    documents["/openapi/v3"] = {"paths": openapi}
    documents["/api"] = {
        "kind": "APIVersions",
        "versions": [version for group, version in by_version if not group],
        "serverAddressByClientCIDRs": [],
    }
    described = [_group(name, versions) for name, versions in groups.items()]
    documents["/apis"] = {"kind": "APIGroupList", "apiVersion": "v1", "groups": described}
    for entry in described:
        documents[f"/apis/{entry['name']}"] = {"kind": "APIGroup", "apiVersion": "v1", **entry}
    return documents


def _group(name: str, versions: list[str]) -> Document:
    listed = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": listed, "preferredVersion": listed[0]}


def _resource_list(resources: list[Resource]) -> Document:
    entries = []
    for resource in resources:
        entry: Document = {
            "name": resource.plural,
            "singularName": resource.kind.lower(),
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": _VERBS,
        }
        if resource.short_names:
            entry["shortNames"] = [*resource.short_names]
        if resource.plural in _CATEGORIES:
            entry["categories"] = _CATEGORIES[resource.plural]
        entries.append(entry)
        if resource.kind in _STATUS_KINDS:
            entries.append(_subresource(resource, "status", resource.kind, "get patch update"))
        if resource.kind == "Pod":
            entries.append(_subresource(resource, "binding", "Binding", "create"))
        if resource.kind == "ServiceAccount":
            token = _subresource(resource, "token", "TokenRequest", "create")
            entries.append({**token, "group": "authentication.k8s.io", "version": "v1"})
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": resources[0].api_version,
        "resources": entries,
    }


def _subresource(resource: Resource, name: str, kind: str, verbs: str) -> Document:
    return {
        "name": f"{resource.plural}/{name}",
        "singularName": "",
        "namespaced": resource.namespaced,
        "kind": kind,
        "verbs": verbs.split(),
    }


def _openapi(root: str, resources: list[Resource]) -> Document:
    parameters = [
        {"name": name, "in": "query", "schema": {"type": "string"}}
        for name in ("dryRun", "fieldManager", "fieldValidation")
    ]
    paths: Document = {}
    for resource in resources:
        kind = {"group": resource.group, "version": resource.version, "kind": resource.kind}
        place = f"{root}/namespaces/{{namespace}}" if resource.namespaced else root
        paths[f"{place}/{resource.plural}/{{name}}"] = {
            "patch": {
                "x-kubernetes-action": "patch",
                "x-kubernetes-group-version-kind": kind,
                "responses": {"200": {"description": "OK"}},
            },
            "parameters": parameters,
        }
        paths[f"{place}/{resource.plural}/{{name}}"]["patch"]["parameters"] = parameters
    return {
        "openapi": "3.0.0",
        "info": {"title": "volagent", "version": f"v{KUBERNETES_MAJOR}.{KUBERNETES_MINOR}.0"},
        "paths": paths,
        "components": {"schemas": {}},
    }
