"""Unknown and repeated fields are named, as strictly as the caller asks."""

from typing import Any

import pytest

from volagent.api.strictness import check_applied, check_fields, check_patch, find_unknown
from volagent.client.contract import RESOURCES, BadRequest, Invalid

CLAIM: dict[str, Any] = {
    "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c"},
    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "document", "paths"),
    [
        ("PersistentVolumeClaim", CLAIM, []),
        ("PersistentVolumeClaim", {"spec": {"foo": 1}}, ["spec.foo"]),
        ("StorageClass", {"reclaimPolcy": "Delete"}, ["reclaimPolcy"]),
        ("StorageClass", {"parameters": {"anything": "goes"}}, []),
        ("StorageClass", {"allowedTopologies": [{"x": 1}]}, ["allowedTopologies[0].x"]),
        ("VolumeSnapshot", {"spec": {"source": {"pvc": "x"}}}, ["spec.source.pvc"]),
        ("Lease", {"spec": {"holder": "x"}}, ["spec.holder"]),
        ("VolumeAttachment", {"spec": {"source": {"pv": "x"}}}, ["spec.source.pv"]),
        ("Pod", {"metadata": {"label": {}}}, ["metadata.label"]),
        ("Pod", {"spec": {"containers": [{"name": "a"}, {"img": "x"}]}},
         ["spec.containers[1].img"]),
        ("Pod", {"spec": {"containers": "wrong", "volumes": [3]}}, []),
        ("Role", {"rules": [{"verb": ["get"]}]}, ["rules[0].verb"]),
        ("CSINode", {"spec": {"drivers": [{"nodeId": "x"}]}}, ["spec.drivers[0].nodeId"]),
    ],
)  # fmt: skip
def test_unknown_fields_are_named(kind: str, document: dict[str, Any], paths: list[str]) -> None:
    assert find_unknown(document, kind) == [f'unknown field "{path}"' for path in paths]


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda resource: resource.plural)
def test_every_kind_is_looked_at(resource: Any) -> None:
    assert find_unknown({"metadata": {}, "surely": 1}, resource.kind) == ['unknown field "surely"']


def test_request_is_refused_when_strict() -> None:
    body = b'{"spec": {"foo": 1, "volumeName": "a", "volumeName": "b"}, "metadata": {"name": "c"}}'
    document = {**CLAIM, "spec": {"foo": 1, "volumeName": "b"}}
    with pytest.raises(BadRequest) as caught:
        check_fields(document, "PersistentVolumeClaim", "Strict", body)
    assert caught.value.message == (
        'PersistentVolumeClaim in version "v1" cannot be handled as a PersistentVolumeClaim: strict'
        ' decoding error: unknown field "spec.foo", duplicate field "spec.volumeName"'
    )


def test_request_is_warned_of_when_not_strict() -> None:
    document = {**CLAIM, "spec": {"foo": 1}}
    body = b'{"spec": {"foo": 1, "foo": 1}}'
    named = ('unknown field "spec.foo"', 'duplicate field "spec.foo"')
    assert check_fields(document, "PersistentVolumeClaim", "Warn", body) == named
    assert check_fields(document, "PersistentVolumeClaim", "", body) == named[:1]
    assert check_fields(document, "PersistentVolumeClaim", "Ignore", body) == ()


@pytest.mark.parametrize(
    ("patch", "path"),
    [
        ({"spec": {"foo": 1}}, "spec.foo"),
        ({"spec": {"$retainKeys": ["a"], "foo": None}}, "spec.foo"),
        ([{"op": "add", "path": "/spec/foo", "value": 1}], "spec.foo"),
        ([{"op": "replace", "path": "/spec/resources", "value": {"x": 1}}], "spec.resources.x"),
    ],
)
def test_patch_is_refused_when_strict(patch: Any, path: str) -> None:
    with pytest.raises(Invalid, match=rf'unknown field "{path}"'):
        check_patch(patch, "PersistentVolumeClaim", "Strict", b"{}")
    warned = check_patch(patch, "PersistentVolumeClaim", "", b"{}")
    assert warned == (f'unknown field "{path}"',)


@pytest.mark.parametrize(
    "patch",
    [
        {"spec": {"$patch": "replace"}, "metadata": {"annotations": {"x": None}}},
        [{"op": "test", "path": "/spec/foo", "value": 1}, {"op": "remove", "path": "/spec/foo"}],
        [{"op": "add", "path": "/metadata/annotations/a~1b", "value": "x"}, "odd"],
        "odd",
    ],
)
def test_patch_passes_when_it_sets_nothing_unknown(patch: Any) -> None:
    assert check_patch(patch, "PersistentVolumeClaim", "Strict", b"{}") == ()


def test_apply_of_what_nobody_knows_is_refused_always() -> None:
    with pytest.raises(BadRequest, match=r"\.spec\.foo: field not declared in schema"):
        check_applied({**CLAIM, "spec": {"foo": 1}}, "PersistentVolumeClaim")
