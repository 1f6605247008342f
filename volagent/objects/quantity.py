"""Kubernetes quantities: `1Gi`, `1.5`, `500m`, `1e3`. Pure.

Source of the grammar and of the rules: apimachinery `pkg/api/resource/quantity.go`. Arithmetic is
exact. As there, what is finer than a nano is rounded away from zero when it is read, and what is
larger than an int64 is taken as the largest one.
"""

import re
from fractions import Fraction
from functools import lru_cache

BINARY = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60}
DECIMAL = {
    "n": Fraction(1, 10**9), "u": Fraction(1, 10**6), "m": Fraction(1, 1000), "": Fraction(1),
    "k": Fraction(10**3), "M": Fraction(10**6), "G": Fraction(10**9), "T": Fraction(10**12),
    "P": Fraction(10**15), "E": Fraction(10**18),
}  # fmt: skip
MAX_AMOUNT = 2**63 - 1
MAX_TEXT_CHARS = 256
"""Longer texts are refused unread: reading a number takes time quadratic in its length."""
_NANOS = 10**9
_BINARY_FROM = 1024
"""Smaller amounts are printed without a binary suffix, whatever they were declared with."""
_FORM = re.compile(
    r"([+-]?)([0-9]+\.?[0-9]*|\.[0-9]+)(Ki|Mi|Gi|Ti|Pi|Ei|[numkMGTPE]?|[eE][+-]?[0-9]{1,3})"
)


class QuantityError(ValueError):
    """The text is no quantity."""


def parse_quantity(text: str | int | float) -> Fraction:
    """The value of a quantity.

    Raises `QuantityError` with Kubernetes' words when the text does not fit the grammar.
    """
    return _parse(text)[0]


def parse_bytes(text: str | int | float) -> int:
    """A quantity as a whole number of bytes, rounded up. Raises `QuantityError`."""
    value = parse_quantity(text)
    return -(-value.numerator // value.denominator)


def canonical_quantity(text: str | int | float) -> str:
    """The text Kubernetes would print: same suffix family, largest suffix without a fraction.

    Raises `QuantityError`.
    """
    value, suffix = _parse(text)
    if suffix in BINARY and value.denominator == 1 and abs(value) >= _BINARY_FROM:
        return _print_binary(value.numerator)
    if suffix[:1] in ("e", "E") and len(suffix) > 1:
        return _print_exponent(value)
    for name in ("E", "P", "T", "G", "M", "k", "", "m", "u"):
        scaled = value / DECIMAL[name]
        if scaled.denominator == 1 and scaled:
            return f"{scaled.numerator}{name}"
    return f"{(value * _NANOS).numerator}n" if value else "0"


def _parse(text: str | int | float) -> tuple[Fraction, str]:
    """The value, and the suffix that tells in which family it is printed."""
    return _read(str(text).strip())


@lru_cache(maxsize=4096)
def _read(trimmed: str) -> tuple[Fraction, str]:
    found = _FORM.fullmatch(trimmed) if len(trimmed) <= MAX_TEXT_CHARS else None
    if found is None:
        raise QuantityError(
            "quantities must match the regular expression "
            "'^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
        )
    sign, digits, suffix = found.groups()
    value = Fraction(digits)
    if suffix in BINARY:
        value *= BINARY[suffix]
    elif suffix in DECIMAL:
        value *= DECIMAL[suffix]
    else:
        value *= Fraction(10) ** int(suffix[1:])
    if _NANOS % value.denominator:
        value = Fraction(-(-value.numerator * _NANOS // value.denominator), _NANOS)
    value = min(value, Fraction(MAX_AMOUNT))
    return (-value if sign == "-" else value), suffix


def _print_binary(amount: int) -> str:
    for name, factor in reversed(BINARY.items()):
        if amount % factor == 0:
            return f"{amount // factor}{name}"
    return str(amount)


def _print_exponent(value: Fraction) -> str:
    if not value:
        return "0"
    power = 18
    while (scaled := value / Fraction(10) ** power).denominator != 1:
        power -= 3  # ends at -9: nothing is finer than a nano
    return f"{scaled.numerator}e{power}" if power else str(scaled.numerator)
