"""What classes, drivers, attachments, snapshots, leases and endpoints must be, and may become."""

from typing import Any

import pytest

from volagent.objects.field_errors import InvalidObject, MalformedObject
from volagent.objects.validate import prepare_create, prepare_update

Json = dict[str, Any]
_VERSIONS = {
    "StorageClass": "storage.k8s.io/v1", "VolumeAttachment": "storage.k8s.io/v1",
    "CSIDriver": "storage.k8s.io/v1", "CSINode": "storage.k8s.io/v1",
    "CSIStorageCapacity": "storage.k8s.io/v1", "Lease": "coordination.k8s.io/v1",
    "Endpoints": "v1", "VolumeSnapshot": "snapshot.storage.k8s.io/v1",
    "VolumeSnapshotClass": "snapshot.storage.k8s.io/v1",
    "VolumeSnapshotContent": "snapshot.storage.k8s.io/v1", "PersistentVolumeClaim": "v1",
    "Fencing": "volagent.dev/v1",
}  # fmt: skip
_NAMESPACED = {"CSIStorageCapacity", "Lease", "Endpoints", "VolumeSnapshot"}
_CONTENT = {
    "driver": "d", "deletionPolicy": "Delete", "source": {"snapshotHandle": "h"},
    "volumeSnapshotRef": {"name": "s", "namespace": "default"},
}  # fmt: skip
_FENCED = {"attachment": {"name": "va", "uid": "u"}, "volume": "d", "nodeName": "n",
           "method": "Storage", "executor": "m"}  # fmt: skip
_ATTACHED = {"attacher": "a.b", "nodeName": "n", "source": {"persistentVolumeName": "pv"}}


def make(kind: str, **members: Any) -> Json:
    metadata: Json = {"name": "x"}
    if kind in _NAMESPACED:
        metadata["namespace"] = "default"
    return {"apiVersion": _VERSIONS[kind], "kind": kind, "metadata": metadata, **members}


def spec_of(kind: str, **spec: Any) -> Json:
    return make(kind, spec=spec)


GOOD: list[Json] = [
    make("StorageClass", provisioner="fuseim.pri/ifs"),
    make(
        "StorageClass", provisioner="kubernetes.io/aws-ebs", reclaimPolicy="Retain",
        volumeBindingMode="WaitForFirstConsumer", parameters={"type": "gp3"},
        mountOptions=["noatime"], allowVolumeExpansion=True,
        allowedTopologies=[
            {"matchLabelExpressions": [{"key": "topology.kubernetes.io/zone", "values": ["a"]}]}
        ],
    ),
    spec_of("VolumeAttachment", **_ATTACHED),
    spec_of("CSIDriver", attachRequired=False, tokenRequests=[{"audience": ""}]),
    make("CSIDriver"),
    spec_of("CSINode", drivers=[{"name": "d", "nodeID": "n", "topologyKeys": ["a/b"]}]),
    make("CSIStorageCapacity", storageClassName="fast", capacity="1Gi", nodeTopology={}),
    spec_of("Lease", holderIdentity="me", leaseDurationSeconds=15, leaseTransitions=0,
            renewTime="2024-01-01T00:00:00.123456Z"),
    make("Endpoints", subsets=[{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]}]),
    make("Endpoints"),
    spec_of("VolumeSnapshot", source={"persistentVolumeClaimName": "c"}),
    make("VolumeSnapshotClass", driver="d", deletionPolicy="Retain"),
    spec_of("VolumeSnapshotContent", **_CONTENT),
    spec_of("Fencing", **_FENCED),
]  # fmt: skip


@pytest.mark.parametrize("document", GOOD, ids=lambda document: document["kind"])
def test_good_object_passes_and_stays_so(document: Json) -> None:
    stored = prepare_create(document["kind"], document)
    assert prepare_update(document["kind"], stored, stored) == stored
    assert prepare_create(document["kind"], stored) == stored


