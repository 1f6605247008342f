"""Label selectors inside objects: `matchLabels` and `matchExpressions`. Pure."""

from collections.abc import Mapping
from typing import Any

_NO_LABELS: Mapping[str, str] = {}


def selects(selector: Mapping[str, Any] | None, labels: Mapping[str, str] | None) -> bool:
    """Whether a selector admits an object with these labels; an empty one admits all.

    Source: apimachinery `LabelSelectorAsSelector`. An operator that Kubernetes does not know admits
    nothing.
    """
    if not selector:
        return True
    held = labels or _NO_LABELS
    wanted = selector.get("matchLabels") or {}
    if any(held.get(key) != value for key, value in wanted.items()):
        return False
    return all(_holds(each, held) for each in selector.get("matchExpressions") or ())


def _holds(requirement: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    value = labels.get(requirement.get("key", ""))
    values = requirement.get("values") or ()
    match requirement.get("operator"):
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case _:
            return False
