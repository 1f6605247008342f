"""Label and field selectors: parsed once per request, then asked per object. Pure.

The grammars are Kubernetes' (`apimachinery/pkg/labels`, `.../fields`): `a=b,c!=d,e in (f,g),!h,i>1`
for labels, `a=b,c!=d` with backslash escapes for fields. Malformed ones raise `BadRequest`.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgspec

from volagent.api.resources import Traits
from volagent.client.contract import BadRequest, Selection
from volagent.objects.meta import Document

FIELD_SELECTORS_KEPT = 512
"""How many of them are remembered as read."""
_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_PREFIX = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_TOKEN = re.compile(r"\s*(==|!=|[=!<>(),]|[^\s=!<>(),]+)")
_SPECIAL = frozenset(("==", "!=", "=", "!", "<", ">", "(", ")", ","))

Test = Callable[[Document], bool]


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on a label: `operator` is in, notin, exists, absent, gt or lt."""

    key: str
    operator: str
    values: frozenset[str] = frozenset()

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels fits."""
        value = labels.get(self.key)
        match self.operator:
            case "in":
                return value in self.values
            case "notin":
                return value not in self.values
            case "exists":
                return value is not None
            case "absent":
                return value is None
            case _:
                return self._compares(value)

    def _compares(self, value: str | None) -> bool:
        (bound,) = self.values
        try:
            number = int(value) if value is not None else None
        except ValueError:
            return False
        if number is None:
            return False
        return number > int(bound) if self.operator == "gt" else number < int(bound)


@dataclass(frozen=True, slots=True)
class FieldTerm:
    """One condition on a field."""

    path: tuple[str, ...]
    value: str
    equal: bool = True

    def holds(self, document: Document) -> bool:
        """Whether an object fits."""
        found: Any = document
        for part in self.path:
            found = found.get(part) if isinstance(found, dict) else None
        if found is None:
            found = ""
        elif found is True or found is False:
            found = "true" if found else "false"
        return (found == self.value) is self.equal


@dataclass(frozen=True, slots=True)
class Matcher:
    """A label and a field selector together."""

    labels: tuple[Requirement, ...]
    fields: tuple[FieldTerm, ...]
    needles: tuple[bytes, ...] = ()
    """JSON that every object which fits has in it."""

    def may_fit(self, stored: bytes) -> bool:
        """Whether an object can fit, by its bytes as they are stored: cheap, and never wrongly no.

        Most objects of a large cluster are another node's, and need not be decoded to tell.
        """
        for needle in self.needles:  # noqa: SIM110  # asked for each object of a kind
            if needle not in stored:
                return False
        return True

    def __call__(self, document: Document) -> bool:
        """Whether an object fits."""
        for term in self.fields:
            if not term.holds(document):
                return False
        if self.labels:
            labels = document["metadata"].get("labels") or {}
            for requirement in self.labels:
                if not requirement.holds(labels):
                    return False
        return True


def compile_selection(traits: Traits, selection: Selection) -> Matcher | None:
    """What a selection demands beyond its namespace, or None for nothing. Raises `BadRequest`."""
    if not selection.label_selector and not selection.field_selector:
        return None
    labels = parse_labels(selection.label_selector)
    fields = parse_fields(selection.field_selector, traits)
    if not labels and not fields:
        return None
    return Matcher(labels, fields, tuple(_find_needles(fields)))


def _find_needles(fields: tuple[FieldTerm, ...]) -> Iterator[bytes]:
    for term in fields:
        # An empty value is also that of a missing field; true and false are no strings in JSON.
        if term.equal and term.value not in ("", "true", "false"):
            with suppress(UnicodeEncodeError):  # what is no text is found by looking
                yield msgspec.json.encode(term.value)


def parse_labels(text: str) -> tuple[Requirement, ...]:
    """The requirements of a label selector. Raises `BadRequest`."""
    tokens = _Tokens(text)
    found: list[Requirement] = []
    if tokens.peek() is None:
        return ()
    while True:
        found.append(_requirement(tokens))
        token = tokens.take()
        if token is None:
            return tuple(found)
        if token != ",":
            raise tokens.error(f"found '{token}', expected: ',' or 'end of string'")


class _Tokens:
    """The words and signs of a label selector, one ahead."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = self._split()
        self._next = next(self._tokens, None)

    def _split(self) -> Iterator[str]:
        position = 0
        end = len(self._text.rstrip())
        while position < end:
            found = _TOKEN.match(self._text, position)
            assert found is not None  # the classes of the pattern cover every character
            yield found.group(1)
            position = found.end()

    def peek(self) -> str | None:
        return self._next

    def take(self) -> str | None:
        token = self._next
        self._next = next(self._tokens, None)
        return token

    def word(self) -> str:
        token = self.take()
        if token is None or token in _SPECIAL:
            raise self.error(f"found '{token or ''}', expected: identifier")
        return token

    def error(self, why: str) -> BadRequest:
        return BadRequest(f"unable to parse requirement: {why}")


