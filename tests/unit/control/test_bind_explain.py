"""What a claim is told about itself."""

import msgspec
import pytest

from tests.contract.client.documents import claim, volume
from volagent.control.bind.explain import explain_claim
from volagent.objects.storage import PersistentVolume, PersistentVolumeClaim, StorageClass


def explain(volumes=(), classes=(), phase="Pending", **spec):
    document = {**claim("c", **spec), "status": {"phase": phase}}
    document["metadata"]["namespace"] = "default"
    return explain_claim(
        msgspec.convert(document, PersistentVolumeClaim),
        [msgspec.convert(each, PersistentVolume) for each in volumes],
        [
            msgspec.convert({"metadata": {"name": "fast"}, **each}, StorageClass)
            for each in classes
        ],
        [],
    )  # fmt: skip


def a_volume(name, **spec):
    return {**volume(name, **spec), "status": {"phase": "Available"}}


def test_every_volume_has_its_reason_and_the_nearest_comes_first():
    told = explain([
        a_volume("small", capacity={"storage": "1Mi"}),
        a_volume("other", storageClassName="slow"),
        a_volume("taken", claimRef={"namespace": "x", "name": "y", "uid": "z"}),
        a_volume("wide", accessModes=["ReadOnlyMany"]),
    ])  # fmt: skip
    assert [each["volume"] for each in told["rejected"]] == ["small", "wide", "other", "taken"]
    assert told["rejected"][0]["reason"] == "requested PV is too small: 1Mi < 1Gi"
    assert told["rejected"][3]["reason"] == "reserved for x/y"


@pytest.mark.parametrize(
    ("classes", "spec", "waits", "remedy"),
    [
        ((), {}, "no volume without a class fits", "name a class"),
        ((), {"storageClassName": "fast"}, 'no StorageClass "fast"', "make the class"),
        (
            ({"volumeBindingMode": "WaitForFirstConsumer", "provisioner": "p"},),
            {"storageClassName": "fast"},
            "first pod",
            "declare the pod",
        ),
        (
            ({"provisioner": "kubernetes.io/no-provisioner"},),
            {"storageClassName": "fast"},
            "made by hand",
            "storageClassName fast",
        ),
        (({"provisioner": "far.away"},), {"storageClassName": "fast"}, "far.away", "has to run"),
        ((), {"volumeName": "pv"}, "names the volume pv", "make it fit"),
    ],
)
def test_claim_without_a_volume_is_told_what_it_waits_for(classes, spec, waits, remedy):
    told = explain(classes=classes, **spec)
    assert waits in told["waits"]
    assert remedy in told["remedy"]


def test_bound_claim_waits_for_nothing():
    told = explain([a_volume("pv")], phase="Bound", volumeName="pv")
    assert told["waits"] == told["remedy"] == ""
    assert told["rejected"] == []
