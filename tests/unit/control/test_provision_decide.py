"""The next step for a claim and for a volume, as pure functions."""

from dataclasses import replace

import msgspec
import pytest

from volagent.control.provision.decide import (
    Circumstances,
    Complain,
    Discard,
    Doom,
    Elect,
    Forget,
    Hold,
    LetGo,
    Make,
    Protect,
    Reclaim,
    decide_claim,
    decide_volume,
    is_within_reach,
    topologies_admit,
)
from volagent.objects.annotations import (
    BIND_COMPLETED,
    PROVISIONED_BY,
    PROVISIONER,
    PROVISIONING,
    RECLAIM_PROTECTION,
    SELECTED_NODE,
)
from volagent.objects.storage import Node, PersistentVolume, PersistentVolumeClaim, StorageClass

FAKE = "fake.test"
GOING = "2026-01-01T00:00:00Z"
HOST = "kubernetes.io/hostname"


def a_claim(*, held=True, going=False, bound="", node="", volume="", **annotations):
    annotations = {PROVISIONER: FAKE, **annotations}
    if node:
        annotations[SELECTED_NODE] = node
    if bound:
        annotations[BIND_COMPLETED] = "yes"
    document = {
        "metadata": {
            "name": "c", "namespace": "default", "uid": "u1", "annotations": annotations,
            "finalizers": [PROVISIONING] if held else [],
            **({"deletionTimestamp": GOING} if going else {}),
        },
        "spec": {
            "storageClassName": "fast", "volumeName": bound or volume,
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
        },
        "status": {"phase": "Bound" if bound else "Pending"},
    }  # fmt: skip
    return msgspec.convert(document, PersistentVolumeClaim)


def a_class(mode="Immediate", provisioner=FAKE, topologies=None):
    return msgspec.convert(
        {
            "metadata": {"name": "fast"}, "provisioner": provisioner,
            "volumeBindingMode": mode, "allowedTopologies": topologies,
        },
        StorageClass,
    )  # fmt: skip


def a_node(name="vm1", *, cordoned=False, **labels):
    return msgspec.convert(
        {
            "metadata": {"name": name, "labels": {HOST: name, **labels}},
            "spec": {"unschedulable": cordoned},
        },
        Node,
    )


def a_volume(
    *, phase="Released", policy="Delete", going=False, protected=True, uid="u1", affinity=None
):
    document = {
        "metadata": {
            "name": "pvc-u1", "annotations": {PROVISIONED_BY: FAKE},
            "finalizers": [RECLAIM_PROTECTION] if protected else [],
            **({"deletionTimestamp": GOING} if going else {}),
        },
        "spec": {
            "persistentVolumeReclaimPolicy": policy,
            "claimRef": {"namespace": "default", "name": "c", "uid": uid},
            "nodeAffinity": affinity,
        },
        "status": {"phase": phase},
    }  # fmt: skip
    return msgspec.convert(document, PersistentVolume)


ANYWHERE = Circumstances("", a_class(), None, None)
HERE = Circumstances("vm1", a_class(), None, a_node())
WAITING = Circumstances("vm1", a_class("WaitForFirstConsumer"), None, a_node())


def test_claim_is_held_before_its_volume_is_made():
    assert decide_claim(a_claim(held=False), ANYWHERE) == Hold()
    assert decide_claim(a_claim(), ANYWHERE) == Make(ANYWHERE.storage_class)


def test_claim_with_a_recorded_volume_waits_for_the_binder():
    assert decide_claim(a_claim(), replace(ANYWHERE, volume=a_volume(phase="Available"))) is None


def test_claim_is_let_go_when_bound_and_not_before():
    seen = replace(ANYWHERE, volume=a_volume(phase="Bound"))
    assert decide_claim(a_claim(bound="pvc-u1"), seen) == LetGo()
    assert decide_claim(a_claim(volume="pvc-u1"), seen) is None
    assert decide_claim(a_claim(bound="pvc-u1", held=False), seen) is None


@pytest.mark.parametrize("claim", [a_claim(going=True), a_claim(bound="by-hand")])
def test_volume_is_discarded_when_its_claim_goes_or_takes_another(claim):
    assert decide_claim(claim, ANYWHERE) == Discard()
    assert decide_claim(claim, replace(ANYWHERE, storage_class=None)) == Discard()
    assert decide_claim(claim, replace(ANYWHERE, volume=a_volume())) == LetGo()


def test_claim_that_goes_without_being_held_is_left_alone():
    assert decide_claim(a_claim(going=True, held=False), ANYWHERE) is None


