"""Who may do what: roles and bindings, kept current from the shared copies.

Members of `system:masters` may do everything and are never asked. A right is there when any
binding for the user, or one of their groups, gives it: a ClusterRoleBinding everywhere, a
RoleBinding in its namespace. Nobody can give away what they do not have.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from volagent.api.auth import User
from volagent.api.node_rights import NodeRights, node_of
from volagent.client.contract import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    ROLE_BINDINGS,
    ROLES,
    Forbidden,
    Resource,
)
from volagent.client.shared import Followed, SharedCopies
from volagent.objects.label_selector import selects
from volagent.objects.meta import Document
from volagent.objects.rbac import Action, PolicyRule, Role, RoleBinding, allows, covers, is_for


class Authorizer:
    """Answers whether a user may do something."""

    def __init__(self, copies: SharedCopies) -> None:
        """Before `copies.run`."""
        self._nodes = NodeRights(copies)
        self._roles = copies.follow(ROLES, Role)
        self._cluster_roles = copies.follow(CLUSTER_ROLES, Role)
        self._bindings = copies.follow(ROLE_BINDINGS, RoleBinding)
        self._cluster_bindings = copies.follow(CLUSTER_ROLE_BINDINGS, RoleBinding)

    def may(self, user: User, action: Action, field_selector: str = "") -> bool:
        """Whether a user may do something; `field_selector` is that of a list or a watch."""
        if user.is_admin:
            return True
        node = node_of(user)
        if node and self._nodes.may(node, action, field_selector):
            return True  # nearly all that an agent asks: no binding has to be looked at
        return allows(self.rules_of(user, action.namespace), action)

    def check_new(self, user: User, resource: Resource, new: Document) -> None:
        """What an agent makes is its own node's. Raises `Forbidden`."""
        node = node_of(user)
        if node and not user.is_admin:
            self._nodes.check_new(user, node, resource, new)

    def rules_of(self, user: User, namespace: str) -> Iterator[PolicyRule]:
        """All rules that a user has in a namespace ("" for none: the cluster)."""
        yield from self._rules_by(self._cluster_bindings, user, "")
        if namespace:
            yield from self._rules_by(self._bindings, user, namespace)

    def _rules_by(
        self, bindings: Followed[RoleBinding], user: User, namespace: str
    ) -> Iterator[PolicyRule]:
        for binding in bindings.values():
            if binding.metadata.namespace != namespace:
                continue
            if any(is_for(subject, user.name, user.groups) for subject in binding.subjects or ()):
                reference = binding.role_ref
                yield from self._rules_in(reference.kind, reference.name, namespace)

    def _rules_in(self, kind: str, name: str, namespace: str) -> list[PolicyRule]:
        if kind == "Role":
            role = self._roles.get(namespace, name)
            return list(role.rules or ()) if role is not None else []
        role = self._cluster_roles.get("", name)
        if role is None:
            return []
        rules = list(role.rules or ())
        aggregation = role.aggregation_rule
        for selector in (aggregation.cluster_role_selectors if aggregation else None) or ():
            for other in self._cluster_roles.values():
                if other is not role and selects(selector, other.metadata.labels):
                    rules += other.rules or ()
        return rules

    def check_escalation(self, user: User, resource: Resource, new: Document) -> None:
        """A role or binding that a user writes gives nothing that they do not have.

        Raises `Forbidden`.
        """
        if user.is_admin or resource.group != ROLES.group:
            return
        namespace = new.get("metadata", {}).get("namespace", "")
        verb = "bind" if resource in (ROLE_BINDINGS, CLUSTER_ROLE_BINDINGS) else "escalate"
        wanted = self._given_by(resource, new, namespace)
        reference: dict[str, Any] = new.get("roleRef") or {}
        subject = "clusterroles" if reference.get("kind") != "Role" else "roles"
        named = reference.get("name", "") if verb == "bind" else new["metadata"].get("name", "")
        target = subject if verb == "bind" else resource.plural
        if self.may(user, Action(verb, ROLES.group, target, namespace, named)):
            return
        held = list(self.rules_of(user, namespace))
        missing = [rule for rule in wanted if not covers(held, rule)]
        if missing:
            raise Forbidden(
                f'user "{user.name}" (groups={sorted(user.groups)}) is attempting to grant RBAC'
                f" permissions not currently held: {_describe(missing[0])}"
            )

    def _given_by(self, resource: Resource, new: Document, namespace: str) -> list[PolicyRule]:
        if resource in (ROLES, CLUSTER_ROLES):
            return list(msgspec.convert(new, Role).rules or ())
        reference = msgspec.convert(new, RoleBinding).role_ref
        return self._rules_in(reference.kind, reference.name, namespace)


def _describe(rule: PolicyRule) -> str:
    parts = {
        "APIGroups": rule.api_groups, "Resources": rule.resources,
        "ResourceNames": rule.resource_names, "NonResourceURLs": rule.non_resource_urls,
        "Verbs": rule.verbs,
    }  # fmt: skip
    return "{" + ", ".join(f"{name}:{value}" for name, value in parts.items() if value) + "}"
