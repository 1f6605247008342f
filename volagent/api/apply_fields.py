"""Which fields a document has, as sets of paths, and how two documents differ. Pure.

A path is a tuple of elements in the notation of `fieldsV1`: `f:NAME` a member of an object,
`k:{...}` an item of a list of objects by its merge keys, `v:...` an item of a list that is a set.
What is replaced as a whole is one path, however large. Source of the rules: structured-merge-diff
(`typed/tofieldset.go`, `typed/merge.go`).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from volagent.api.openapi.schema import PLAIN, Form, Shape, all_types
from volagent.objects.meta import Document
from volagent.objects.quantities import canonical_text

Path = tuple[str, ...]
Fields = frozenset[Path]
NO_FIELDS: Fields = frozenset()
_LEAF = Form("object")
_ENCODER = msgspec.json.Encoder(order="sorted")
_DECODER = msgspec.json.Decoder()


def form_of(kind: str) -> Form:
    """The form of a whole object of a kind."""
    return Form(kind, whole=False) if kind in all_types() else _LEAF


def is_leaf(value: Any, form: Form) -> bool:
    """Whether a value is one field; so is a list in which two items cannot be told apart."""
    if form.whole or (form.shape is not Shape.LIST and not isinstance(value, dict)):
        return True
    if form.shape is Shape.LIST:
        if not isinstance(value, list):
            return True
        return len(value) > 1 and len({item_element(item, form) for item in value}) < len(value)
    if form.shape is Shape.MAP:
        return False
    return form.base in PLAIN or (all_types()[form.base].whole and not form.merged)


def members(value: Any, form: Form) -> Mapping[str, tuple[Any, Form]]:
    """What a value that is no leaf consists of: element → value and form."""
    if form.shape is Shape.LIST:
        item_form = Form(form.base, whole=form.base in PLAIN)
        return {item_element(item, form): (item, item_form) for item in value}
    if form.shape is Shape.MAP:
        item_form = Form(form.base, whole=form.base in PLAIN)
        return {f"f:{name}": (member, item_form) for name, member in value.items()}
    known = all_types()[form.base].fields
    return {
        f"f:{name}": (member, known[name].form if name in known else _LEAF)
        for name, member in value.items()
    }


def item_element(item: Any, form: Form) -> str:
    """What tells an item of a merged list from the others."""
    if not form.keys or not isinstance(item, dict):
        return f"v:{_ENCODER.encode(item).decode()}"
    fields = all_types()[form.base].fields
    found = {key: item.get(key, fields[key].form.default or None) for key in form.keys}
    return f"k:{_ENCODER.encode(found).decode()}"


def fields_of(value: Any, form: Form, path: Path = ()) -> Fields:
    """All fields of a value, items of lists and empty objects included."""
    return frozenset(_walk(value, form, path))


def _walk(value: Any, form: Form, path: Path) -> Iterator[Path]:
    if is_leaf(value, form):
        yield path
        return
    inner = members(value, form)
    if not inner and form.shape is not Shape.LIST and path:
        yield path
    for element, (member, member_form) in inner.items():
        here = (*path, element)
        if element[0] != "f" and not is_leaf(member, member_form):
            yield here
        yield from _walk(member, member_form, here)


@dataclass(slots=True)
class Difference:
    """What is only in the new one, what is in both and unlike, what was only in the old one."""

    added: set[Path] = field(default_factory=set)
    modified: set[Path] = field(default_factory=set)
    removed: set[Path] = field(default_factory=set)

    @property
    def changed(self) -> set[Path]:
        """What a writer of the new one has set."""
        return self.added | self.modified

    def __bool__(self) -> bool:
        return bool(self.added or self.modified or self.removed)


def compare(old: Document, new: Document, form: Form) -> Difference:
    """How two documents differ, but for what nobody owns (`OWNED_BY_NOBODY`)."""
    found = Difference()
    _compare(old, new, form, (), found)
    return found


def _compare(old: Any, new: Any, form: Form, path: Path, found: Difference) -> None:
    if path in OWNED_BY_NOBODY or old is new or old == new:
        return
    if is_leaf(old, form) or is_leaf(new, form):
        if not _means_same(old, new, form):
            found.modified.add(path)
        return
    before, after = members(old, form), members(new, form)
    for element, (member, member_form) in after.items():
        here = (*path, element)
        if element in before:
            _compare(before[element][0], member, member_form, here, found)
        elif here not in OWNED_BY_NOBODY:
            found.added |= _all_below(member, member_form, here)
    for element, (member, member_form) in before.items():
        here = (*path, element)
        if element not in after and here not in OWNED_BY_NOBODY:
            found.removed |= _all_below(member, member_form, here)


def _all_below(value: Any, form: Form, path: Path) -> set[Path]:
    """The fields of a value and the value itself."""
    return {path, *_walk(value, form, path)}


def _means_same(old: Any, new: Any, form: Form) -> bool:
    if form.base != "quantity" or form.shape is not Shape.SINGLE:
        return False
    try:
        return canonical_text(str(old)) == canonical_text(str(new))
    except ValueError:
        return False


OWNED_BY_NOBODY: Fields = frozenset(
    {("f:apiVersion",), ("f:kind",)}
    | {
        ("f:metadata", f"f:{name}")
        for name in (
            "name", "namespace", "creationTimestamp", "selfLink", "uid", "clusterName",
            "generation", "managedFields", "resourceVersion", "generateName",
            "deletionTimestamp", "deletionGracePeriodSeconds",
        )
    }
)  # fmt: skip
"""Fields that say which object it is, or that only the server sets."""


def without(fields: Fields, top: str) -> Fields:
    """The fields that are not below a member of the object."""
    return frozenset(path for path in fields if path[0] != top)


def only(fields: Fields, top: str) -> Fields:
    """The fields that are below a member of the object."""
    return frozenset(path for path in fields if path[0] == top)


def with_parents(fields: Fields) -> Fields:
    """The fields and all that contains one of them."""
    return frozenset(path[:end] for path in fields for end in range(1, len(path) + 1))


def encode_fields(fields: Fields) -> Document:
    """The `fieldsV1` of a set."""
    tree: Document = {}
    parents = {path[:end] for path in fields for end in range(1, len(path))}
    for path in sorted(fields):
        place = tree
        for element in path:
            place = place.setdefault(element, {})
        if path in parents:
            place["."] = {}
    return tree


def decode_fields(tree: Any) -> Fields:
    """The set that a `fieldsV1` means. Raises `ValueError` for what is none."""
    return frozenset(_decode(tree, ()))


def _decode(tree: Any, path: Path) -> Iterator[Path]:
    if not isinstance(tree, dict):
        raise ValueError("fieldsV1 is a tree of objects")
    if path and (not tree or "." in tree):
        yield path
    for element, inner in tree.items():
        if element == ".":
            continue
        if element[:2] not in ("f:", "k:", "v:", "i:"):
            raise ValueError(f"fieldsV1: {element!r} is no path element")
        if element[:2] in ("k:", "v:"):
            element = f"{element[:2]}{_ENCODER.encode(_DECODER.decode(element[2:])).decode()}"
        yield from _decode(inner, (*path, element))


def show_path(path: Path) -> str:
    """`.spec.containers[name="web"].image`, as in messages."""
    return "".join(_show_element(element) for element in path)


def _show_element(element: str) -> str:
    kind, text = element[:2], element[2:]
    if kind == "f:":
        return f".{text}"
    if kind == "v:":
        return f"[={text}]"
    if kind == "k:":
        keys = _DECODER.decode(text)
        return f"[{','.join(f'{k}={_ENCODER.encode(v).decode()}' for k, v in keys.items())}]"
    return f"[{text}]"
