"""Quantities inside documents: checked, and brought to the form Kubernetes prints.

The texts repeat from object to object, so what was parsed once is remembered.
"""

from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache
from typing import Any

from volagent.objects.field_errors import FieldError, MalformedObject, invalid
from volagent.objects.meta import Document
from volagent.objects.quantity import canonical_quantity, parse_quantity

Amount = str | int | float
_REMEMBERED_TEXTS = 4096


@lru_cache(maxsize=_REMEMBERED_TEXTS)
def canonical_text(text: str) -> str:
    """`canonical_quantity` of a text. Raises `QuantityError`."""
    return canonical_quantity(text)


@lru_cache(maxsize=_REMEMBERED_TEXTS)
def _parse(text: str) -> Fraction:
    return parse_quantity(text)


def read_amount(amount: Amount, field: str) -> Fraction:
    """The exact value. Raises `MalformedObject` when it is no quantity."""
    try:
        return _parse(str(amount))
    except ValueError as error:  # QuantityError, or more digits than Python converts
        raise MalformedObject(field, str(error)) from error


def check_amount(amount: Amount, field: str) -> list[FieldError]:
    """A quantity that must not be negative. Raises `MalformedObject`."""
    if read_amount(amount, field) >= 0:
        return []
    return [invalid(field, str(amount), "must be greater than or equal to 0")]


def canonical_amounts(amounts: Mapping[str, Any]) -> Document:
    """The same quantities as texts in canonical form; the very mapping when they are."""
    texts = {name: canonical_text(str(amount)) for name, amount in amounts.items()}
    return amounts if texts == amounts else texts  # type: ignore[return-value]  # a JSON object
