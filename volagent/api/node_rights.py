"""What an agent may do: see and change its own node's objects, and what its pods use.

An agent is the user `system:node:<name>` of the group `system:nodes`, by its certificate. Objects
without secrets that concern the choice or the making of volumes (claims, volumes, classes, nodes)
may be read by all agents; pods only those of the node; secrets and configMaps only by name, and
only while a pod of the node uses them. A volume may be written when it can only be used on the
node; a claim, when it is to be made there or a pod of the node uses it. What storage nodes may do
beyond that is in `storage_node_rights.py`.

Of Fencings it may read those that name its node, as the one that is kept out or the one that does
it, and write the status of the latter; for them it may read the secrets of the disk's volume.

Kept current from the shared copies; a right may come a moment after the pod that gives it.
"""

from collections.abc import Mapping
from typing import Final

from volagent.api.auth import User, forbid
from volagent.api.fencing_rights import FencingRights
from volagent.api.storage_node_rights import StorageNodeRights
from volagent.client.contract import Resource
from volagent.client.informer import Key
from volagent.client.shared import SharedCopies
from volagent.objects.annotations import SELECTED_NODE
from volagent.objects.meta import Document
from volagent.objects.node_affinity import is_only_on
from volagent.objects.pod import Pod
from volagent.objects.pod_claims import claim_source_of
from volagent.objects.rbac import Action
from volagent.objects.references import (
    Reference,
    environment_references,
    login_references,
    volume_references,
)

NODE_GROUP_NAME = "system:nodes"
NODE_USER_PREFIX = "system:node:"
LEASE_NAMESPACE = "kube-node-lease"

_READ: Final = frozenset({"get", "list", "watch"})
_CHANGE: Final = frozenset({"get", "create", "update", "patch"})
_READABLE: Final = frozenset({
    "nodes", "csinodes", "csidrivers", "persistentvolumes", "persistentvolumeclaims",
    "storageclasses", "volumeattachments", "volumesnapshots", "volumesnapshotcontents",
    "volumesnapshotclasses", "namespaces",
})  # fmt: skip
_COPIES: Final = frozenset({
    "volumesnapshots", "volumesnapshots/status", "volumesnapshotcontents",
    "volumesnapshotcontents/status",
})  # fmt: skip
_OWN: Final = frozenset({"nodes", "nodes/status", "csinodes"})
_OWN_PODS: Final = frozenset({"get", "update", "patch", "delete"})
_KINDS: Final[Mapping[str, str]] = {"secrets": "Secret", "configmaps": "ConfigMap"}


def node_of(user: User) -> str:
    """The node that a user is the agent of, or ""."""
    if NODE_GROUP_NAME in user.groups and user.name.startswith(NODE_USER_PREFIX):
        return user.name.removeprefix(NODE_USER_PREFIX)
    return ""


