"""`$(VAR)`, judged by the cases of Kubernetes' own test and by properties."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volagent.runtime.expand import UndefinedVariable, expand, expand_strictly

VARIABLES = {
    "VAR_A": "A", "VAR_B": "B", "VAR_C": "C", "VAR_REF": "$(VAR_A)", "VAR_EMPTY": "",
}  # fmt: skip

# Source: third_party/forked/golang/expansion/expand_test.go
CASES = {
    "$(VAR_A)": "A",
    "___$(VAR_B)___": "___B___",
    "___$(VAR_C)": "___C",
    "$(VAR_A)-$(VAR_A)": "A-A",
    "$(VAR_A)-1": "A-1",
    "$(VAR_A)_$(VAR_B)_$(VAR_C)": "A_B_C",
    "$$(VAR_B)_$(VAR_A)": "$(VAR_B)_A",
    "$$(VAR_A)_$$(VAR_B)": "$(VAR_A)_$(VAR_B)",
    "f000-$$VAR_A": "f000-$VAR_A",
    "foo\\$(VAR_C)bar": "foo\\Cbar",
    "foo\\\\$(VAR_C)bar": "foo\\\\Cbar",
    "foo\\\\\\\\$(VAR_A)bar": "foo\\\\\\\\Abar",
    "$(VAR_A$(VAR_B))": "$(VAR_A$(VAR_B))",
    "$(VAR_A$(VAR_B)": "$(VAR_A$(VAR_B)",
    "$(VAR_REF)": "$(VAR_A)",
    "%%$(VAR_REF)--$(VAR_REF)%%": "%%$(VAR_A)--$(VAR_A)%%",
    "foo$(VAR_EMPTY)bar": "foobar",
    "foo$(VAR_Awhoops!": "foo$(VAR_Awhoops!",
    "f00__(VAR_A)__": "f00__(VAR_A)__",
    "$?_boo_$!": "$?_boo_$!",
    "$VAR_A": "$VAR_A",
    "$(VAR_DNE)": "$(VAR_DNE)",
    "$$$$$$(BIG_MONEY)": "$$$(BIG_MONEY)",
    "$$$$$$(VAR_A)": "$$$(VAR_A)",
    "$$$$$$$(GOOD_ODDS)": "$$$$(GOOD_ODDS)",
    "$$$$$$$(VAR_A)": "$$$A",
    "$VAR_A)": "$VAR_A)",
    "${VAR_A}": "${VAR_A}",
    "$(VAR_B)_______$(A": "B_______$(A",
    "$(VAR_C)_______$(": "C_______$(",
    "$(VAR_A)foobarzab$": "Afoobarzab$",
    "foo-\\$(VAR_A": "foo-\\$(VAR_A",
    "--$($($($($--": "--$($($($($--",
    "$($($($($--foo$(": "$($($($($--foo$(",
    "foo0--$($($($(": "foo0--$($($($(",
    "$(foo$$var)": "$(foo$$var)",
    "": "",
    "$": "$",
}


@pytest.mark.parametrize(("text", "expanded"), CASES.items())
def test_text_is_expanded_as_kubernetes_does(text, expanded):
    assert expand(text, VARIABLES) == expanded


@given(st.text(alphabet="ab$()", max_size=20))
def test_doubled_dollars_are_literal(text):
    assert expand(text.replace("$", "$$"), {"a": "x", "": "y"}) == text


@given(st.text(alphabet="ab()$", max_size=30))
def test_strict_expansion_agrees_when_every_variable_is_known(text):
    class Known(dict):
        def __missing__(self, key):
            return "v"

        def get(self, key, default=None):
            return "v"

    assert expand_strictly(text, Known()) == expand(text, Known())


def test_strict_expansion_names_the_variable_when_it_is_undefined():
    with pytest.raises(UndefinedVariable, match='missing value for "NO"'):
        expand_strictly("a/$(NO)", {})


def test_strict_expansion_takes_an_empty_variable_as_a_value():
    assert expand_strictly("a/$(E)b", {"E": ""}) == "a/b"
