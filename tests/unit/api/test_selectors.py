"""Label and field selectors."""

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from volagent.api.resources import traits_of
from volagent.api.selectors import compile_selection, parse_fields, parse_labels
from volagent.client.contract import EVENTS, PERSISTENT_VOLUMES, PODS, BadRequest, Selection

PODS_TRAITS = traits_of(PODS)
NAMES = st.sampled_from(["a", "b", "example.com/c"])
VALUES = st.sampled_from(["x", "y", "1", "20"])
LABELS = st.dictionaries(NAMES, VALUES, max_size=3)


def fits(selector, labels):
    return all(requirement.holds(labels) for requirement in parse_labels(selector))


@pytest.mark.parametrize(
    ("selector", "labels", "expected"),
    [
        ("", {}, True),
        ("a", {"a": ""}, True),
        ("a", {}, False),
        ("!a", {}, True),
        ("! a", {"a": "x"}, False),
        ("a=x", {"a": "x"}, True),
        ("a==x,b!=y", {"a": "x"}, True),
        ("a=", {"a": ""}, True),
        ("a=,b", {"a": "", "b": "1"}, True),
        ("a!=x", {"a": "x"}, False),
        ("a in (x, y)", {"a": "y"}, True),
        ("a in (x,)", {"a": ""}, True),
        ("a notin (x,y)", {"b": "1"}, True),
        ("example.com/c in (x),!b", {"example.com/c": "x"}, True),
        ("a>1", {"a": "2"}, True),
        ("a>1", {"a": "x"}, False),
        ("a<1", {}, False),
        ("in in (notin)", {"in": "notin"}, True),
    ],
)
def test_label_selector_fits_as_it_reads(selector, labels, expected):
    assert fits(selector, labels) is expected


@pytest.mark.parametrize(
    "selector",
    ["=x", ",", "a,", "a in", "a in x", "a in (x", "a in (x;y)", "a b", "a=x y", "!", "a>x", "a(",
     "-a", "a=-x", "UPPER/a", "a/b/c", "a=" + "x" * 64, "a in ((x))"],
)  # fmt: skip
def test_label_selector_that_makes_no_sense_is_refused(selector):
    with pytest.raises(BadRequest):
        parse_labels(selector)


@given(st.text(max_size=20))
def test_label_selector_is_parsed_or_refused_whatever_it_is(text):
    try:
        requirements = parse_labels(text)
    except BadRequest:
        return
    assert bool(requirements) is bool(text.strip())


@given(LABELS, NAMES, st.lists(VALUES, min_size=1, max_size=3))
def test_label_operators_are_each_others_negation(labels, name, values):
    listed = ",".join(values)
    assert fits(f"{name} in ({listed})", labels) is (labels.get(name) in values)
    assert fits(f"{name} notin ({listed})", labels) is not fits(f"{name} in ({listed})", labels)
    assert fits(f"!{name}", labels) is not fits(name, labels)
    assert fits(f"{name}!={values[0]}", labels) is not fits(f"{name}={values[0]}", labels)


def selects(selector, document, traits=PODS_TRAITS):
    return all(term.holds(document) for term in parse_fields(selector, traits))


POD = {
    "metadata": {"name": "a", "namespace": "ns"},
    "spec": {"nodeName": "vm-1", "hostNetwork": True},
    "status": {"phase": "Running"},
}


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("", True),
        ("metadata.name=a,metadata.namespace=ns", True),
        ("spec.nodeName=vm-1,status.phase!=Pending", True),
        ("spec.nodeName==vm-2", False),
        ("spec.nodeName!=", True),
        ("status.podIP=", True),
        ("spec.hostNetwork=true", True),
        (r"metadata.name=a\,b", False),
    ],
)
def test_field_selector_fits_as_it_reads(selector, expected):
    assert selects(selector, POD) is expected


def test_field_selector_reads_escaped_characters():
    event = {"metadata": {"name": "e"}, "reason": "a,b=c\\d", "source": {"component": "node"}}

    assert selects(r"reason=a\,b\=c\\d,source=node", event, traits_of(EVENTS))


@pytest.mark.parametrize(
    "selector", ["spec.color=red", "metadata.name", "=x", r"metadata.name=a\b"]
)
def test_field_selector_that_makes_no_sense_is_refused(selector):
    with pytest.raises(BadRequest):
        parse_fields(selector, PODS_TRAITS)


def test_cluster_scoped_objects_have_no_namespace_to_select():
    with pytest.raises(BadRequest):
        parse_fields("metadata.namespace=x", traits_of(PERSISTENT_VOLUMES))


FIELD_VALUES = st.one_of(
    st.sampled_from(["", "a", "true", "false", 'quo"te', "back\\slash", "é", "line\n"]),
    st.text(max_size=5), st.booleans(), st.none(),
)  # fmt: skip


@given(FIELD_VALUES, st.one_of(st.sampled_from(["", "a", "true", 'quo"te', "é"]), st.text()))
def test_object_that_fits_is_never_passed_over_by_its_bytes(held, asked):
    escaped = re.sub(r"([\\,=])", r"\\\1", asked)
    matcher = compile_selection(PODS_TRAITS, Selection(field_selector=f"spec.nodeName={escaped}"))
    document = {"metadata": {"name": "a"}, "spec": {"nodeName": held}}

    assert matcher is not None
    if matcher(document):
        assert matcher.may_fit(msgspec.json.encode(document))


def test_object_of_another_node_is_passed_over_by_its_bytes():
    matcher = compile_selection(PODS_TRAITS, Selection(field_selector="spec.nodeName=node-1"))

    assert not matcher.may_fit(b'{"spec":{"nodeName":"node-10"}}')
    assert matcher.may_fit(b'{"spec":{"nodeName":"node-1"}}')


def test_object_is_not_judged_by_its_bytes_for_what_it_must_not_be():
    matcher = compile_selection(PODS_TRAITS, Selection(field_selector="spec.nodeName!=node-1"))

    assert matcher.may_fit(b'{"spec":{}}')
