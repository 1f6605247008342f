"""Secrets, ConfigMaps, Namespaces, Nodes, Events and kinds without rules."""

from base64 import b64encode
from typing import Any

import pytest

from volagent.objects.field_errors import InvalidObject, MalformedObject
from volagent.objects.validate import prepare_create, prepare_update

MIB = 1024 * 1024


def make(kind: str, **members: Any) -> dict[str, Any]:
    metadata = {"name": "x", "namespace": "default"}
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata, **members}


def refuse(document: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(InvalidObject) as caught:
        prepare_create(document["kind"], document)
    return {error.field: error.message for error in caught.value.errors}


def test_text_of_a_secret_becomes_data_when_created() -> None:
    given = make("Secret", data={"a": "YQ==", "b": "Yg=="}, stringData={"b": "é"})
    secret = prepare_create("Secret", given)
    assert "stringData" not in secret
    assert secret["data"] == {"a": "YQ==", "b": b64encode("é".encode()).decode()}
    assert secret["type"] == "Opaque"


def test_base64_may_have_line_breaks() -> None:
    secret = prepare_create("Secret", make("Secret", data={"a": "YWJj\nZGVm\r\n"}))
    assert secret["data"] == {"a": "YWJjZGVm"}


def test_key_is_named_when_base64_is_bad_and_the_value_is_not_shown() -> None:
    with pytest.raises(MalformedObject) as caught:
        prepare_create("Secret", make("Secret", data={"ok": "YQ==", "bad": "hunter2!"}))
    assert caught.value.field == "data[bad]"
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("key", ["a/b", "..", ".", "..a", "", "x" * 254, "é"])
def test_key_is_refused_when_it_could_be_no_file_name(key: str) -> None:
    assert list(refuse(make("Secret", data={key: "YQ=="}))) == [f"data[{key}]"]
    assert list(refuse(make("ConfigMap", data={key: "a"}))) == [f"data[{key}]"]


def test_data_is_refused_when_larger_than_a_mebibyte() -> None:
    half = "x" * (MIB // 2)
    prepare_create("ConfigMap", make("ConfigMap", data={"a": half, "b": half}))
    assert refuse(make("ConfigMap", data={"a": half, "b": half + "x"})) == {
        "data": "Too long: may not be more than 1048576 bytes"
    }
    assert list(refuse(make("Secret", stringData={"a": half * 3}))) == ["data"]


def test_key_is_refused_when_it_is_text_and_binary_at_once() -> None:
    assert "binaryData" in refuse(make("ConfigMap", data={"a": "x"}, binaryData={"a": "YQ=="}))[
        "data[a]"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        ("kubernetes.io/tls", "data[tls.key]"),
        ("kubernetes.io/dockerconfigjson", "data[.dockerconfigjson]"),
        ("kubernetes.io/basic-auth", "data[username]"),
        ("kubernetes.io/ssh-auth", "data[ssh-privatekey]"),
        (
            "kubernetes.io/service-account-token",
            "metadata.annotations[kubernetes.io/service-account.name]",
        ),
    ],
)
def test_typed_secret_is_refused_when_its_keys_are_missing(kind: str, field: str) -> None:
    assert field in refuse(make("Secret", type=kind, data={"tls.crt": ""}))


@pytest.mark.parametrize("kind", ["Secret", "ConfigMap"])
def test_immutable_object_never_changes(kind: str) -> None:
    old = prepare_create(kind, make(kind, data={"a": "YQ=="}, immutable=True))
    labelled = {**old, "metadata": {**old["metadata"], "labels": {"a": "b"}}}
    assert prepare_update(kind, old, labelled) == labelled
    with pytest.raises(InvalidObject, match="data: Forbidden: field is immutable when"):
        prepare_update(kind, old, {**old, "data": {"a": "Yg=="}})
    with pytest.raises(InvalidObject, match="immutable: Forbidden"):
        prepare_update(kind, old, {**old, "immutable": False})


def test_type_of_a_secret_may_not_change() -> None:
    old = prepare_create("Secret", make("Secret"))
    with pytest.raises(InvalidObject, match='type: Invalid value: "x": field is immutable'):
        prepare_update("Secret", old, {**old, "type": "x"})


def test_namespace_is_refused_when_its_name_has_a_dot() -> None:
    document = {"kind": "Namespace", "metadata": {"name": "a.b"}}
    assert "RFC 1123 label" in refuse(document)["metadata.name"]


def test_node_has_allocatable_from_its_capacity() -> None:
    node = {"kind": "Node", "metadata": {"name": "n"}, "status": {"capacity": {"cpu": 2}}}
    status = prepare_create("Node", node)["status"]
    assert status == {"capacity": {"cpu": "2"}, "allocatable": {"cpu": "2"}}


def test_event_is_refused_when_it_is_in_another_namespace_than_its_object() -> None:
    event = make("Event", involvedObject={"kind": "Pod", "namespace": "other"})
    assert list(refuse(event)) == ["involvedObject.namespace"]
    prepare_create("Event", make("Event", involvedObject={"kind": "Node", "name": "n"}))


def test_object_of_a_kind_without_rules_needs_a_name() -> None:
    assert prepare_create("Lease", make("Lease", spec={"x": 1}))["spec"] == {"x": 1}
    with pytest.raises(InvalidObject):
        prepare_create("Lease", {"kind": "Lease", "metadata": {}})
