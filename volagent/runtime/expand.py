"""`$(VAR)` in commands, arguments, variables and sub-paths. Pure.

The grammar is Kubernetes' own (`third_party/forked/golang/expansion`): `$(NAME)` is replaced, `$$`
is a literal `$` (so `$$(NAME)` stays `$(NAME)`), a reference to an unknown name and anything else
with a `$` is left as it is.
"""

from collections.abc import Callable, Mapping

_OPERATOR = "$"


class UndefinedVariable(Exception):
    """A text refers to a variable that the container does not have."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f'missing value for "{self.name}"'


def expand(text: str, variables: Mapping[str, str]) -> str:
    """The text with every known reference replaced."""
    if _OPERATOR not in text:
        return text
    return _expand(text, lambda name: variables.get(name, f"$({name})"))


def expand_strictly(text: str, variables: Mapping[str, str]) -> str:
    """The text with every reference replaced; an empty value is a value.

    Raises `UndefinedVariable`.
    """
    if _OPERATOR not in text:
        return text

    def value_of(name: str) -> str:
        value = variables.get(name)
        if value is None:
            raise UndefinedVariable(name)
        return value

    return _expand(text, value_of)


def _expand(text: str, value_of: Callable[[str], str]) -> str:
    parts: list[str] = []
    done = 0
    while True:
        at = text.find(_OPERATOR, done)
        if at < 0 or at + 1 == len(text):  # a `$` at the very end is itself
            parts.append(text[done:])
            return "".join(parts)
        parts.append(text[done:at])
        follower = text[at + 1]
        if follower == "(":
            end = text.find(")", at + 2)
            if end >= 0:
                parts.append(value_of(text[at + 2 : end]))
                done = end + 1
                continue
            parts.append("$(")
        elif follower == _OPERATOR:
            parts.append(_OPERATOR)
        else:
            parts.append(_OPERATOR + follower)
        done = at + 2
