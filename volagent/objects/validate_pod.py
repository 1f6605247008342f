"""Rules for pods: a new one, and what may change in one that exists.

Source: Kubernetes `pkg/apis/core/validation/validation.go` (`ValidatePodSpec`,
`ValidatePodUpdate`).
"""

from typing import Any

from volagent.objects.field_errors import (
    FieldError,
    forbidden,
    invalid,
    not_supported,
)
from volagent.objects.meta import Document
from volagent.objects.names import check_label, check_subdomain
from volagent.objects.pod import Pod, PodSecurityContext, PodSpec
from volagent.objects.reading import read_optional
from volagent.objects.validate_containers import validate_containers, validate_id
from volagent.objects.validate_meta import validate_labels, validate_metadata
from volagent.objects.validate_scheduling import validate_scheduling
from volagent.objects.validate_volumes import validate_volumes

RESTART_POLICIES = frozenset({"Always", "OnFailure", "Never"})
CHANGE_POLICIES = frozenset({"OnRootMismatch", "Always"})
_MAX_DEADLINE_S = 2**31 - 1
_MUTABLE = (
    "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,"
    "`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)


def validate_pod(pod: Pod, document: Document) -> list[FieldError]:
    """What is wrong with a new pod; `document` is the same as given."""
    errors = validate_metadata(pod.metadata, namespaced=True)
    spec, raw = pod.spec, document.get("spec") or {}
    if spec.volumes:
        errors += validate_volumes(spec.volumes, raw["volumes"])
    errors += validate_containers(spec)
    errors += _validate_spec(spec)
    errors += validate_scheduling(spec)
    deadline_s = read_optional(raw, "activeDeadlineSeconds", int, "spec.activeDeadlineSeconds")
    if deadline_s is not None:
        errors += _validate_deadline(deadline_s)
    return errors


def _validate_spec(spec: PodSpec) -> list[FieldError]:
    errors: list[FieldError] = []
    if spec.restart_policy and spec.restart_policy not in RESTART_POLICIES:
        errors.append(not_supported("spec.restartPolicy", spec.restart_policy, RESTART_POLICIES))
    grace_s = spec.termination_grace_period_seconds
    if grace_s is not None and grace_s < 0:
        field = "spec.terminationGracePeriodSeconds"
        errors.append(invalid(field, grace_s, "must be greater than or equal to 0"))
    for name, value in (
        ("nodeName", spec.node_name), ("serviceAccountName", spec.service_account_name),
    ):  # fmt: skip
        if value:
            errors += [invalid(f"spec.{name}", value, reason) for reason in check_subdomain(value)]
    if spec.hostname:
        reasons = check_label(spec.hostname)
        errors += [invalid("spec.hostname", spec.hostname, reason) for reason in reasons]
    if spec.node_selector:
        errors += validate_labels(spec.node_selector, "spec.nodeSelector")
    if spec.security_context is not None:
        errors += _validate_security(spec.security_context)
    return errors


def _validate_security(context: PodSecurityContext) -> list[FieldError]:
    field = "spec.securityContext"
    errors = validate_id(context.run_as_user, f"{field}.runAsUser")
    errors += validate_id(context.run_as_group, f"{field}.runAsGroup")
    errors += validate_id(context.fs_group, f"{field}.fsGroup")
    for index, group in enumerate(context.supplemental_groups or ()):
        errors += validate_id(group, f"{field}.supplementalGroups[{index}]")
    policy = context.fs_group_change_policy
    if policy is not None and policy not in CHANGE_POLICIES:
        errors.append(not_supported(f"{field}.fsGroupChangePolicy", policy, CHANGE_POLICIES))
    return errors


def _validate_deadline(deadline_s: int) -> list[FieldError]:
    if 1 <= deadline_s <= _MAX_DEADLINE_S:
        return []
    text = f"must be between 1 and {_MAX_DEADLINE_S}, inclusive"
    return [invalid("spec.activeDeadlineSeconds", deadline_s, text)]


def validate_pod_change(old: Document, new: Document) -> list[FieldError]:
    """What may not change between two valid specs (both with defaults)."""
    before, after = old["spec"], new["spec"]
    if before == after:
        return []
    errors: list[FieldError] = []
    deadline_s = after.get("activeDeadlineSeconds")
    if deadline_s is not None and deadline_s > before.get("activeDeadlineSeconds", _MAX_DEADLINE_S):
        text = "must be less than or equal to previous value"
        errors.append(invalid("spec.activeDeadlineSeconds", deadline_s, text))
    held = before.get("tolerations") or []
    given = after.get("tolerations") or []
    if any(toleration not in given for toleration in held):
        text = "existing toleration can not be modified except its tolerationSeconds"
        errors.append(forbidden("spec.tolerations", text))
    kept = before.get("schedulingGates") or []
    for index, gate in enumerate(after.get("schedulingGates") or ()):
        if kept and gate not in kept:
            text = f"only deletion is allowed, but found new scheduling gate '{gate.get('name')}'"
            errors.append(forbidden(f"spec.schedulingGates[{index}].name", text))
    changed = _fixed_part(before) != _fixed_part(after, before)
    if changed:
        differing = ", ".join(_name_differences(before, after))
        text = f"pod updates may not change fields other than {_MUTABLE}; changed: {differing}"
        errors.append(forbidden("spec", text))
    return errors


def _fixed_part(spec: Document, before: Document | None = None) -> Document:
    """The spec without what may change."""
    fixed: Document = {**spec}
    for name in ("activeDeadlineSeconds", "tolerations"):
        fixed.pop(name, None)
    for group in ("containers", "initContainers"):
        if group in fixed:
            fixed[group] = [
                {name: value for name, value in container.items() if name != "image"}
                for container in fixed[group]
            ]
    if before is not None:
        if "nodeName" in spec and not before.get("nodeName"):
            del fixed["nodeName"]  # set once, by whoever assigns the pod to a node
        if before.get("schedulingGates"):
            fixed["schedulingGates"] = before["schedulingGates"]  # judged by itself
        grace, held = "terminationGracePeriodSeconds", before.get("terminationGracePeriodSeconds")
        if isinstance(held, int) and held < 0 and spec.get(grace) == 1:
            fixed[grace] = held
    return fixed


def _name_differences(before: Document, after: Document) -> list[str]:
    missing: Any = object()
    names = [*before, *(name for name in after if name not in before)]
    return [f"spec.{n}" for n in names if before.get(n, missing) != after.get(n, missing)]
