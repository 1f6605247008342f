"""What is wrong with an object, field by field, in Kubernetes' words.

Values only: the API turns them into a `Status` (422 with causes, 403, 400). Source of the texts and
reasons: apimachinery `pkg/util/validation/field/errors.go`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

SHOWN_VALUE_LIMIT_CHARS = 256
"""A longer offending value is cut in messages."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """One broken rule: `field` is the path (`spec.volumes[0].name`), `message` the sentence."""

    field: str
    reason: str
    """`FieldValueRequired`, `FieldValueInvalid`, ...: as in `details.causes[].reason`."""
    message: str

    def describe(self) -> str:
        """`spec.volumes[0].name: Required value`."""
        return f"{self.field}: {self.message}"


class InvalidObject(Exception):
    """The object breaks rules of its kind; `errors` has at least one entry."""

    def __init__(self, kind: str, name: str, errors: Iterable[FieldError]) -> None:
        self.kind = kind
        self.name = name
        self.errors = tuple(errors)
        super().__init__(self.describe())

    def describe(self) -> str:
        """`Pod "web" is invalid: spec.volumes[0].name: Required value`; several in brackets."""
        texts = [error.describe() for error in self.errors]
        listed = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
        return f'{self.kind} "{self.name}" is invalid: {listed}'


class MalformedObject(Exception):
    """A field has the wrong JSON type; `field` is its path ("" for the whole object)."""

    def __init__(self, field: str, message: str) -> None:
        self.field = field
        self.message = message
        super().__init__(f"{field}: {message}" if field else message)


def required(field: str, detail: str = "") -> FieldError:
    """The field must be given."""
    return FieldError(field, "FieldValueRequired", _sentence("Required value", detail))


def invalid(field: str, value: Any, detail: str) -> FieldError:
    """The value does not do."""
    return FieldError(field, "FieldValueInvalid", f"Invalid value: {_show(value)}: {detail}")


def not_supported(field: str, value: Any, supported: Iterable[str]) -> FieldError:
    """The value is none of the known ones."""
    known = ", ".join(f'"{name}"' for name in sorted(supported))
    text = f"Unsupported value: {_show(value)}: supported values: {known}"
    return FieldError(field, "FieldValueNotSupported", text)


def duplicate(field: str, value: Any) -> FieldError:
    """The value must be unique and is not."""
    return FieldError(field, "FieldValueDuplicate", f"Duplicate value: {_show(value)}")


def not_found(field: str, value: Any) -> FieldError:
    """The value names something that is not there."""
    return FieldError(field, "FieldValueNotFound", f"Not found: {_show(value)}")


def forbidden(field: str, detail: str) -> FieldError:
    """The field may not be given here, or not be changed."""
    return FieldError(field, "FieldValueForbidden", _sentence("Forbidden", detail))


def too_long(field: str, limit_bytes: int) -> FieldError:
    """The value is too big."""
    text = f"Too long: may not be more than {limit_bytes} bytes"
    return FieldError(field, "FieldValueTooLong", text)


def _sentence(head: str, detail: str) -> str:
    return f"{head}: {detail}" if detail else head


def _show(value: Any) -> str:
    """The offending value as JSON, cut when it is long."""
    if isinstance(value, msgspec.Struct | dict | list | str | int | float | None):
        text = msgspec.json.encode(value).decode()
    else:
        text = str(value)
    if len(text) > SHOWN_VALUE_LIMIT_CHARS:
        return f"{text[:SHOWN_VALUE_LIMIT_CHARS]}..."
    return text
