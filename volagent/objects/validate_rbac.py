"""Rules for roles and bindings, new and changed.

Source: Kubernetes `pkg/apis/rbac/validation/validation.go`.
"""

from typing import Any

from volagent.objects.field_errors import FieldError, invalid, not_supported, required
from volagent.objects.meta import Document
from volagent.objects.rbac import PolicyRule, RbacSubject, Role, RoleBinding
from volagent.objects.validate_meta import validate_metadata

_SUBJECTS = frozenset({"User", "Group", "ServiceAccount"})
_ROLES = frozenset({"Role", "ClusterRole"})


def check_path_segment(name: str) -> tuple[str, ...]:
    """Why a text cannot be the name of a role: anything that can stand in a URL's path may."""
    if name in (".", ".."):
        return (f"may not be '{name}'",)
    return tuple(f"may not contain '{sign}'" for sign in "/%" if sign in name)


def validate_role(role: Role, document: Document) -> list[FieldError]:
    """What is wrong with a Role or ClusterRole."""
    namespaced = document.get("kind") == "Role"
    errors = validate_metadata(
        role.metadata, namespaced=namespaced, check_name=check_path_segment
    )  # fmt: skip
    for index, rule in enumerate(role.rules or ()):
        errors += _validate_rule(rule, f"rules[{index}]", namespaced=namespaced)
    return errors


def _validate_rule(rule: PolicyRule, field: str, *, namespaced: bool) -> list[FieldError]:
    if not rule.verbs:
        return [required(f"{field}.verbs", "verbs must contain at least one value")]
    if rule.non_resource_urls:
        if namespaced:
            text = "namespaced rules cannot apply to non-resource URLs"
            return [invalid(f"{field}.nonResourceURLs", rule.non_resource_urls, text)]
        if rule.resources or rule.api_groups or rule.resource_names:
            text = "rules cannot apply to both regular resources and non-resource URLs"
            return [invalid(f"{field}.nonResourceURLs", rule.non_resource_urls, text)]
        return []
    errors: list[FieldError] = []
    if not rule.api_groups:
        text = "resource rules must supply at least one api group"
        errors.append(required(f"{field}.apiGroups", text))
    if not rule.resources:
        text = "resource rules must supply at least one resource"
        errors.append(required(f"{field}.resources", text))
    return errors


def validate_binding(binding: RoleBinding, document: Document) -> list[FieldError]:
    """What is wrong with a RoleBinding or ClusterRoleBinding."""
    namespaced = document.get("kind") == "RoleBinding"
    errors = validate_metadata(
        binding.metadata, namespaced=namespaced, check_name=check_path_segment
    )  # fmt: skip
    reference = binding.role_ref
    kinds = _ROLES if namespaced else frozenset({"ClusterRole"})
    if reference.kind not in kinds:
        errors.append(not_supported("roleRef.kind", reference.kind, kinds))
    if not reference.name:
        errors.append(required("roleRef.name"))
    for index, subject in enumerate(binding.subjects or ()):
        errors += _validate_subject(subject, f"subjects[{index}]", namespaced=namespaced)
    return errors


def _validate_subject(subject: RbacSubject, field: str, *, namespaced: bool) -> list[FieldError]:
    if not subject.name:
        return [required(f"{field}.name")]
    if subject.kind not in _SUBJECTS:
        return [not_supported(f"{field}.kind", subject.kind, _SUBJECTS)]
    if subject.kind == "ServiceAccount" and not subject.namespace and not namespaced:
        return [required(f"{field}.namespace")]
    return []


def validate_binding_change(old: Document, new: Document) -> list[FieldError]:
    """The role of a binding is fixed: who gets another role gets another binding."""
    before: Any = old.get("roleRef")
    if before == new.get("roleRef"):
        return []
    return [invalid("roleRef", new.get("roleRef"), "cannot change roleRef")]
