"""Whether a node affinity (`nodeSelectorTerms`) admits a node. Pure."""

from collections.abc import Callable, Mapping
from typing import Any

HOSTNAME = "kubernetes.io/hostname"


def admits_node(
    affinity: Mapping[str, Any] | None, labels: Mapping[str, str], name: str = ""
) -> bool:
    """Kubernetes' `nodeAffinity.required`: any term, all of a term's expressions.

    Source: component-helpers `scheduling/corev1/nodeaffinity`. No affinity admits every node; a
    required selector without terms admits none. `name` is the node's, for `matchFields`; without
    it the host name's label is taken.
    """
    required = (affinity or {}).get("required")
    if required is None:
        return True
    terms = required.get("nodeSelectorTerms") or ()
    return any(term_admits(term, labels, name) for term in terms)


def term_admits(term: Mapping[str, Any], labels: Mapping[str, str], name: str = "") -> bool:
    """Whether one node selector term admits a node; an empty one admits none."""
    expressions = term.get("matchExpressions") or []
    fields = term.get("matchFields") or []
    if not expressions and not fields:
        return False
    name = name or labels.get(HOSTNAME, "")
    return all(_fits(e, labels) for e in expressions) and all(
        _fits(f, {"metadata.name": name}) for f in fields
    )


def is_only_on(affinity: Mapping[str, Any] | None, hostname: str) -> bool:
    """Whether every term asks for this host by its name, and for no other. False when malformed."""
    required = affinity.get("required") if isinstance(affinity, Mapping) else None
    terms = required.get("nodeSelectorTerms") if isinstance(required, Mapping) else None
    if not isinstance(terms, list) or not terms:
        return False
    wanted = {"key": HOSTNAME, "operator": "In", "values": [hostname]}
    return all(
        isinstance(term, Mapping) and wanted in (term.get("matchExpressions") or ())
        for term in terms
    )


def _fits(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    value = labels.get(expression.get("key", ""))
    test = _OPERATORS.get(expression.get("operator", ""))
    return test is not None and test(value, expression.get("values") or [])


def _compare(value: str | None, values: list[Any], sign: int) -> bool:
    try:
        return value is not None and (int(value) - int(values[0])) * sign > 0
    except (ValueError, IndexError):
        return False


_OPERATORS: dict[str, Callable[[str | None, list[Any]], bool]] = {
    "In": lambda value, values: value in values,
    "NotIn": lambda value, values: value not in values,
    "Exists": lambda value, _: value is not None,
    "DoesNotExist": lambda value, _: value is None,
    "Gt": lambda value, values: _compare(value, values, 1),
    "Lt": lambda value, values: _compare(value, values, -1),
}