def _requirement(tokens: _Tokens) -> Requirement:
    if tokens.peek() == "!":
        tokens.take()
        return Requirement(_key(tokens), "absent")
    key = _key(tokens)
    sign = tokens.peek()
    if sign is None or sign == ",":
        return Requirement(key, "exists")
    tokens.take()
    if sign in ("=", "=="):
        return Requirement(key, "in", frozenset((_value(tokens),)))
    if sign == "!=":
        return Requirement(key, "notin", frozenset((_value(tokens),)))
    if sign in ("in", "notin"):
        return Requirement(key, sign, _values(tokens))
    if sign not in ("<", ">"):
        raise tokens.error(f"found '{sign}', expected: in, notin, =, ==, !=, gt, lt")
    value = tokens.word()
    if re.fullmatch(r"-?\d{1,18}", value) is None:
        raise tokens.error("for 'Gt', 'Lt' operators, the value must be an integer")
    return Requirement(key, "gt" if sign == ">" else "lt", frozenset((value,)))


def _key(tokens: _Tokens) -> str:
    key = tokens.word()
    prefix, slash, name = key.rpartition("/")
    if _NAME.fullmatch(name) is None or (slash and _PREFIX.fullmatch(prefix) is None):
        raise tokens.error(f'invalid label key "{key}": name part must consist of alphanumeric '
                           "characters, '-', '_' or '.'")  # fmt: skip
    return key


def _value(tokens: _Tokens) -> str:
    if tokens.peek() in (None, ",", ")"):
        return ""
    value = tokens.word()
    if _NAME.fullmatch(value) is None:
        raise tokens.error(f'invalid label value: "{value}"')
    return value


def _values(tokens: _Tokens) -> frozenset[str]:
    if tokens.take() != "(":
        raise tokens.error("found no '(' after the operator")
    values = {_value(tokens)}
    while (token := tokens.take()) == ",":
        values.add(_value(tokens))
    if token != ")":
        raise tokens.error(f"found '{token or ''}', expected: ',' or ')'")
    return frozenset(values)


def parse_fields(text: str, traits: Traits) -> tuple[FieldTerm, ...]:
    """The terms of a field selector. Raises `BadRequest`, also for a field that is not indexed."""
    return tuple(_term(*words, traits) for words in _read_fields(text))


@lru_cache(maxsize=FIELD_SELECTORS_KEPT)
def _read_fields(text: str) -> tuple[tuple[str, str, str], ...]:
    """Name, sign and value of each term: agents ask with the same few texts again and again."""
    return tuple(_read_term(part) for part in _split_escaped(text) if part)


def _split_escaped(text: str) -> list[str]:
    """Parts between commas; a backslash keeps the next character from separating."""
    parts = [""]
    escaped = False
    for character in text:
        if not escaped and character == ",":
            parts.append("")
        else:
            parts[-1] += character
        escaped = character == "\\" and not escaped
    return parts


def _read_term(part: str) -> tuple[str, str, str]:
    found = re.match(r"([^=!\\]*)(!=|==|=)(.*)", part, re.DOTALL)
    if found is None:
        raise BadRequest(f"invalid selector: '{part}'; can't understand '{part}'")
    name, sign, raw = found.groups()
    value = re.sub(r"\\([\\,=])", r"\1", raw)
    if "\\" in re.sub(r"\\[\\,=]", "", raw):
        raise BadRequest(f"invalid field selector: invalid escape sequence: {raw}")
    return name, sign, value


def _term(name: str, sign: str, value: str, traits: Traits) -> FieldTerm:
    if name == "metadata.name" or (name == "metadata.namespace" and traits.resource.namespaced):
        path = name
    elif name in traits.fields:
        path = traits.fields[name]
    else:
        raise BadRequest(f"field label not supported: {name}")
    return FieldTerm(tuple(path.split(".")), value, sign != "!=")
