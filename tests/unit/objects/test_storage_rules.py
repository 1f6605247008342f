"""What PersistentVolumes and claims must be, and what of them may change."""

from typing import Any

import pytest

from volagent.objects.field_errors import InvalidObject, MalformedObject
from volagent.objects.validate import prepare_create, prepare_update


def make_volume(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": "pv"},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "nfs": {"server": "s", "path": "/x"},
            **spec,
        },
    }


def make_claim(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "c", "namespace": "default"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
            **spec,
        },
    }


def without(document: dict[str, Any], name: str) -> dict[str, Any]:
    return {**document, "spec": {k: v for k, v in document["spec"].items() if k != name}}


def refuse(document: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(InvalidObject) as caught:
        prepare_create(document["kind"], document)
    return {error.field: error.message for error in caught.value.errors}


def annotated(document: dict[str, Any], partition: str) -> dict[str, Any]:
    metadata = {**document["metadata"], "annotations": {"volagent.dev/partition": partition}}
    return {**document, "metadata": metadata}


DISK = {"targetPortal": "a", "iqn": "iqn.2026-01.lab:a", "lun": 0}


@pytest.mark.parametrize(
    ("volume", "field", "message"),
    [
        (without(make_volume(), "nfs"), "spec", "Required value: must specify a volume type"),
        (
            make_volume(csi={"driver": "d", "volumeHandle": "h"}), "spec.csi",
            "Forbidden: may not specify more than 1 volume type",
        ),
        (
            annotated(make_volume(), "1"), "metadata.annotations[volagent.dev/partition]",
            "Forbidden: is for spec.iscsi",
        ),
        (
            annotated(without(make_volume(iscsi=DISK), "nfs"), "first"),
            "metadata.annotations[volagent.dev/partition]", 'Invalid value: "first": must be',
        ),
        (make_volume(rbd={}), "spec.rbd", "volagent has no driver for it yet"),
        (without(make_volume(), "capacity"), "spec.capacity", "Required value"),
        (
            make_volume(capacity={"storage": "0"}), "spec.capacity[storage]",
            'Invalid value: "0": must be greater than zero',
        ),
        (make_volume(capacity={"cpu": "1"}), "spec.capacity", "Unsupported value"),
        (make_volume(accessModes=[]), "spec.accessModes", "at least 1 access mode is required"),
        (make_volume(accessModes=["RWO"]), "spec.accessModes", 'Unsupported value: "RWO"'),
        (
            make_volume(accessModes=["ReadWriteOnce", "ReadWriteOncePod"]), "spec.accessModes",
            "may not use ReadWriteOncePod with other access modes",
        ),
        (make_volume(volumeMode="Raw"), "spec.volumeMode", "Unsupported value"),
        (
            make_volume(persistentVolumeReclaimPolicy="Keep"),
            "spec.persistentVolumeReclaimPolicy", "Unsupported value",
        ),
        (
            make_volume(persistentVolumeReclaimPolicy="Recycle"),
            "spec.persistentVolumeReclaimPolicy", "use Delete, which goes through the trash",
        ),
        (make_volume(storageClassName="A"), "spec.storageClassName", "RFC 1123"),
        (
            without(make_volume(local={"path": "/x"}), "nfs"), "spec.nodeAffinity",
            "Required value: Local volume requires node affinity",
        ),
        (
            without(make_volume(awsElasticBlockStore={"volumeID": ""}), "nfs"),
            "spec.awsElasticBlockStore.volumeID", "Required value",
        ),
        (
            without(make_volume(iscsi={"targetPortal": "a", "iqn": "eui.1", "lun": 0}), "nfs"),
            "spec.iscsi.iqn", "must be valid format",
        ),
        (
            without(
                make_volume(
                    iscsi={
                        "targetPortal": "a", "iqn": "iqn.2026-01.lab:a", "lun": 0,
                        "secretRef": {"namespace": "n"},
                    }
                ),
                "nfs",
            ),
            "spec.iscsi.secretRef.name", "Required value",
        ),
        (
            without(make_volume(csi={"driver": "d"}), "nfs"), "spec.csi.volumeHandle",
            "Required value",
        ),
        (
            without(make_volume(csi={
                "driver": "d", "volumeHandle": "h", "nodeStageSecretRef": {"name": "s"}}), "nfs"),
            "spec.csi.nodeStageSecretRef.namespace", "Required value",
        ),
        (
            make_volume(nodeAffinity={"required": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "k", "operator": "In"}]}]}}),
            "spec.nodeAffinity.required.nodeSelectorTerms[0].matchExpressions[0].values",
            "Required value",
        ),
        (make_volume(mountOptions=["ro\nexec"]), "spec.mountOptions[0]", "control characters"),
    ],
)  # fmt: skip
def test_volume_is_refused_when_it_breaks_a_rule(
    volume: dict[str, Any], field: str, message: str
) -> None:
    errors = refuse(volume)
    assert list(errors) == [field]
    assert message in errors[field]


def test_disk_of_a_target_has_the_default_interface() -> None:
    disk = {"targetPortal": "a", "iqn": "iqn.2026-01.lab:a", "lun": 0}
    made = prepare_create("PersistentVolume", without(make_volume(iscsi=disk), "nfs"))
    assert made["spec"]["iscsi"] == disk | {"iscsiInterface": "default"}