class NodeRights:
    """Answers whether an agent may do something."""

    def __init__(self, copies: SharedCopies) -> None:
        """Before `copies.run`."""
        self._copies = copies
        self._storage = StorageNodeRights(copies)
        self._pods: dict[str, dict[Key, Pod]] = {}
        """Node → its pods."""
        copies.pods.listen(self._pod_changed)
        self._fencings = FencingRights(copies)

    def may(self, node: str, action: Action, field_selector: str = "") -> bool:
        """Whether the agent of a node may do something."""
        verb, resource = action.verb, action.resource
        if resource in _READABLE and verb in _READ:
            return True
        if resource in _OWN:
            return verb in _CHANGE and action.name in ("", node)
        if resource in _COPIES:
            return verb != "deletecollection"
        if resource == "events":
            return verb in _CHANGE
        return self._may_here(node, action, field_selector)

    def _may_here(self, node: str, action: Action, field_selector: str) -> bool:
        """What depends on the pods and volumes of the node."""
        verb = action.verb
        match action.resource:
            case "pods" | "pods/status":
                return self._may_pod(node, action, field_selector)
            case "fencings" | "fencings/status":
                return self._fencings.may(node, action, field_selector)
            case "leases":
                return action.namespace == LEASE_NAMESPACE and action.name in ("", node)
            case "secrets" | "configmaps":
                used = verb in _READ and self._may_read(node, action, field_selector)
                return used or self._storage.may_write_secret(node, action)
            case "volumeattachments":
                return verb == "patch" and self._storage.may_answer(node, action.name)
            case "serviceaccounts/token":
                return verb == "create" and self._uses_account(node, action)
            case "persistentvolumes" | "persistentvolumes/status":
                return verb == "create" or self._is_on_node(node, action.name)
            case "persistentvolumeclaims" | "persistentvolumeclaims/status":
                return verb in ("patch", "update") and self._may_change_claim(node, action)
            case _:
                return False

    def check_new(self, user: User, node: str, resource: Resource, new: Document) -> None:
        """An object that an agent makes is its own node's. Raises `Forbidden`."""
        name = (new.get("metadata") or {}).get("name", "")
        if resource.plural in ("nodes", "csinodes", "leases") and name != node:
            raise forbid(user, "create", f"{resource.plural} {name!r}: it is not its own")
        if resource.plural == "secrets":
            self._storage.check_secret(user, node, new)
        if resource.plural == "persistentvolumes" and not (
            is_only_on((new.get("spec") or {}).get("nodeAffinity"), node)
            or self._storage.is_made_by(node, new)
        ):
            raise forbid(user, "create", f"persistentvolumes {name!r}: it is not of this node only")

    def _may_pod(self, node: str, action: Action, field_selector: str) -> bool:
        if action.verb in ("list", "watch"):
            return f"spec.nodeName={node}" in field_selector.split(",")
        key = (action.namespace, action.name)
        return action.verb in _OWN_PODS and key in self._pods.get(node, {})

    def _may_read(self, node: str, action: Action, field_selector: str) -> bool:
        name = action.name or _name_in(field_selector)
        reference: Reference = (_KINDS[action.resource], action.namespace, name)
        if self._fencings.needs(node, reference):
            return True
        return any(
            reference in environment_references(pod)
            or reference in volume_references(pod)
            or self._logs_in_with(pod, reference)
            for pod in self._pods.get(node, {}).values()
        )

    def _logs_in_with(self, pod: Pod, reference: Reference) -> bool:
        """Whether a volume of a pod's claims is reached with a secret."""
        namespace = pod.metadata.namespace
        for volume in pod.spec.volumes or ():
            source = claim_source_of(pod, volume)
            claim = self._copies.claims.get(namespace, source.claim_name) if source else None
            bound = self._copies.volumes.get("", claim.spec.volume_name) if claim else None
            taken = bound.spec.claim_ref if bound is not None else None
            if bound is None or claim is None or taken is None:
                continue
            mine = taken.uid == claim.metadata.uid
            if mine and reference in login_references(bound, namespace):
                return True
        return False

    def _uses_account(self, node: str, action: Action) -> bool:
        return any(
            pod.metadata.namespace == action.namespace
            and (pod.spec.service_account_name or "default") == action.name
            for pod in self._pods.get(node, {}).values()
        )

    def _is_on_node(self, node: str, name: str) -> bool:
        volume = self._copies.volumes.get("", name)
        return volume is not None and (
            is_only_on(volume.spec.node_affinity, node) or self._storage.has_made(node, volume)
        )

    def _may_change_claim(self, node: str, action: Action) -> bool:
        claim = self._copies.claims.get(action.namespace, action.name)
        if claim is None:
            return False
        if self._storage.may_make(node, claim):
            return True
        if (claim.metadata.annotations or {}).get(SELECTED_NODE, node) == node:
            return True
        return any(
            source is not None and source.claim_name == action.name
            for pod in self._pods.get(node, {}).values()
            if pod.metadata.namespace == action.namespace
            for source in (claim_source_of(pod, volume) for volume in pod.spec.volumes or ())
        )

    def _pod_changed(self, key: Key, old: Pod | None, new: Pod | None) -> None:
        if old is not None and old.spec.node_name:
            pods = self._pods.get(old.spec.node_name, {})
            pods.pop(key, None)
            if not pods:
                self._pods.pop(old.spec.node_name, None)
        if new is not None and new.spec.node_name:
            self._pods.setdefault(new.spec.node_name, {})[key] = new


def _name_in(field_selector: str) -> str:
    """The one name that a selection is for, or ""."""
    terms = [term for term in field_selector.split(",") if term.startswith("metadata.name=")]
    return terms[0].partition("=")[2].removeprefix("=") if len(terms) == 1 else ""
