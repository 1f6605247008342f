"""The tables of fields, and the OpenAPI documents that are made of them."""

from collections.abc import Iterator
from typing import Any

import pytest

from volagent.api import strategic
from volagent.api.openapi.document import openapi_document, openapi_index, root_of
from volagent.api.openapi.schema import PLAIN, Shape, TableError, Type, all_types, read_table
from volagent.client.contract import RESOURCES, Resource

kubernetes = pytest.importorskip("kubernetes", reason="needs the kubernetes package: make setup")

TYPES = all_types()
FIELDS = [(found, name, field) for found in TYPES.values() for name, field in found.fields.items()]


def test_every_form_names_something_that_is_there() -> None:
    for found, name, field in FIELDS:
        form = field.form
        assert form.base in PLAIN or form.base in TYPES, (found.name, name)
        assert all(key in TYPES[form.base].fields for key in form.keys), (found.name, name)


def test_every_kind_that_is_served_is_described() -> None:
    assert {resource.kind for resource in RESOURCES} == {
        found.name for found in TYPES.values() if found.is_kind
    }


def test_every_field_that_volagent_acts_on_is_explained() -> None:
    silent = {found.name for found, _, field in FIELDS if not field.description}
    assert all(name.endswith("VolumeSource") for name in silent)
    assert not silent & {"NFSVolumeSource", "CSIPersistentVolumeSource", "LocalVolumeSource"}


def _model(found: Type) -> Any:
    for prefix in ("V1", "CoreV1", "StorageV1", "RbacV1", ""):
        model = getattr(kubernetes.client, f"{prefix}{found.name}", None)
        if model is not None:
            return model
    return None


@pytest.mark.parametrize("found", TYPES.values(), ids=lambda found: found.name)
def test_fields_are_those_of_the_official_client(found: Type) -> None:
    model = _model(found)
    if model is None:
        text = "only snapshots and volagent's own kinds are no part of that client"
        assert "snapshot" in found.package or found.package == "dev.volagent.v1", text
        return
    for attribute, name in model.attribute_map.items():
        field = found.fields.get(name)
        if field is None:
            continue  # of a Kubernetes newer than the version that is spoken
        kind = model.openapi_types[attribute].lower()
        assert kind.startswith("list") == (field.form.shape is Shape.LIST), name
        assert kind.startswith("dict") == (field.form.shape is Shape.MAP), name
    assert found.fields.keys() <= set(model.attribute_map.values())


def _strategic_lists(shape: Any, found: Type) -> Iterator[tuple[Type, str, str]]:
    for name, key in shape.keys.items():
        yield found, name, key
    for name, inner in shape.inner.items():
        yield from _strategic_lists(inner, TYPES[found.fields[name].form.base])


def test_lists_are_merged_by_the_same_keys_in_strategic_patches() -> None:
    for kind, shape in strategic._LISTS.items():
        for found, name, key in _strategic_lists(shape, TYPES[kind]):
            form = found.fields[name].form
            if (found.name, name) in {
                ("PodStatus", "hostIPs"), ("ServiceAccount", "imagePullSecrets"),
            }:  # fmt: skip
                continue  # merged by patches only
            assert not form.whole, (found.name, name)
            assert (form.keys or ("",))[0] == key, (found.name, name)


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        for inner in value.values():
            yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)


@pytest.mark.parametrize("path", sorted(openapi_index()["paths"]))
def test_document_is_complete_in_itself(path: str) -> None:
    document = openapi_document(f"/openapi/v3/{path}")
    assert document is not None
    schemas = document["components"]["schemas"]
    for reference in _references(document):
        assert reference.removeprefix("#/components/schemas/") in schemas


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda resource: resource.plural)
def test_kind_is_found_by_its_path(resource: Resource) -> None:
    document = openapi_document(f"/openapi/v3{root_of(resource)}")
    assert document is not None
    place = "/namespaces/{namespace}" if resource.namespaced else ""
    path = document["paths"][f"{root_of(resource)}{place}/{resource.plural}"]
    kind = path["get"]["x-kubernetes-group-version-kind"]
    found = [
        schema
        for schema in document["components"]["schemas"].values()
        if kind in schema.get("x-kubernetes-group-version-kind", ())
    ]
    assert [schema["properties"].keys() >= {"metadata", "kind"} for schema in found] == [True]


def test_unknown_path_has_no_document() -> None:
    assert openapi_document("/openapi/v3/apis/apps/v1") is None
    assert openapi_document("/openapi/v2") is None


@pytest.mark.parametrize(
    "text", ["Type without bar", "T | x\n  name", "T | x\n  name [string desc", "T | x\n  n {a}{b}"]
)
def test_line_that_is_none_is_named_when_a_table_is_read(text: str) -> None:
    with pytest.raises(TableError, match="line"):
        read_table(text, {})
