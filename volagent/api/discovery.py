"""What the server offers: `/api`, `/apis`, `/version`.

Built once from the table of resources. What the fields of the kinds are is in `api/openapi/`.
"""

from collections import defaultdict

from volagent.client.contract import RESOURCES, Resource
from volagent.objects.meta import Document

KUBERNETES_MAJOR, KUBERNETES_MINOR = "1", "32"
"""The version of the Kubernetes API whose conventions are spoken."""

_STATUS_KINDS = {
    "Pod", "Node", "Namespace", "PersistentVolume", "PersistentVolumeClaim", "VolumeAttachment",
    "VolumeSnapshot", "VolumeSnapshotContent", "Fencing",
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
    for (group, version), resources in by_version.items():
        if group:
            groups[group].append(version)
        root = f"/apis/{group}/{version}" if group else f"/api/{version}"
        documents[root] = _resource_list(resources)
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
