"""Rules for what a pod says about its node, and for a node's taints.

Source: Kubernetes `pkg/apis/core/validation/validation.go` (`validateAffinity`,
`ValidateTolerations`, `validateTopologySpreadConstraints`, `validateNodeTaints`).
"""

from collections.abc import Sequence

from volagent.objects.field_errors import (
    FieldError,
    duplicate,
    forbidden,
    invalid,
    not_supported,
    required,
)
from volagent.objects.names import check_label_value, check_qualified
from volagent.objects.pod import PodSpec
from volagent.objects.scheduling import (
    DO_NOT_SCHEDULE,
    NO_EXECUTE,
    SCHEDULE_ANYWAY,
    TAINT_EFFECTS,
    LabelSelector,
    NodeAffinity,
    NodeSelectorTerm,
    PodAffinity,
    PodAffinityTerm,
    Requirement,
    Taint,
    Toleration,
    TopologySpreadConstraint,
)

_LABEL_OPERATORS = frozenset({"In", "NotIn", "Exists", "DoesNotExist"})
_NODE_OPERATORS = _LABEL_OPERATORS | {"Gt", "Lt"}
_WITH_VALUES = frozenset({"In", "NotIn"})
_POLICIES = frozenset({"Honor", "Ignore"})
_EMPTY = "can not be empty"


def validate_scheduling(spec: PodSpec) -> list[FieldError]:
    """What is wrong with a pod's affinity, tolerations, spread constraints and gates."""
    errors: list[FieldError] = []
    affinity = spec.affinity
    if affinity is not None:
        if affinity.node_affinity is not None:
            errors += _validate_node_affinity(affinity.node_affinity)
        if affinity.pod_affinity is not None:
            errors += _validate_pod_affinity(affinity.pod_affinity, "podAffinity")
        if affinity.pod_anti_affinity is not None:
            errors += _validate_pod_affinity(affinity.pod_anti_affinity, "podAntiAffinity")
    for index, toleration in enumerate(spec.tolerations or ()):
        errors += _validate_toleration(toleration, f"spec.tolerations[{index}]")
    for index, constraint in enumerate(spec.topology_spread_constraints or ()):
        errors += _validate_spread(constraint, f"spec.topologySpreadConstraints[{index}]")
    for index, gate in enumerate(spec.scheduling_gates or ()):
        field = f"spec.schedulingGates[{index}].name"
        errors += [invalid(field, gate.name, reason) for reason in check_qualified(gate.name)]
    if spec.scheduling_gates and spec.node_name:
        text = "cannot be set until all schedulingGates have been cleared"
        errors.append(forbidden("spec.nodeName", text))
    return errors


def validate_taints(taints: Sequence[Taint]) -> list[FieldError]:
    """What is wrong with a node's taints."""
    errors: list[FieldError] = []
    seen: set[tuple[str, str]] = set()
    for index, taint in enumerate(taints):
        field = f"spec.taints[{index}]"
        errors += [
            invalid(f"{field}.key", taint.key, reason) for reason in check_qualified(taint.key)
        ]
        reasons = check_label_value(taint.value)
        errors += [invalid(f"{field}.value", taint.value, reason) for reason in reasons]
        errors += _validate_effect(taint.effect, f"{field}.effect")
        if (taint.key, taint.effect) in seen:
            errors.append(duplicate(field, taint))
        seen.add((taint.key, taint.effect))
    return errors


def _validate_effect(effect: str, field: str) -> list[FieldError]:
    if not effect:
        return [required(field)]
    return [] if effect in TAINT_EFFECTS else [not_supported(field, effect, TAINT_EFFECTS)]


def _validate_node_affinity(affinity: NodeAffinity) -> list[FieldError]:
    errors: list[FieldError] = []
    field = "spec.affinity.nodeAffinity"
    if affinity.required is not None:
        place = f"{field}.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms"
        terms = affinity.required.get("nodeSelectorTerms") or ()
        if not terms:
            errors.append(required(place, "must have at least one node selector term"))
        for index, term in enumerate(terms):
            errors += _validate_term(term, f"{place}[{index}]")
    for index, preferred in enumerate(affinity.preferred or ()):
        place = f"{field}.preferredDuringSchedulingIgnoredDuringExecution[{index}]"
        errors += _validate_weight(preferred.weight, place)
        errors += _validate_term(preferred.preference or {}, f"{place}.preference")
    return errors