BAD: list[tuple[Json, str]] = [
    (make("StorageClass"), "provisioner: Required value"),
    (make("StorageClass", provisioner="a b"), 'provisioner: Invalid value: "a b": name part'),
    (make("StorageClass", provisioner="p", reclaimPolicy="Recycle"),
     'reclaimPolicy: Unsupported value: "Recycle": supported values: "Delete", "Retain"'),
    (make("StorageClass", provisioner="p", volumeBindingMode="Later"),
     'volumeBindingMode: Unsupported value: "Later"'),
    (make("StorageClass", provisioner="p", parameters={"": "x"}),
     "parameters: Invalid value: \"\": field can not be empty."),
    (make("StorageClass", provisioner="p", parameters={str(n): "" for n in range(513)}),
     "parameters: Too long"),
    (make("StorageClass", provisioner="p", parameters={"a": "x" * 300_000}),
     "parameters: Too long"),
    (make("StorageClass", provisioner="p", mountOptions=["a\nb"]), "mountOptions[0]: Invalid"),
    (make("StorageClass", provisioner="p", allowedTopologies=[
        {"matchLabelExpressions": [{"key": "z", "values": []}]}]),
     "allowedTopologies[0].matchLabelExpressions[0].values: Required value"),
    (make("StorageClass", provisioner="p", allowedTopologies=[
        {"matchLabelExpressions": [{"key": "z", "values": ["a", "a"]}]}]),
     "allowedTopologies[0].matchLabelExpressions[0].values[1]: Duplicate value"),
    (make("StorageClass", provisioner="p", allowedTopologies=[
        {"matchLabelExpressions": [{"key": "z", "values": ["a"]}]}] * 2),
     "allowedTopologies[1]: Duplicate value"),
    (spec_of("VolumeAttachment", **{**_ATTACHED, "attacher": ""}), "spec.attacher: Required value"),
    (spec_of("VolumeAttachment", **{**_ATTACHED, "nodeName": ""}), "spec.nodeName: Required value"),
    (spec_of("Fencing", **{**_FENCED, "method": "Timer"}),
     'spec.method: Unsupported value: "Timer"'),
    (spec_of("Fencing", **{**_FENCED, "executor": "n"}), "a node cannot prove of itself"),
    (spec_of("Fencing", **{**_FENCED, "attachment": {"name": "va"}}),
     "spec.attachment.uid: Required value"),
    (spec_of("VolumeAttachment", **{**_ATTACHED, "source": {}}),
     "spec.source: Required value: must specify exactly one of"),
    (spec_of("VolumeAttachment", **{**_ATTACHED, "source": {
        "persistentVolumeName": "a", "inlineVolumeSpec": {}}}),
     "spec.source: Forbidden: must specify exactly one of"),
    (spec_of("CSIDriver", fsGroupPolicy="Some"), "spec.fsGroupPolicy: Unsupported value"),
    (spec_of("CSIDriver", volumeLifecycleModes=["Eternal"]),
     "spec.volumeLifecycleModes: Unsupported value"),
    (spec_of("CSIDriver", tokenRequests=[{"audience": "a"}, {"audience": "a"}]),
     "spec.tokenRequests[1].audience: Duplicate value"),
    (spec_of("CSIDriver", tokenRequests=[{"audience": "a", "expirationSeconds": 5}]),
     "spec.tokenRequests[0].expirationSeconds: Invalid value: 5"),
    (spec_of("CSINode", drivers=[{"name": "d"}]), "spec.drivers[0].nodeID: Required value"),
    (spec_of("CSINode", drivers=[{"name": "d", "nodeID": "n" * 193}]),
     "spec.drivers[0].nodeID: Invalid value"),
    (spec_of("CSINode", drivers=[{"name": "d", "nodeID": "n"}] * 2),
     'spec.drivers[1].name: Duplicate value: "d"'),
    (spec_of("CSINode", drivers=[{"name": "d", "nodeID": "n", "allocatable": {"count": -1}}]),
     "spec.drivers[0].allocatable.count: Invalid value: -1"),
    (make("CSIStorageCapacity", capacity="1"), "storageClassName: Required value"),
    (make("CSIStorageCapacity", storageClassName="a", capacity="-1"), "capacity: Invalid value"),
    (spec_of("Lease", leaseDurationSeconds=0),
     "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"),
    (spec_of("Lease", leaseTransitions=-1), "spec.leaseTransitions: Invalid value: -1"),
    (make("Endpoints", subsets=[{"ports": [{"port": 1}]}]),
     "subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`"),
    (make("Endpoints", subsets=[{"addresses": [{"ip": "10.0.0"}]}]),
     "subsets[0].addresses[0].ip: Invalid value: \"10.0.0\": must be a valid IP address"),
    (make("Endpoints", subsets=[{"addresses": [{"ip": "127.0.0.1"}]}]),
     "may not be in the loopback range"),
    (make("Endpoints", subsets=[{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 0}]}]),
     "subsets[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"),
    (make("Endpoints", subsets=[
        {"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 1}, {"port": 2}]}]),
     "subsets[0].ports[0].name: Required value"),
    (spec_of("VolumeSnapshot", source={}),
     "exactly one of volumeSnapshotContentName and persistentVolumeClaimName must be set"),
    (spec_of("VolumeSnapshot", source={"persistentVolumeClaimName": "c"},
             volumeSnapshotClassName=""), "must not be the empty string when set"),
    (make("VolumeSnapshotClass", driver="d"), "deletionPolicy: Required value"),
    (make("VolumeSnapshotClass", driver="d", deletionPolicy="Keep"),
     "deletionPolicy: Unsupported value"),
    (spec_of("VolumeSnapshotContent", **{**_CONTENT, "source": {}}),
     "exactly one of snapshotHandle and volumeHandle must be set"),
    (spec_of("VolumeSnapshotContent", **{**_CONTENT, "volumeSnapshotRef": {"name": "s"}}),
     "both spec.volumeSnapshotRef.name and spec.volumeSnapshotRef.namespace must be set"),
    (spec_of("VolumeSnapshotContent", **{**_CONTENT, "sourceVolumeMode": "Tape"}),
     "spec.sourceVolumeMode: Unsupported value"),
]  # fmt: skip


@pytest.mark.parametrize(("document", "text"), BAD, ids=lambda value: str(value)[:40])
def test_bad_object_is_refused_in_kubernetes_words(document: Json, text: str) -> None:
    with pytest.raises(InvalidObject) as caught:
        prepare_create(document["kind"], document)
    assert text in caught.value.describe()


@pytest.mark.parametrize(
    "document",
    [
        make("StorageClass", provisioner="p", allowVolumeExpansion="yes"),
        make("StorageClass", provisioner="p", parameters={"a": 1}),
        spec_of("Lease", renewTime="2024-01-01T00:00:00Z"),
        spec_of("Lease", leaseDurationSeconds="15"),
        spec_of("VolumeSnapshot", source="c"),
        spec_of("CSIDriver", attachRequired="no"),
        make("CSIStorageCapacity", storageClassName="a", capacity="much"),
    ],
    ids=lambda document: document["kind"],
)
def test_wrong_type_is_no_object(document: Json) -> None:
    with pytest.raises(MalformedObject):
        prepare_create(document["kind"], document)


CHANGES: list[tuple[Json, Json, str]] = [
    (make("StorageClass", provisioner="p"), {"provisioner": "q"},
     "provisioner: Forbidden: updates to provisioner are forbidden."),
    (make("StorageClass", provisioner="p"), {"parameters": {"a": "b"}},
     "parameters: Forbidden: updates to parameters are forbidden."),
    (make("StorageClass", provisioner="p"), {"reclaimPolicy": "Retain"},
     "reclaimPolicy: Forbidden: updates to reclaimPolicy are forbidden."),
    (make("StorageClass", provisioner="p"), {"volumeBindingMode": "WaitForFirstConsumer"},
     "volumeBindingMode: Invalid value: \"WaitForFirstConsumer\": field is immutable"),
    (spec_of("VolumeAttachment", **_ATTACHED), {"spec": {**_ATTACHED, "nodeName": "m"}},
     "spec: Invalid value"),
    (spec_of("Fencing", **_FENCED), {"spec": {**_FENCED, "method": "Hook"}}, "spec: Invalid value"),
    (spec_of("CSIDriver"), {"spec": {"attachRequired": False}},
     "spec.attachRequired: Invalid value: false: field is immutable"),
    (spec_of("CSINode", drivers=[{"name": "d", "nodeID": "n"}]),
     {"spec": {"drivers": [{"name": "d", "nodeID": "other"}]}}, "spec.drivers: Invalid value"),
    (make("CSIStorageCapacity", storageClassName="a"), {"storageClassName": "b"},
     "storageClassName: Invalid value"),
    (spec_of("VolumeSnapshot", source={"persistentVolumeClaimName": "c"}),
     {"spec": {"source": {"persistentVolumeClaimName": "d"}}},
     "persistentVolumeClaimName is immutable"),
    (spec_of("VolumeSnapshotContent", **_CONTENT),
     {"spec": {**_CONTENT, "source": {"snapshotHandle": "other"}}}, "snapshotHandle is immutable"),
    (spec_of("VolumeSnapshotContent", **_CONTENT, sourceVolumeMode="Block"),
     {"spec": _CONTENT}, "sourceVolumeMode is required once set"),
]  # fmt: skip


@pytest.mark.parametrize(("document", "change", "text"), CHANGES, ids=lambda value: str(value)[:30])
def test_change_of_what_is_fixed_is_refused(document: Json, change: Json, text: str) -> None:
    stored = prepare_create(document["kind"], document)
    with pytest.raises(InvalidObject) as caught:
        prepare_update(document["kind"], stored, {**stored, **change})
    assert text in caught.value.describe()


@pytest.mark.parametrize(
    ("document", "change"),
    [
        (make("StorageClass", provisioner="p"), {"allowVolumeExpansion": True}),
        (make("StorageClass", provisioner="p"), {"mountOptions": ["ro"]}),
        (make("StorageClass", provisioner="p"), {"metadata": {"name": "x", "labels": {"a": "b"}}}),
        (spec_of("CSINode", drivers=[{"name": "d", "nodeID": "n"}]), {"spec": {"drivers": [
            {"name": "d", "nodeID": "n", "allocatable": {"count": 3}},
            {"name": "e", "nodeID": "n"}]}}),
        (spec_of("Lease", holderIdentity="a"), {"spec": {"holderIdentity": "b"}}),
    ],
    ids=lambda value: str(value)[:30],
)  # fmt: skip
def test_change_of_what_may_change_passes(document: Json, change: Json) -> None:
    stored = prepare_create(document["kind"], document)
    assert prepare_update(document["kind"], stored, {**stored, **change}) == {**stored, **change}


def test_class_has_its_defaults() -> None:
    stored = prepare_create("StorageClass", make("StorageClass", provisioner="p"))
    assert (stored["reclaimPolicy"], stored["volumeBindingMode"]) == ("Delete", "Immediate")


def _claim(**spec: Any) -> Json:
    return {
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": "c", "namespace": "default"},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, **spec,
        },
    }  # fmt: skip


SNAPSHOT = {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "s"}
CLAIM = {"kind": "PersistentVolumeClaim", "name": "d"}
OTHER = {"apiGroup": "example.com", "kind": "Tape", "name": "t"}


@pytest.mark.parametrize(
    ("given", "source", "reference"),
    [
        ({"dataSource": SNAPSHOT}, SNAPSHOT, SNAPSHOT),
        ({"dataSourceRef": CLAIM}, CLAIM, CLAIM),
        ({"dataSourceRef": OTHER}, None, OTHER),
        ({"dataSourceRef": {**CLAIM, "namespace": "n"}}, None, {**CLAIM, "namespace": "n"}),
    ],
)
def test_data_source_is_in_both_fields_where_it_can_be(
    given: Json, source: Json | None, reference: Json
) -> None:
    spec = prepare_create("PersistentVolumeClaim", _claim(**given))["spec"]
    assert (spec.get("dataSource"), spec["dataSourceRef"]) == (source, reference)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"dataSource": {"kind": "PersistentVolumeClaim"}}, "spec.dataSource.name: Required value"),
        ({"dataSource": {"name": "x"}}, "spec.dataSource.kind: Required value"),
        ({"dataSource": {"kind": "Tape", "name": "x"}},
         "must be 'PersistentVolumeClaim' when referencing the default apiGroup"),
        ({"dataSource": SNAPSHOT, "dataSourceRef": CLAIM}, "must match dataSourceRef"),
        ({"dataSource": CLAIM, "dataSourceRef": {**CLAIM, "namespace": "n"}},
         "may not be specified when dataSourceRef.namespace is specified"),
    ],
)  # fmt: skip
def test_bad_data_source_is_refused(given: Json, text: str) -> None:
    with pytest.raises(InvalidObject) as caught:
        prepare_create("PersistentVolumeClaim", _claim(**given))
    assert text in caught.value.describe()


