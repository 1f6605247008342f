"""Server-side apply on values: lay a configuration over a document, take out what was dropped.

Pure. Nothing is changed in place: a result shares the untouched parts with what it was made from.
Source of the rules: structured-merge-diff (`typed/merge.go`, `merge/update.go`).
"""

from typing import Any

from volagent.api.apply_fields import Fields, Path, is_leaf, item_element, members
from volagent.api.openapi.schema import Form, Shape
from volagent.client.contract import BadRequest


def merge(live: Any, given: Any, form: Form, path: str = "") -> Any:
    """What there is with what is given laid over it.

    Raises `BadRequest` for a list that names an item twice.
    """
    if form.shape is Shape.LIST and not form.whole and isinstance(given, list):
        _check_repetitions([item_element(item, form) for item in given], path)
    if is_leaf(given, form):
        return given
    if is_leaf(live, form):
        live = [] if form.shape is Shape.LIST else {}  # nothing, or nothing that could be merged
    if form.shape is Shape.LIST:
        return _merge_list(live, given, form, path)
    merged = dict(live)
    for element, (value, inner) in members(given, form).items():
        name = element[2:]
        merged[name] = merge(live.get(name), value, inner, f"{path}.{name}")
    return merged


def _merge_list(live: list[Any], given: list[Any], form: Form, path: str) -> list[Any]:
    item_form = Form(form.base, whole=not form.keys)
    before = {item_element(item, form): item for item in live}
    wanted = [item_element(item, form) for item in given]
    kept = dict(before)
    for element, item in zip(wanted, given, strict=True):
        kept[element] = merge(before.get(element), item, item_form, f"{path}[{element[2:]}]")
    return [kept[element] for element in _order(list(before), wanted)]


def _order(before: list[str], wanted: list[str]) -> list[str]:
    """What is named comes in its order; what is not stays before what it stood before."""
    named = set(wanted)
    ordered: list[str] = []
    rest = iter(wanted)
    for element in before:
        if element not in named:
            ordered.append(element)
        elif element not in ordered:
            for following in rest:
                ordered.append(following)
                if following == element:
                    break
    return [*ordered, *rest]


def _check_repetitions(elements: list[str], path: str) -> None:
    seen: set[str] = set()
    for element in elements:
        if element in seen:
            raise BadRequest(f"{path}: duplicate entries for key {element[2:]}")
        seen.add(element)


def prune(value: Any, form: Form, dropped: Fields, path: Path = ()) -> Any:
    """The value without the fields that were dropped."""
    if is_leaf(value, form):
        return value
    kept: list[tuple[str, Any]] = []
    for element, (member, inner) in members(value, form).items():
        here = (*path, element)
        if here not in dropped:
            kept.append((element, prune(member, inner, dropped, here)))
    if form.shape is Shape.LIST:
        return [member for _, member in kept]
    return {element[2:]: member for element, member in kept}
