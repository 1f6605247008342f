"""The fields of all kinds: read from tables beside this module when somebody first asks.

What kubectl explains, what strict validation knows, and by which keys lists are merged all come
from these tables. A table has a line `package NAME`, and for each type a line

    [kind ]NAME[!] | description

followed by a line for each field: `  name[*] form description`. `*` marks a field that must be
given, `!` a type that is one value to server-side apply. A kind also has apiVersion, kind and
metadata. The form is a word for a plain value (see `PLAIN`) or a type's name, bare or as

    [X]         list that is replaced as a whole
    [X]set      list of unlike values, merged
    [X]a,b      list of objects, merged by the values of these fields
    {X}         map from text, merged by its keys; {X}! is replaced as a whole
    X~          object that is merged though its type is not
    X=text      value that counts as given when it is missing

`(retainKeys)` after a list says that a strategic merge patch drops what an item does not name.
Reading happens once, in the event loop's thread (a few milliseconds), and is kept.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache
from importlib.resources import files
from typing import NamedTuple

_TABLES = (
    "meta",
    "core",
    "pod",
    "volumes",
    "storage",
    "snapshot",
    "coordination",
    "rbac",
    "fencing",
)
_FORM = re.compile(
    r"(?:\[(?P<item>\w+)\](?P<keys>[\w,]*)(?:\((?P<patch>\w+)\))?"
    r"|\{(?P<member>\w+)\}(?P<whole>!?)"
    r"|(?P<single>\w+)(?P<mark>~?)(?:=(?P<default>\w+))?)"
)
PLAIN = {
    "string": ("string", ""), "int": ("integer", "int64"), "int32": ("integer", "int32"),
    "number": ("number", "double"), "bool": ("boolean", ""), "time": ("string", "date-time"),
    "microtime": ("string", "date-time"), "bytes": ("string", "byte"),
    "quantity": ("string", ""), "intstr": ("string", "int-or-string"), "object": ("object", ""),
}  # fmt: skip
"""Words for plain values → JSON's type and OpenAPI's format."""


class TableError(Exception):
    """A table has a line that is none."""


class Shape(Enum):
    """What stands around a value."""

    SINGLE = ""
    LIST = "list"
    MAP = "map"


class Form(NamedTuple):
    """What a field may hold."""

    base: str
    """A plain value's word or a type's name."""
    shape: Shape = Shape.SINGLE
    whole: bool = True
    """Whether apply takes it as one value; of a single type the type itself may say so too."""
    keys: tuple[str, ...] = ()
    """The merge keys of a list of objects; none for a list that is a set."""
    patch: str = ""
    """"retainKeys": a strategic merge patch drops what an item of this list does not name."""
    merged: bool = False
    """Whether a single object is merged though its type is taken as one value."""
    default: str = ""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a type."""

    form: Form
    required: bool
    description: str


@dataclass(frozen=True, slots=True)
class Type:
    """An object's type."""

    package: str
    name: str
    description: str
    fields: Mapping[str, Field]
    whole: bool
    """Whether server-side apply takes it as one value."""
    is_kind: bool

    @property
    def full_name(self) -> str:
        """As in OpenAPI: `io.k8s.api.core.v1.PodSpec`."""
        return f"{self.package}.{self.name}"


_ENVELOPE = {
    "apiVersion": Field(Form("string"), False, "Group and version of this form of the object."),
    "kind": Field(Form("string"), False, "What kind of object this is."),
    "metadata": Field(
        Form("ObjectMeta", whole=False), False, "Name, identity, labels and the like."
    ),
}


@cache
def all_types() -> Mapping[str, Type]:
    """Every type by its name."""
    folder = files(__package__)
    types: dict[str, Type] = {}
    for name in _TABLES:
        read_table(folder.joinpath(f"{name}.schema").read_text("utf-8"), types)
    return types


def read_table(text: str, types: dict[str, Type]) -> None:
    """Add a table's types. Raises `TableError`."""
    package = ""
    fields: dict[str, Field] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        if line.startswith("package "):
            package = line.removeprefix("package ")
        elif line.startswith("  "):
            name, field = _read_field(line, number)
            fields[name] = field
        else:
            head, bar, description = line.partition(" | ")
            if not bar:
                raise TableError(f"line {number}: {line!r}: a type's line is NAME | description")
            is_kind = head.startswith("kind ")
            name = head.removeprefix("kind ").rstrip("!")
            fields = dict(_ENVELOPE) if is_kind else {}
            types[name] = Type(package, name, description, fields, head.endswith("!"), is_kind)


def _read_field(line: str, number: int) -> tuple[str, Field]:
    parts = line.split(None, 2)
    if len(parts) < 2:
        raise TableError(f"line {number}: {line!r}: a field's line is name form description")
    name, form = parts[:2]
    found = _read_form(form)
    if found is None:
        raise TableError(f"line {number}: {form!r} is no form")
    description = parts[2] if len(parts) > 2 else ""
    return name.rstrip("*"), Field(found, name.endswith("*"), description)


@cache
def _read_form(text: str) -> Form | None:
    match = _FORM.fullmatch(text)
    if match is None:
        return None
    if match["item"]:
        keys = match["keys"]
        names = () if keys in ("", "set") else tuple(keys.split(","))
        return Form(match["item"], Shape.LIST, not keys, names, match["patch"] or "")
    if match["member"]:
        return Form(match["member"], Shape.MAP, bool(match["whole"]))
    base, merged = match["single"], bool(match["mark"])
    return Form(base, whole=base in PLAIN, merged=merged, default=match["default"] or "")
