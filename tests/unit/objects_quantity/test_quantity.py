"""Quantities: grammar, exact arithmetic and canonical text, against a model in integers."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volagent.objects.quantity import (
    MAX_AMOUNT,
    QuantityError,
    canonical_quantity,
    parse_bytes,
    parse_quantity,
)

POWERS_OF_TEN = {
    "n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18,
}  # fmt: skip
POWERS_OF_1024 = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}

numbers = st.tuples(
    st.sampled_from(["", "+", "-"]), st.integers(0, 10**7), st.none() | st.text("0123456789")
)
suffixes = st.sampled_from([*POWERS_OF_TEN, *POWERS_OF_1024]) | st.builds(
    lambda e, s, n: f"{e}{s}{n}",
    st.sampled_from("eE"),
    st.sampled_from(["", "+", "-"]),
    st.integers(0, 30),
)


@st.composite
def quantities(draw):
    """A text and its value in nanos, worked out with integers only."""
    (sign, whole, fraction), suffix = draw(numbers), draw(suffixes)
    text = f"{sign}{whole}" + ("" if fraction is None else f".{fraction}")
    digits, places = int(f"{whole}{fraction or ''}"), len(fraction or "")
    if suffix in POWERS_OF_1024:
        digits, ten = digits * 1024 ** POWERS_OF_1024[suffix], 9 - places
    else:
        power = POWERS_OF_TEN[suffix] if suffix in POWERS_OF_TEN else int(suffix[1:])
        ten = 9 + power - places
    nanos = digits * 10**ten if ten >= 0 else -(-digits // 10**-ten)
    nanos = min(nanos, MAX_AMOUNT * 10**9)
    return text + suffix, -nanos if sign == "-" else nanos


@given(quantities())
def test_quantity_has_the_value_of_the_integer_model(case):
    text, nanos = case
    assert parse_quantity(text) * 10**9 == nanos


@given(quantities())
def test_bytes_are_the_value_rounded_up(case):
    text, nanos = case
    assert parse_bytes(text) == -(-nanos // 10**9)


@given(quantities())
def test_canonical_text_keeps_the_value_and_is_its_own_canonical_text(case):
    text, nanos = case
    canonical = canonical_quantity(text)
    assert parse_quantity(canonical) * 10**9 == nanos
    assert canonical_quantity(canonical) == canonical


@given(quantities())
def test_canonical_text_has_no_fraction_no_plus_and_no_leading_zero(case):
    canonical = canonical_quantity(case[0]).removeprefix("-")
    assert "." not in canonical
    assert "+" not in canonical
    assert canonical == "0" or not canonical.startswith("0")


@given(st.text(max_size=12))
def test_any_text_is_a_quantity_or_a_quantity_error(text):
    try:
        value = parse_quantity(text)
    except QuantityError:
        return
    assert abs(value) <= MAX_AMOUNT


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        # The kube-apiserver prints these so.
        ("1024Mi", "1Gi"), ("1.5Gi", "1536Mi"), ("0.5Ki", "512"), ("0.9765625Ki", "1k"),
        ("1.0001Ki", "1024102400u"), ("1025Ki", "1025Ki"), ("0Gi", "0"), ("-0", "0"),
        ("1000m", "1"), ("1500m", "1500m"), ("0.1", "100m"), (".5", "500m"), ("1.", "1"),
        ("1000k", "1M"), ("12E", "9223372036854775807"), ("8Ei", "9223372036854775807"),
        ("0.1n", "1n"), ("1e3", "1e3"), ("1E3", "1e3"), ("1e2", "100"), ("12e4", "120e3"),
        ("1e-3", "1e-3"), ("1e-12", "1e-9"), ("-2Ki", "-2Ki"), (" 1Gi ", "1Gi"),
        (5, "5"), (1.5, "1500m"),
    ],
)  # fmt: skip
def test_canonical_text_is_that_of_kubernetes(text, canonical):
    assert canonical_quantity(text) == canonical


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "Gi", "1 Gi", "1gi", "1KI", "1ki", "1K", "1GiB", "1e", "e3", "1e3.5", "1e+-3",
        "--1", "+-1", ".", "-", "1,5", "0x10", "1_000", "NaN", "inf", True, "٣", "1²", "1\0",
        "9" * 257, "9" * 5000, "1e99999",
    ],
)  # fmt: skip
def test_quantity_is_refused_when_it_does_not_fit_the_grammar(text):
    with pytest.raises(QuantityError):
        parse_quantity(text)


def test_quantity_is_cut_to_the_largest_amount_when_it_is_larger():
    assert parse_quantity("1e999") == MAX_AMOUNT
    assert parse_quantity("-1e999") == -MAX_AMOUNT
    assert parse_quantity("7Ei") == 7 * 2**60


def test_quantity_is_exact_when_floats_would_not_be():
    assert parse_quantity("0.1") == Fraction(1, 10)
    assert parse_quantity("9007199254740993") == 2**53 + 1