def test_volume_has_kubernetes_defaults() -> None:
    spec = prepare_create("PersistentVolume", make_volume(capacity={"storage": "1024Mi"}))["spec"]
    assert spec["persistentVolumeReclaimPolicy"] == "Retain"
    assert spec["volumeMode"] == "Filesystem"
    assert spec["capacity"] == {"storage": "1Gi"}


def test_volume_keeps_its_source_and_mode_and_may_grow() -> None:
    old = prepare_create("PersistentVolume", make_volume())
    grown = make_volume(capacity={"storage": "2Gi"}, claimRef={"name": "c"}, mountOptions=["ro"])
    assert prepare_update("PersistentVolume", old, grown)["spec"]["capacity"] == {"storage": "2Gi"}
    with pytest.raises(InvalidObject, match="persistentvolumesource is immutable after creation"):
        prepare_update("PersistentVolume", old, make_volume(nfs={"server": "t", "path": "/x"}))
    with pytest.raises(InvalidObject, match=r'spec\.volumeMode: Invalid value: "Block"'):
        prepare_update("PersistentVolume", old, make_volume(volumeMode="Block"))


def test_affinity_of_a_volume_may_be_set_once() -> None:
    def affinity(value: str) -> dict[str, Any]:
        term = {"matchExpressions": [{"key": "k", "operator": "In", "values": [value]}]}
        return {"required": {"nodeSelectorTerms": [term]}}

    old = prepare_create("PersistentVolume", make_volume())
    new = prepare_update("PersistentVolume", old, make_volume(nodeAffinity=affinity("a")))
    with pytest.raises(InvalidObject, match="field is immutable"):
        prepare_update("PersistentVolume", new, make_volume(nodeAffinity=affinity("b")))


@pytest.mark.parametrize(
    ("claim", "field", "message"),
    [
        (make_claim(accessModes=None), "spec.accessModes", "at least 1 access mode is required"),
        (make_claim(resources={}), "spec.resources[storage]", "Required value"),
        (
            make_claim(resources={"requests": {"storage": "-1"}}), "spec.resources[storage]",
            "must be greater than zero",
        ),
        (make_claim(volumeMode="x"), "spec.volumeMode", "Unsupported value"),
        (make_claim(volumeName="a/b"), "spec.volumeName", "RFC 1123"),
        (
            make_claim(selector={"matchExpressions": [{"key": "k", "operator": "Near"}]}),
            "spec.selector.matchExpressions[0].operator", "Unsupported value",
        ),
    ],
)  # fmt: skip
def test_claim_is_refused_when_it_breaks_a_rule(
    claim: dict[str, Any], field: str, message: str
) -> None:
    errors = refuse(claim)
    assert list(errors) == [field]
    assert message in errors[field]


def test_selector_is_malformed_when_its_type_is_wrong() -> None:
    with pytest.raises(MalformedObject) as caught:
        prepare_create("PersistentVolumeClaim", make_claim(selector={"matchLabels": [1]}))
    assert caught.value.field == "spec.selector.matchLabels"


def bound_claim(**spec: Any) -> dict[str, Any]:
    claim = prepare_create("PersistentVolumeClaim", make_claim(volumeName="pv", **spec))
    return {**claim, "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}}


def request(size: str) -> dict[str, Any]:
    return {"requests": {"storage": size}}


def test_volume_name_of_a_claim_may_be_set_once() -> None:
    old = prepare_create("PersistentVolumeClaim", make_claim())
    named = prepare_update("PersistentVolumeClaim", old, make_claim(volumeName="pv"))
    assert named["spec"]["volumeName"] == "pv"
    kept = prepare_update("PersistentVolumeClaim", named, make_claim())
    assert kept["spec"]["volumeName"] == "pv"
    with pytest.raises(InvalidObject, match="spec is immutable after creation"):
        prepare_update("PersistentVolumeClaim", named, make_claim(volumeName="other"))


def test_size_of_a_claim_is_fixed_while_it_is_not_bound() -> None:
    old = prepare_create("PersistentVolumeClaim", make_claim())
    with pytest.raises(InvalidObject, match="spec is immutable"):
        prepare_update("PersistentVolumeClaim", old, make_claim(resources=request("2Gi")))


def test_bound_claim_may_not_shrink() -> None:
    shrunk = make_claim(volumeName="pv", resources=request("500Mi"))
    with pytest.raises(InvalidObject, match=r"can not be less than status\.capacity"):
        prepare_update("PersistentVolumeClaim", bound_claim(), shrunk)


def test_claim_is_unchanged_when_only_the_writing_of_its_size_differs() -> None:
    same = make_claim(volumeName="pv", resources=request("1024Mi"))
    assert prepare_update("PersistentVolumeClaim", bound_claim(), same)


def test_volume_that_an_older_version_took_can_still_be_changed_but_not_to_recycle():
    stored = prepare_create("PersistentVolume", make_volume())
    old = {**stored, "spec": {**stored["spec"], "persistentVolumeReclaimPolicy": "Recycle"}}
    kept = {**old, "metadata": {**old["metadata"], "labels": {"a": "b"}}}
    assert prepare_update("PersistentVolume", old, kept)["metadata"]["labels"] == {"a": "b"}
    with pytest.raises(InvalidObject):
        prepare_update("PersistentVolume", stored, old)