def test_claim_may_get_a_class_later_but_not_another_one() -> None:
    stored = prepare_create("PersistentVolumeClaim", _claim())
    chosen = {**stored, "spec": {**stored["spec"], "storageClassName": "fast"}}
    chosen = prepare_update("PersistentVolumeClaim", stored, chosen)
    other = {**chosen, "spec": {**chosen["spec"], "storageClassName": "slow"}}
    with pytest.raises(InvalidObject, match="spec is immutable after creation"):
        prepare_update("PersistentVolumeClaim", chosen, other)


def _with_phase(phase: str) -> Json:
    return {**spec_of("Fencing", **_FENCED), "status": {"phase": phase}}


@pytest.mark.parametrize(
    ("old", "new"), [("Pending", "Proven"), ("Pending", "Impossible"), ("Proven", "Proven")]
)
def test_fencing_comes_to_an_end(old: str, new: str) -> None:
    prepare_update("Fencing", _with_phase(old), _with_phase(new), subresource="status")


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("Proven", "Pending", "it is Proven for good"),
        ("Impossible", "Proven", "it is Impossible for good"),
        ("Pending", "Done", "Unsupported value"),
    ],
)
def test_outcome_of_a_fencing_is_never_another_one(old: str, new: str, text: str) -> None:
    with pytest.raises(InvalidObject, match=text):
        prepare_update("Fencing", _with_phase(old), _with_phase(new), subresource="status")