def _validate_term(term: NodeSelectorTerm, field: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, requirement in enumerate(term.get("matchExpressions") or ()):
        place = f"{field}.matchExpressions[{index}]"
        errors += _validate_requirement(requirement, place, _NODE_OPERATORS)
    for index, requirement in enumerate(term.get("matchFields") or ()):
        place = f"{field}.matchFields[{index}]"
        if requirement.get("operator") not in _WITH_VALUES:
            given = requirement.get("operator", "")
            errors.append(not_supported(f"{place}.operator", given, _WITH_VALUES))
        if len(requirement.get("values") or ()) != 1:
            text = "must be only one value when `operator` is 'In' or 'NotIn' for node field"
            errors.append(required(f"{place}.values", text))
        if requirement.get("key") != "metadata.name":
            text = "not a valid field selector key"
            errors.append(invalid(f"{place}.key", requirement.get("key", ""), text))
    return errors


def _validate_requirement(
    requirement: Requirement, field: str, operators: frozenset[str]
) -> list[FieldError]:
    key, operator = requirement.get("key", ""), requirement.get("operator", "")
    values = requirement.get("values") or ()
    errors: list[FieldError] = []
    if operator not in operators:
        text = "not a valid selector operator"
        errors.append(invalid(f"{field}.operator", operator, text))
    elif operator in _WITH_VALUES and not values:
        text = "must be specified when `operator` is 'In' or 'NotIn'"
        errors.append(required(f"{field}.values", text))
    elif operator in ("Exists", "DoesNotExist") and values:
        text = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
        errors.append(forbidden(f"{field}.values", text))
    elif operator in ("Gt", "Lt") and len(values) != 1:
        text = "must be specified single value when `operator` is 'Lt' or 'Gt'"
        errors.append(required(f"{field}.values", text))
    return errors + [invalid(f"{field}.key", key, reason) for reason in check_qualified(key)]


def _validate_pod_affinity(affinity: PodAffinity, name: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, term in enumerate(affinity.required or ()):
        field = f"spec.affinity.{name}.requiredDuringSchedulingIgnoredDuringExecution[{index}]"
        errors += _validate_pod_term(term, field)
    for index, weighted in enumerate(affinity.preferred or ()):
        field = f"spec.affinity.{name}.preferredDuringSchedulingIgnoredDuringExecution[{index}]"
        errors += _validate_weight(weighted.weight, field)
        errors += _validate_pod_term(weighted.pod_affinity_term, f"{field}.podAffinityTerm")
    return errors


def _validate_pod_term(term: PodAffinityTerm, field: str) -> list[FieldError]:
    errors = _validate_selector(term.label_selector, f"{field}.labelSelector")
    errors += _validate_selector(term.namespace_selector, f"{field}.namespaceSelector")
    return errors + _validate_topology_key(term.topology_key, field)


def _validate_selector(selector: LabelSelector | None, field: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, requirement in enumerate((selector or {}).get("matchExpressions") or ()):
        place = f"{field}.matchExpressions[{index}]"
        errors += _validate_requirement(requirement, place, _LABEL_OPERATORS)
    return errors


def _validate_topology_key(key: str, field: str) -> list[FieldError]:
    if not key:
        return [required(f"{field}.topologyKey", _EMPTY)]
    return [invalid(f"{field}.topologyKey", key, reason) for reason in check_qualified(key)]


def _validate_weight(weight: int, field: str) -> list[FieldError]:
    if 1 <= weight <= 100:
        return []
    return [invalid(f"{field}.weight", weight, "must be in the range 1-100")]


def _validate_toleration(toleration: Toleration, field: str) -> list[FieldError]:
    errors: list[FieldError] = []
    if toleration.key:
        reasons = check_qualified(toleration.key)
        errors += [invalid(f"{field}.key", toleration.key, reason) for reason in reasons]
    elif toleration.operator != "Exists":
        text = 'operator must be Exists when `key` is empty, which means "match all values and'
        errors.append(invalid(f"{field}.operator", toleration.operator, f'{text} all keys"'))
    if toleration.toleration_seconds is not None and toleration.effect != NO_EXECUTE:
        text = "effect must be 'NoExecute' when `tolerationSeconds` is set"
        errors.append(invalid(f"{field}.effect", toleration.effect, text))
    if toleration.operator in ("", "Equal"):
        reasons = check_label_value(toleration.value)
        errors += [invalid(f"{field}.operator", toleration.value, reason) for reason in reasons]
    elif toleration.operator != "Exists":
        errors.append(not_supported(f"{field}.operator", toleration.operator, ("Equal", "Exists")))
    elif toleration.value:
        text = "value must be empty when `operator` is 'Exists'"
        errors.append(invalid(f"{field}.operator", toleration.value, text))
    if toleration.effect:
        errors += _validate_effect(toleration.effect, f"{field}.effect")
    return errors


def _validate_spread(constraint: TopologySpreadConstraint, field: str) -> list[FieldError]:
    errors = _validate_topology_key(constraint.topology_key, field)
    if constraint.max_skew <= 0:
        text = "must be greater than zero"
        errors.append(invalid(f"{field}.maxSkew", constraint.max_skew, text))
    modes = (DO_NOT_SCHEDULE, SCHEDULE_ANYWAY)
    if constraint.when_unsatisfiable not in modes:
        place = f"{field}.whenUnsatisfiable"
        errors.append(not_supported(place, constraint.when_unsatisfiable, modes))
    if constraint.min_domains is not None:
        place = f"{field}.minDomains"
        if constraint.min_domains <= 0:
            text = "must be greater than zero"
            errors.append(invalid(place, constraint.min_domains, text))
        if constraint.when_unsatisfiable != DO_NOT_SCHEDULE:
            text = "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not"
            given = constraint.when_unsatisfiable
            errors.append(invalid(place, constraint.min_domains, f'{text} "{given}"'))
    for name, policy in (
        ("nodeAffinityPolicy", constraint.node_affinity_policy),
        ("nodeTaintsPolicy", constraint.node_taints_policy),
    ):
        if policy is not None and policy not in _POLICIES:
            errors.append(not_supported(f"{field}.{name}", policy, _POLICIES))
    return errors + _validate_selector(constraint.label_selector, f"{field}.labelSelector")