def test_claim_of_a_missing_class_is_told_so():
    step = decide_claim(a_claim(), replace(ANYWHERE, storage_class=None))
    assert step == Complain('storageclass.storage.k8s.io "fast" not found')


def test_claim_is_not_made_by_a_provisioner_its_class_no_longer_names():
    step = decide_claim(a_claim(), replace(ANYWHERE, storage_class=a_class(provisioner="other")))
    assert isinstance(step, Complain)


def test_volume_of_that_name_for_somebody_else_is_told():
    step = decide_claim(a_claim(), replace(ANYWHERE, volume=a_volume(uid="other")))
    assert isinstance(step, Complain)
    assert "not reserved" in step.message


def test_local_claim_elects_this_node_only_with_immediate_binding():
    assert decide_claim(a_claim(), HERE) == Elect("vm1")
    assert decide_claim(a_claim(), WAITING) is None
    assert decide_claim(a_claim(node="vm1"), WAITING) == Make(WAITING.storage_class)


def test_local_claim_of_another_node_is_its_business_alone():
    for claim in (a_claim(node="vm2"), a_claim(node="vm2", going=True)):
        assert decide_claim(claim, HERE) is None


def test_local_claim_without_a_node_has_nothing_to_discard():
    assert decide_claim(a_claim(going=True), HERE) == LetGo()


@pytest.mark.parametrize(
    "node", [None, a_node(cordoned=True), a_node(zone="b")], ids=["unknown", "cordoned", "zone"]
)
def test_node_does_not_elect_itself_when_it_may_not_have_the_volume(node):
    topologies = [{"matchLabelExpressions": [{"key": "zone", "values": ["a"]}]}]
    seen = Circumstances("vm1", a_class(topologies=topologies), None, node)
    assert decide_claim(a_claim(), seen) is None
    fitting = replace(seen, node=a_node(zone="a"))
    assert decide_claim(a_claim(), fitting) == Elect("vm1")


def test_class_without_topologies_admits_every_node():
    assert topologies_admit(None, {})
    assert not topologies_admit([{"matchLabelExpressions": [{"key": "z", "values": ["a"]}]}], {})


def test_released_volume_is_doomed_before_it_is_reclaimed():
    assert decide_volume(a_volume(protected=False), None) == Protect()
    assert decide_volume(a_volume(), None) == Doom()
    assert decide_volume(a_volume(phase="Failed"), None) == Doom()
    assert decide_volume(a_volume(going=True), None) == Reclaim()


@pytest.mark.parametrize("phase", ["Available", "Released", "Failed", "Pending"])
def test_volume_that_is_kept_is_let_go_with_its_data(phase):
    assert decide_volume(a_volume(policy="Retain", phase=phase), None) is None
    assert decide_volume(a_volume(policy="Retain", phase=phase, going=True), None) == Forget()


@pytest.mark.parametrize("going", [False, True])
@pytest.mark.parametrize("policy", ["Delete", "Retain"])
def test_bound_volume_is_never_touched(going, policy):
    volume = a_volume(phase="Bound", going=going, policy=policy)
    assert decide_volume(volume, a_claim(bound="pvc-u1")) is None
    assert decide_volume(volume, None) is None


@pytest.mark.parametrize("going", [False, True])
@pytest.mark.parametrize("phase", ["Released", "Failed", "Available"])
def test_volume_is_never_reclaimed_while_its_claim_exists(phase, going):
    for claim in (a_claim(bound="pvc-u1"), a_claim(held=False), a_claim(volume="pvc-u1")):
        assert decide_volume(a_volume(phase=phase, going=going), claim) is None


def test_volume_deleted_by_hand_is_made_anew_when_its_claim_never_had_it():
    claim = a_claim()
    assert decide_volume(a_volume(phase="Available", going=True), claim) == Reclaim()
    assert decide_volume(a_volume(phase="Available"), claim) is None


def test_volume_of_an_earlier_claim_of_the_name_is_not_the_new_ones():
    claim = a_claim(held=False)
    assert decide_volume(a_volume(uid="u0"), claim) == Doom()


def test_volume_being_given_to_somebody_new_is_no_released_one():
    assert decide_volume(a_volume(uid=""), None) is None


def test_local_volume_is_reclaimed_on_its_node_only():
    term = {"matchExpressions": [{"key": HOST, "operator": "In", "values": ["vm1"]}]}
    volume = a_volume(affinity={"required": {"nodeSelectorTerms": [term]}})
    assert is_within_reach(volume, "vm1", a_node())
    assert not is_within_reach(volume, "vm2", a_node("vm2"))
    assert not is_within_reach(a_volume(), "vm1", a_node())
    assert is_within_reach(a_volume(), "", None)
