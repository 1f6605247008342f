"""The ClusterRoles and bindings that are there from the start, as in any cluster.

They are made when they are missing, and never changed after: who changes them means it.
"""

from volagent.client.contract import CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, AlreadyExists, Client
from volagent.objects.meta import Document

_READ = ["get", "list", "watch"]
_WRITE = ["create", "delete", "deletecollection", "patch", "update"]
_EVERY = ["*"]
_NAMESPACED = [
    "pods", "pods/status", "persistentvolumeclaims", "persistentvolumeclaims/status", "configmaps",
    "events", "endpoints", "serviceaccounts",
]  # fmt: skip
_AUTHENTICATED = "system:authenticated"
_UNAUTHENTICATED = "system:unauthenticated"


def _rule(verbs: list[str], groups: list[str], resources: list[str]) -> Document:
    return {"verbs": verbs, "apiGroups": groups, "resources": resources}


def _paths(*urls: str) -> Document:
    return {"verbs": ["get"], "nonResourceURLs": list(urls)}


_VIEW = [
    _rule(_READ, [""], [*_NAMESPACED, "namespaces"]),
    _rule(_READ, ["snapshot.storage.k8s.io"], ["volumesnapshots"]),
]
_EDIT = [
    *_VIEW,
    _rule([*_READ, *_WRITE], [""], [*_NAMESPACED, "secrets"]),
    _rule(["create"], [""], ["serviceaccounts/token"]),
    _rule([*_READ, *_WRITE], ["snapshot.storage.k8s.io"], ["volumesnapshots"]),
    _rule([*_READ, *_WRITE], ["coordination.k8s.io"], ["leases"]),
]
_ADMIN = [
    *_EDIT,
    _rule([*_READ, *_WRITE], ["rbac.authorization.k8s.io"], ["roles", "rolebindings"]),
    _rule(["create"], ["authorization.k8s.io"], ["localsubjectaccessreviews"]),
]
_ROLES: dict[str, list[Document]] = {
    "cluster-admin": [
        _rule(_EVERY, _EVERY, _EVERY), {"verbs": _EVERY, "nonResourceURLs": _EVERY},
    ],
    "admin": _ADMIN,
    "edit": _EDIT,
    "view": _VIEW,
    "system:discovery": [
        _paths("/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi", "/openapi/*",
               "/readyz", "/version", "/version/"),
    ],
    "system:public-info-viewer": [
        _paths("/healthz", "/livez", "/readyz", "/version", "/version/"),
    ],
    "system:basic-user": [
        _rule(["create"], ["authorization.k8s.io"],
              ["selfsubjectaccessreviews", "selfsubjectrulesreviews"]),
        _rule(["create"], ["authentication.k8s.io"], ["selfsubjectreviews"]),
    ],
}  # fmt: skip
_BINDINGS = {
    "cluster-admin": ("system:masters",),
    "system:discovery": (_AUTHENTICATED,),
    "system:public-info-viewer": (_AUTHENTICATED, _UNAUTHENTICATED),
    "system:basic-user": (_AUTHENTICATED,),
}


async def ensure_default_roles(client: Client) -> None:
    """Make what is missing."""
    for name, rules in _ROLES.items():
        try:
            await client.create(CLUSTER_ROLES, {"metadata": _metadata(name), "rules": rules})
        except AlreadyExists:
            continue
    for name, groups in _BINDINGS.items():
        subjects = [
            {"kind": "Group", "name": group, "apiGroup": CLUSTER_ROLES.group} for group in groups
        ]
        reference = {"kind": "ClusterRole", "name": name, "apiGroup": CLUSTER_ROLES.group}
        binding = {"metadata": _metadata(name), "subjects": subjects, "roleRef": reference}
        try:
            await client.create(CLUSTER_ROLE_BINDINGS, binding)
        except AlreadyExists:
            continue


def _metadata(name: str) -> Document:
    return {"name": name, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}}
