"""Which names, keys and label values Kubernetes accepts, and its words for those it does not.

Source: apimachinery `pkg/util/validation/validation.go`. Every `check_` gives the reasons why a
text does not do: none for a good one. Pure. Names that repeat from object to object are remembered.
"""

import re
from functools import lru_cache

Reasons = tuple[str, ...]

_REMEMBERED_TEXTS = 2048

LABEL_LIMIT_CHARS = 63
SUBDOMAIN_LIMIT_CHARS = 253
KEY_LIMIT_CHARS = 253

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_QUALIFIED = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_LABEL_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
_CONFIG_KEY = re.compile(r"[-._a-zA-Z0-9]+")
_VARIABLE = re.compile(r"[ -<>-~]+")

_LABEL_TEXT = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must"
    " start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for"
    " validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
_SUBDOMAIN_TEXT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.',"
    " and must start and end with an alphanumeric character (e.g. 'example.com', regex used for"
    " validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_QUALIFIED_TEXT = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end"
    " with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for"
    " validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
_LABEL_VALUE_TEXT = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.',"
    " and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or"
    " '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
_CONFIG_KEY_TEXT = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',"
    "  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
)
_VARIABLE_TEXT = (
    "a valid environment variable name must consist only of printable ASCII characters other than"
    " '='"
)


@lru_cache(maxsize=_REMEMBERED_TEXTS)
def check_label(text: str) -> Reasons:
    """A DNS-1123 label, as volumes, containers and namespaces are named."""
    return _check(text, _LABEL, _LABEL_TEXT, LABEL_LIMIT_CHARS)


def check_subdomain(text: str) -> Reasons:
    """A DNS-1123 subdomain, as most objects are named."""
    return _check(text, _SUBDOMAIN, _SUBDOMAIN_TEXT, SUBDOMAIN_LIMIT_CHARS)


@lru_cache(maxsize=_REMEMBERED_TEXTS)
def check_qualified(text: str) -> Reasons:
    """A key of a label or annotation: `[prefix/]name`."""
    prefix, slash, name = text.rpartition("/")
    if "/" in prefix:
        return (
            "a qualified name must consist of alphanumeric characters, '-', '_' or '.', with an"
            " optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
        )
    reasons: list[str] = []
    if slash:
        if not prefix:
            reasons.append("prefix part must be non-empty")
        else:
            reasons += [f"prefix part {reason}" for reason in check_subdomain(prefix)]
    if not name:
        reasons.append("name part must be non-empty")
    elif len(name) > LABEL_LIMIT_CHARS:
        reasons.append(f"name part must be no more than {LABEL_LIMIT_CHARS} characters")
    if _QUALIFIED.fullmatch(name) is None:
        reasons.append(_QUALIFIED_TEXT)
    return tuple(reasons)


@lru_cache(maxsize=_REMEMBERED_TEXTS)
def check_label_value(text: str) -> Reasons:
    """A label's value."""
    return _check(text, _LABEL_VALUE, _LABEL_VALUE_TEXT, LABEL_LIMIT_CHARS)


@lru_cache(maxsize=_REMEMBERED_TEXTS)
def check_config_key(text: str) -> Reasons:
    """A key of a Secret's or ConfigMap's data, which is to become a file's name."""
    reasons = _check(text, _CONFIG_KEY, _CONFIG_KEY_TEXT, KEY_LIMIT_CHARS)
    if text in (".", ".."):
        return (*reasons, f"must not be '{text}'")
    return (*reasons, "must not start with '..'") if text.startswith("..") else reasons


def check_variable(text: str) -> Reasons:
    """The name of an environment variable."""
    return () if _VARIABLE.fullmatch(text) else (_VARIABLE_TEXT,)


def check_relative_path(text: str) -> Reasons:
    """A path below a volume: relative, without `..`, without NUL."""
    reasons = check_backsteps(text)
    return (*reasons, "must be a relative path") if text.startswith("/") else reasons


def check_absolute_path(text: str) -> Reasons:
    """A path of a host or server: absolute, without `..`, without NUL."""
    reasons = check_backsteps(text)
    return reasons if text.startswith("/") else (*reasons, "must be an absolute path")


def check_backsteps(text: str) -> Reasons:
    """No part of a path may be `..`; no path can have a NUL."""
    steps_back = ".." in text and ".." in text.split("/")
    reasons: Reasons = ("must not contain '..'",) if steps_back else ()
    return (*reasons, "must not contain a NUL character") if "\0" in text else reasons


def _check(text: str, form: re.Pattern[str], explanation: str, limit_chars: int) -> Reasons:
    fits = form.fullmatch(text) is not None
    if len(text) > limit_chars:
        too_long = f"must be no more than {limit_chars} characters"
        return (too_long,) if fits else (too_long, explanation)
    return () if fits else (explanation,)
