"""Kubernetes quantities: `1Gi`, `1.5`, `500m`, `1e3`.

Source of the grammar: apimachinery `pkg/api/resource/quantity.go`. Arithmetic is exact.
"""

import re
from fractions import Fraction

BINARY = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60}
DECIMAL = {
    "n": Fraction(1, 10**9), "u": Fraction(1, 10**6), "m": Fraction(1, 1000), "": Fraction(1),
    "k": Fraction(10**3), "M": Fraction(10**6), "G": Fraction(10**9), "T": Fraction(10**12),
    "P": Fraction(10**15), "E": Fraction(10**18),
}  # fmt: skip
_FORM = re.compile(r"([+-]?)(\d+\.?\d*|\.\d+)(Ki|Mi|Gi|Ti|Pi|Ei|[numkMGTPE]?|[eE][+-]?\d{1,3})")


class QuantityError(ValueError):
    """The text is no quantity."""


def parse_quantity(text: str | int | float) -> Fraction:
    """The exact value of a quantity.

    Raises `QuantityError` with Kubernetes' words when the text does not fit the grammar.
    """
    found = _FORM.fullmatch(str(text))
    if found is None:
        raise QuantityError(
            "quantities must match the regular expression "
            "'^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
        )
    sign, digits, suffix = found.groups()
    value = Fraction(digits)
    if suffix in BINARY:
        value *= BINARY[suffix]
    elif suffix[:1] in ("e", "E") and len(suffix) > 1:
        value *= Fraction(10) ** int(suffix[1:])
    else:
        value *= DECIMAL[suffix]
    return -value if sign == "-" else value


def parse_bytes(text: str | int | float) -> int:
    """A quantity as a whole number of bytes, rounded up. Raises `QuantityError`."""
    value = parse_quantity(text)
    return -(-value.numerator // value.denominator)


def canonical_quantity(text: str | int | float) -> str:
    """The text Kubernetes would print: same suffix family, largest suffix without a fraction.

    Raises `QuantityError`.
    """
    value = parse_quantity(text)
    suffix = _FORM.fullmatch(str(text)).group(3)  # type: ignore[union-attr]  # parsed above
    if suffix in BINARY:
        if value.denominator == 1 or abs(value) >= 1024:
            whole = -(-value.numerator // value.denominator)
            for name, factor in reversed(BINARY.items()):
                if whole and whole % factor == 0:
                    return f"{whole // factor}{name}"
            return str(whole)
        suffix = ""
    if value == 0:
        return "0"
    if suffix[:1] in ("e", "E") and len(suffix) > 1:
        return _canonical_exponent(value)
    for name in ("E", "P", "T", "G", "M", "k", "", "m", "u", "n"):
        scaled = value / DECIMAL[name]
        if scaled.denominator == 1:
            return f"{scaled.numerator}{name}"
    nano = value / DECIMAL["n"]
    return f"{-(-nano.numerator // nano.denominator)}n"


def _canonical_exponent(value: Fraction) -> str:
    for power in range(18, -10, -3):
        scaled = value / Fraction(10) ** power
        if scaled.denominator == 1:
            return f"{scaled.numerator}e{power}" if power else str(scaled.numerator)
    return f"{-(-value.numerator * 10**9 // value.denominator)}e-9"
