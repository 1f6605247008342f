"""YAML as Kubernetes reads it: only what JSON can say, and no more than is bounded.

Differs from PyYAML's defaults where a manifest would change its meaning: `2024-01-01` and `22:22`
stay strings, `0644` is octal, keys are strings. Anchors and aliases work, but what they expand to
is counted first, so that a "billion laughs" costs nothing. Import this module only where YAML is
read: JSON is what daemons and clients speak.
"""

import math
import re
from collections.abc import Iterator
from typing import Any, ClassVar

import yaml

NODES_LIMIT = 200_000
"""Values, aliases expanded, in one text."""
NESTING_LIMIT = 64


class ManifestError(ValueError):
    """The text is no usable YAML; the message has line and column (from 1) where known."""

    def __init__(self, message: str, line: int = 0, column: int = 0) -> None:
        super().__init__(f"line {line} column {column}: {message}" if line else message)
        self.message = message
        self.line = line


def read_yaml(text: bytes | str, *, nesting_limit: int = NESTING_LIMIT) -> list[Any]:
    """The JSON values of all documents; empty ones are left out. Raises `ManifestError`."""
    return [value for _, value in read_documents(text, nesting_limit=nesting_limit)]


def read_documents(
    text: bytes | str, *, nesting_limit: int = NESTING_LIMIT, unique_keys: bool = False
) -> list[tuple[int, Any]]:
    """As `read_yaml`, each with the line (from 1) on which it begins.

    With `unique_keys` a key that stands twice in a mapping is an error; else the last one wins, as
    Kubernetes' servers have it.
    """
    try:
        _Bounds(nesting_limit).check(yaml.parse(text, Loader=_Loader))
        return list(_construct(text, unique_keys=unique_keys))
    except yaml.MarkedYAMLError as error:
        message, mark = (
            str(error.problem or error.context),
            error.problem_mark or error.context_mark,
        )
        if mark is None:
            raise ManifestError(message) from error
        raise ManifestError(message, mark.line + 1, mark.column + 1) from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ManifestError(" ".join(str(error).split())) from error


def _construct(text: bytes | str, *, unique_keys: bool) -> Iterator[tuple[int, Any]]:
    loader = _Loader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            if unique_keys:
                _refuse_repeated_keys(node)
            value = loader.construct_document(node)
            if value is not None:
                yield node.start_mark.line + 1, _to_json(value)
    finally:
        loader.dispose()


def _refuse_repeated_keys(top: Any) -> None:
    nodes = [top]
    seen_nodes: set[int] = set()
    while nodes:
        node = nodes.pop()
        if id(node) in seen_nodes:
            continue  # an alias
        seen_nodes.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            nodes.extend(node.value)
        elif isinstance(node, yaml.MappingNode):
            keys: set[str] = set()
            for key, value in node.value:
                nodes.append(value)
                if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                    if key.value in keys:
                        raise _at(key, f'the key "{key.value}" stands twice')
                    keys.add(key.value)


class _Bounds:
    """Counts what a stream of events would build."""

    def __init__(self, nesting_limit: int) -> None:
        self._nesting_limit = nesting_limit
        self._nodes = 0
        self._open: list[tuple[str | None, int, int]] = []  # anchor, nodes before it, depth below
        self._anchors: dict[str, tuple[int, int]] = {}  # nodes, depth

    def check(self, events: Any) -> None:
        """Raise `ManifestError` as soon as a bound is exceeded."""
        for event in events:
            if isinstance(event, yaml.ScalarEvent):
                self._add(event, event.anchor, 1, 0)
            elif isinstance(event, yaml.AliasEvent):
                if event.anchor not in self._anchors:
                    raise _at(event, f"alias *{event.anchor} names no finished anchor")
                self._add(event, None, *self._anchors[event.anchor])
            elif isinstance(event, yaml.CollectionStartEvent):
                self._open.append((event.anchor, self._nodes, 1))
                self._add(event, None, 1, 0)
            elif isinstance(event, yaml.CollectionEndEvent):
                anchor, before, depth = self._open.pop()
                if anchor is not None:
                    self._anchors[anchor] = (self._nodes - before, depth)
                self._deepen(event, depth)
            elif isinstance(event, yaml.DocumentStartEvent):
                self._anchors.clear()

    def _add(self, event: Any, anchor: str | None, nodes: int, depth: int) -> None:
        self._nodes += nodes
        if self._nodes > NODES_LIMIT:
            raise _at(event, f"more than {NODES_LIMIT} values (aliases expanded)")
        if anchor is not None:
            self._anchors[anchor] = (nodes, depth)
        self._deepen(event, depth)

    def _deepen(self, event: Any, depth: int) -> None:
        """Note that the innermost open collection holds something `depth` levels deep."""
        if len(self._open) + depth > self._nesting_limit:
            raise _at(event, f"nested more than {self._nesting_limit} levels deep")
        if self._open:
            anchor, before, known = self._open[-1]
            if depth + 1 > known:
                self._open[-1] = (anchor, before, depth + 1)


