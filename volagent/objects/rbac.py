"""Typed views of roles and bindings, and what their rules allow. Pure.

Rules only ever allow; there is none that forbids. Source: Kubernetes
`plugin/pkg/auth/authorizer/rbac` and `pkg/apis/rbac/v1/evaluation_helpers.go`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from volagent.objects.meta import TypedObject, View

SERVICE_ACCOUNT_PREFIX = "system:serviceaccount:"


class PolicyRule(View, frozen=True):
    """Verbs on resources, or on paths."""

    verbs: list[str] | None = None
    api_groups: list[str] | None = None
    resources: list[str] | None = None
    resource_names: list[str] | None = None
    non_resource_urls: list[str] | None = msgspec.field(default=None, name="nonResourceURLs")


class RbacSubject(View, frozen=True):
    """Whom a binding is for: a User, a Group, a ServiceAccount."""

    kind: str = ""
    name: str = ""
    namespace: str = ""
    api_group: str = ""


class RoleRef(View, frozen=True):
    """The role that a binding gives."""

    kind: str = ""
    name: str = ""
    api_group: str = ""


class AggregationRule(View, frozen=True):
    """Which ClusterRoles are collected into one."""

    cluster_role_selectors: list[dict[str, Any]] | None = None


class Role(TypedObject, frozen=True):
    """A Role or ClusterRole."""

    rules: list[PolicyRule] | None = None
    aggregation_rule: AggregationRule | None = None


class RoleBinding(TypedObject, frozen=True):
    """A RoleBinding or ClusterRoleBinding."""

    subjects: list[RbacSubject] | None = None
    role_ref: RoleRef = RoleRef()


@dataclass(frozen=True, slots=True)
class Action:
    """What somebody wants to do: on a resource, or (with `path`) on a path."""

    verb: str
    group: str = ""
    resource: str = ""
    """With its sub-resource: `pods`, `pods/status`."""
    namespace: str = ""
    name: str = ""
    path: str = ""


def allows(rules: Iterable[PolicyRule], action: Action) -> bool:
    """Whether any of the rules allows an action."""
    return any(_allows(rule, action) for rule in rules)


def _allows(rule: PolicyRule, action: Action) -> bool:
    if not _has(rule.verbs, action.verb):
        return False
    if action.path:
        return any(_covers_path(url, action.path) for url in rule.non_resource_urls or ())
    if not _has(rule.api_groups, action.group) or not _has_resource(rule.resources, action):
        return False
    return not rule.resource_names or action.name in rule.resource_names


def _has(values: list[str] | None, wanted: str) -> bool:
    return any(value in ("*", wanted) for value in values or ())


def _has_resource(resources: list[str] | None, action: Action) -> bool:
    _, _, subresource = action.resource.partition("/")
    any_of_it = f"*/{subresource}" if subresource else ""
    return any(value in ("*", action.resource, any_of_it) for value in resources or () if value)


def _covers_path(url: str, path: str) -> bool:
    return url in ("*", path) or (url.endswith("*") and path.startswith(url[:-1]))


def covers(rules: Iterable[PolicyRule], wanted: PolicyRule) -> bool:
    """Whether rules together allow all that one rule allows: what may be given away."""
    held = list(rules)
    names = wanted.resource_names or [""]
    for verb in wanted.verbs or ():
        for path in wanted.non_resource_urls or ():
            if not allows(held, Action(verb, path=path)):
                return False
        for group in wanted.api_groups or ():
            for resource in wanted.resources or ():
                for name in names:
                    if not allows(held, Action(verb, group, resource, name=name)):
                        return False
    return True


def is_for(subject: RbacSubject, name: str, groups: frozenset[str]) -> bool:
    """Whether a binding's subject is this user."""
    match subject.kind:
        case "User":
            return subject.name == name
        case "Group":
            return subject.name in groups
        case "ServiceAccount":
            return name == f"{SERVICE_ACCOUNT_PREFIX}{subject.namespace}:{subject.name}"
        case _:
            return False
