"""Whether a node affinity (`nodeSelectorTerms`) admits a node. Pure."""

from collections.abc import Callable, Mapping
from typing import Any

from volagent.objects.meta import Document


def admits_node(affinity: Document | None, labels: Mapping[str, str]) -> bool:
    """Kubernetes' `nodeAffinity.required`: any term, all of a term's expressions.

    Source: component-helpers `scheduling/corev1/nodeaffinity`. No affinity admits every node; a
    required selector without terms admits none.
    """
    required = (affinity or {}).get("required")
    if required is None:
        return True
    return any(_term_fits(term, labels) for term in required.get("nodeSelectorTerms") or ())


def _term_fits(term: Document, labels: Mapping[str, str]) -> bool:
    expressions = term.get("matchExpressions") or []
    fields = term.get("matchFields") or []
    if not expressions and not fields:
        return False
    name = labels.get("kubernetes.io/hostname", "")
    return all(_fits(e, labels) for e in expressions) and all(
        _fits(f, {"metadata.name": name}) for f in fields
    )


def _fits(expression: Document, labels: Mapping[str, str]) -> bool:
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