def _at(event: Any, message: str) -> ManifestError:
    mark = event.start_mark
    return ManifestError(message, mark.line + 1, mark.column + 1)


def _construct_int(loader: Any, node: Any) -> int:
    text = loader.construct_scalar(node)
    sign, digits = (-1, text[1:]) if text[:1] == "-" else (1, text.removeprefix("+"))
    try:
        if digits[:2] in ("0x", "0X"):
            return sign * int(digits[2:], 16)
        if len(digits) > 1 and digits[0] == "0":
            return sign * int(digits.removeprefix("0o"), 8)
        return sign * int(digits)
    except ValueError as error:
        raise yaml.constructor.ConstructorError(
            None, None, f"{text!r} is no integer", node.start_mark
        ) from error


def _refuse_tag(_loader: Any, node: Any) -> Any:
    raise yaml.constructor.ConstructorError(
        None, None, f"the tag {node.tag} has no meaning in JSON", node.start_mark
    )


def _to_json(value: Any) -> Any:
    """Refuse what JSON cannot say. The value is a tree or shares parts by aliases; bounded."""
    if isinstance(value, dict):
        return {_to_json(key): _to_json(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_to_json(item) for item in value]
    if isinstance(value, str):
        if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
            raise ManifestError("a string has half of a surrogate pair")
        return value
    if isinstance(value, float) and not math.isfinite(value):
        raise ManifestError(f"{value} is no JSON number")
    return value


# The C loader where it was built; types-PyYAML cannot tell which of the two it is.
_SafeLoader: Any = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader


class _Loader(_SafeLoader):  # type: ignore[misc]  # see above
    """PyYAML's safe loader with Kubernetes' scalars and string keys."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[str, Any]:
        """A mapping with its keys as text: `1`, `true` and `"1"` would be one key in Python."""
        self.flatten_mapping(node)
        return {
            self._construct_key(key): self.construct_object(value, deep=deep)
            for key, value in node.value
        }

    def _construct_key(self, node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise yaml.constructor.ConstructorError(
                None, None, "found unhashable key: it must be a string", node.start_mark
            )
        value = self.construct_object(node)
        if value is None:
            return "null"
        return str(value).lower() if isinstance(value, bool) else str(value)


def _set_scalars() -> None:
    """Say which plain scalars are no strings, and which tags are no JSON."""
    for tag, pattern, first in (
        ("bool", r"true|True|TRUE|false|False|FALSE|yes|Yes|YES|no|No|NO|on|On|ON|off|Off|OFF",
         "tTfFyYnNoO"),
        ("int", r"[-+]?(0|[1-9][0-9]*|0o?[0-7]+|0x[0-9a-fA-F]+)", "-+0123456789"),
        ("float", r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
         r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+.0123456789"),
        ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
        ("merge", r"<<", "<"),
    ):  # fmt: skip
        _Loader.add_implicit_resolver(
            f"tag:yaml.org,2002:{tag}", re.compile(f"^(?:{pattern})$"), list(first)
        )
    _Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)
    for tag in ("timestamp", "binary", "set", "omap", "pairs"):
        _Loader.add_constructor(f"tag:yaml.org,2002:{tag}", _refuse_tag)


_set_scalars()
