"""YAML means what it means to Kubernetes, and never more than is bounded."""

from typing import Any

import pytest

from volagent.objects.manifest import ManifestError, read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2024-01-01", "2024-01-01"),
        ("22:22", "22:22"),
        ("0644", 0o644),
        ("0o644", 0o644),
        ("0x1F", 31),
        ("-5", -5),
        ("1e3", 1000.0),
        ("1.5", 1.5),
        ("1Gi", "1Gi"),
        ("1_000", "1_000"),
        ("yes", True),
        ("off", False),
        ("~", None),
        ("'yes'", "yes"),
        ("09", "09"),
        ("=", "="),
    ],
)
def test_scalar_means_what_it_means_to_kubernetes(text: str, value: Any) -> None:
    assert read_yaml(f"a: {text}") == [{"a": value}]


def test_keys_become_strings() -> None:
    assert read_yaml("1: a\ntrue: b\n~: c\n1.5: d") == [
        {"1": "a", "true": "b", "null": "c", "1.5": "d"}
    ]


def test_documents_are_separate_and_empty_ones_are_left_out() -> None:
    assert read_yaml("---\na: 1\n---\n---\n# nothing\n---\nb: 2\n") == [{"a": 1}, {"b": 2}]


def test_aliases_and_merges_work_within_bounds() -> None:
    text = "base: &b {x: 1}\none: *b\ntwo: {<<: *b, y: 2}"
    assert read_yaml(text) == [{"base": {"x": 1}, "one": {"x": 1}, "two": {"x": 1, "y": 2}}]


def test_alias_counts_with_its_depth() -> None:
    deep = "[" * 40 + "]" * 40
    with pytest.raises(ManifestError, match="64 levels"):
        read_yaml(f"a: &a {deep}\nb: {'[' * 40}*a{']' * 40}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1, 2", "line 2 column 1"),
        ("a: *nowhere", "line 1 column 4: alias"),
        ("a: !!python/object:os.system x", "constructor"),
        ("a: !!timestamp 2024-01-01", "no meaning in JSON"),
        ("a: \0", "not allowed"),
        ("a: " + "9" * 5000, "is no integer"),
        ("\t- a", "line 1 column 1"),
        ("? {a: b}\n: c", "line 1"),
    ],
)
def test_text_is_refused_with_its_place_when_it_is_no_json(text: str, message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        read_yaml(text)
