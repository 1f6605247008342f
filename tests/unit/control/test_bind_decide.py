"""Binding decided, interrupted anywhere, and judged by an oracle of its own.

The world here is two plain documents to which the merge patches of the steps are applied; whether
it is as it should be is read from the documents, not asked of the planner.
"""

import itertools

import msgspec
import pytest

from tests.contract.client.documents import claim, volume
from volagent.api.patch import merge
from volagent.control.bind.decide import (
    decide_claim,
    decide_volume,
)
from volagent.control.bind.match import find_misfit, rank_reserved
from volagent.control.bind.patches import patch_of
from volagent.objects.annotations import BIND_COMPLETED, BOUND_BY_CONTROLLER
from volagent.objects.storage import PersistentVolume, PersistentVolumeClaim

OURS = {"kind": "PersistentVolumeClaim", "namespace": "ns", "name": "c"}


def make_claim(phase="Pending", annotations=None, **spec):
    document = claim("c", **spec)
    document["metadata"] |= {"namespace": "ns", "uid": "c-uid", "annotations": annotations or {}}
    return {**document, "status": {"phase": phase}}


def make_volume(phase="Pending", name="pv", **spec):
    document = volume(name, **spec)
    document["metadata"] |= {"uid": f"{name}-uid"}
    return {**document, "status": {"phase": phase}}


def as_claim(document):
    return msgspec.convert(document, PersistentVolumeClaim)


def as_volume(document):
    return msgspec.convert(document, PersistentVolume)


class World:
    """A claim and a volume, either of which may be absent, and the steps taken on them."""

    def __init__(self, claim_document, volume_document):
        self.claim = claim_document
        self.volume = volume_document
        self.reports = []

    def turn_of_claim(self):
        """One step for the claim; False when there is none."""
        pv = self.volume and as_volume(self.volume)
        ours = as_claim(self.claim)
        named = pv if pv and ours.spec.volume_name == pv.metadata.name else None
        reserved = [pv] if pv and pv.spec.claim_ref and pv.spec.claim_ref.name == "c" else []
        return self.apply(decide_claim(ours, named, reserved))

    def turn_of_volume(self):
        """One step for the volume; False when there is none."""
        return self.apply(
            decide_volume(as_volume(self.volume), self.claim and as_claim(self.claim))
        )

    def apply(self, verdict):
        if verdict.report:
            self.reports.append((verdict.report.reason, verdict.report.message))
        if verdict.step is None:
            return False
        body, _ = patch_of(verdict.step)
        if (hasattr(verdict.step, "claim") and not hasattr(verdict.step, "volume")) or type(
            verdict.step
        ).__name__ == "BindClaim":
            self.claim = merge(self.claim, body)
        else:
            self.volume = merge(self.volume, body)
        return True

    def settle(self):
        for _ in range(20):
            moved = self.claim is not None and self.turn_of_claim()
            moved |= self.volume is not None and self.turn_of_volume()
            if not moved:
                return
        raise AssertionError("it never comes to rest")

    def assert_bound(self):
        reference = self.volume["spec"]["claimRef"]
        assert (reference["namespace"], reference["name"]) == ("ns", "c")
        assert reference["uid"] == "c-uid"
        assert self.volume["status"]["phase"] == "Bound"
        assert self.claim["spec"]["volumeName"] == "pv"
        assert self.claim["metadata"]["annotations"][BIND_COMPLETED] == "yes"
        assert self.claim["status"] == {
            "phase": "Bound",
            "accessModes": ["ReadWriteOnce"],
            "capacity": {"storage": "1Gi"},
        }


WISHES = {
    "the claim names the volume": (make_claim(volumeName="pv"), make_volume()),
    "the volume names the claim": (make_claim(), make_volume(claimRef=OURS)),
    "both name each other": (make_claim(volumeName="pv"), make_volume(claimRef=OURS)),
}


@pytest.mark.parametrize("wish", WISHES)
@pytest.mark.parametrize("turns", list(itertools.product("cv", repeat=5)), ids="".join)
def test_binding_is_completed_whatever_the_order_of_the_first_turns(wish, turns):
    world = World(*WISHES[wish])
    for turn in turns:
        if turn == "c":
            world.turn_of_claim()
        else:
            world.turn_of_volume()

    world.settle()

    world.assert_bound()


def test_annotations_tell_what_the_binder_decided_and_what_people_did():
    expected = {
        "the claim names the volume": (False, True),
        "the volume names the claim": (True, False),
        "both name each other": (False, False),
    }
    for wish, (on_claim, on_volume) in expected.items():
        world = World(*WISHES[wish])
        world.settle()
        assert (BOUND_BY_CONTROLLER in world.claim["metadata"]["annotations"]) is on_claim, wish
        volume_annotations = world.volume["metadata"].get("annotations") or {}
        assert (BOUND_BY_CONTROLLER in volume_annotations) is on_volume, wish


def test_volume_is_released_when_its_claim_goes_and_its_data_is_kept():
    for policy, phase, reports in (("Retain", "Released", 0), ("Delete", "Failed", 1)):
        world = World(
            make_claim(volumeName="pv"), make_volume(persistentVolumeReclaimPolicy=policy)
        )
        world.settle()
        world.claim = None
        world.settle()
        assert world.volume["status"]["phase"] == phase
        assert world.volume["spec"]["claimRef"]["uid"] == "c-uid"
        assert len(world.reports) == reports


def test_released_volume_is_not_given_to_a_new_claim_of_the_same_name():
    world = World(make_claim(volumeName="pv"), make_volume())
    world.settle()
    world.claim = make_claim(volumeName="pv")
    world.claim["metadata"]["uid"] = "another"

    world.settle()

    assert world.volume["status"]["phase"] == "Released"
    assert world.claim["status"]["phase"] == "Pending"
    assert ("FailedBinding", 'volume "pv" already bound to a different claim.') in world.reports


def test_released_volume_is_available_again_when_somebody_removes_its_claim_reference():
    world = World(make_claim(volumeName="pv"), make_volume())
    world.settle()
    world.claim = None
    world.settle()
    del world.volume["spec"]["claimRef"]

    world.settle()

    assert world.volume["status"]["phase"] == "Available"


def test_claim_is_lost_when_its_volume_goes_and_bound_again_when_it_returns():
    world = World(make_claim(volumeName="pv"), make_volume())
    world.settle()
    world.volume = None
    world.settle()
    assert world.claim["status"] == {"phase": "Lost"}
    assert world.reports == [
        ("ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!")
    ]

    world.volume = make_volume()
    world.settle()
    world.assert_bound()


def test_claim_reference_that_somebody_removed_from_a_bound_volume_is_repaired():
    world = World(make_claim(volumeName="pv"), make_volume())
    world.settle()
    del world.volume["spec"]["claimRef"]

    world.settle()

    world.assert_bound()


def test_bound_claim_is_misbound_when_its_volume_belongs_to_another():
    annotations = {BIND_COMPLETED: "yes"}
    other = {**OURS, "name": "other", "uid": "other-uid"}
    world = World(
        make_claim("Bound", annotations, volumeName="pv"), make_volume("Bound", claimRef=other)
    )

    world.turn_of_claim()

    assert world.claim["status"]["phase"] == "Lost"
    assert world.reports[0][0] == "ClaimMisbound"


def test_volume_is_freed_when_its_claim_went_with_another():
    for by_binder in (True, False):
        held = make_volume("Bound", claimRef={**OURS, "uid": "c-uid"})
        if by_binder:
            held["metadata"]["annotations"] = {BOUND_BY_CONTROLLER: "yes"}
        world = World(make_claim("Bound", {BIND_COMPLETED: "yes"}, volumeName="another"), held)
        while world.turn_of_volume():
            pass
        assert world.volume["status"]["phase"] == "Available"
        assert world.volume["spec"].get("claimRef") == (None if by_binder else OURS)


def test_capacity_of_a_bound_claim_does_not_follow_its_volume():
    world = World(make_claim(volumeName="pv"), make_volume())
    world.settle()
    world.volume["spec"]["capacity"] = {"storage": "5Gi"}
    world.volume["spec"]["accessModes"] = ["ReadWriteOnce", "ReadOnlyMany"]

    world.settle()

    assert world.claim["status"]["capacity"] == {"storage": "1Gi"}
    assert world.claim["status"]["accessModes"] == ["ReadWriteOnce", "ReadOnlyMany"]


@pytest.mark.parametrize(
    ("wants", "has", "why"),
    [
        ({}, {"capacity": {"storage": "1023Mi"}}, "requested PV is too small"),
        ({}, {"storageClassName": "fast"}, "storageClassName does not match"),
        ({"storageClassName": "fast"}, {}, "storageClassName does not match"),
        ({"volumeMode": "Block"}, {}, "incompatible volumeMode"),
        ({"accessModes": ["ReadWriteMany"]}, {}, "incompatible accessMode"),
        (
            {"accessModes": ["ReadWriteMany"], "volumeMode": "Block"},
            {"capacity": {"storage": "1"}},
            "requested PV is too small",
        ),
    ],
)
def test_claim_is_told_why_the_volume_it_names_does_not_fit(wants, has, why):
    world = World(make_claim(volumeName="pv", **wants), make_volume(**has))

    world.settle()

    assert ("VolumeMismatch", f'Cannot bind to requested volume "pv": {why}') in world.reports
    assert world.claim["status"]["phase"] == "Pending"
    assert "claimRef" not in world.volume["spec"]


def test_volume_that_is_going_fits_nobody():
    going = make_volume()
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"

    assert find_misfit(as_claim(make_claim()), as_volume(going)) == (
        'the volume is marked for deletion "pv"'
    )


def test_old_class_annotation_beats_the_field():
    document = make_claim(storageClassName="new")
    document["metadata"]["annotations"] = {"volume.beta.kubernetes.io/storage-class": "old"}

    assert not find_misfit(as_claim(document), as_volume(make_volume(storageClassName="old")))


@pytest.mark.parametrize(
    ("spec", "report"),
    [
        ({}, ("FailedBinding", "no persistent volumes available for this claim and no storage "
              "class is set")),
        ({"storageClassName": "fast"},
         ("ProvisioningFailed", 'storageclass.storage.k8s.io "fast" not found')),
        ({"volumeName": "missing"}, ("FailedBinding", 'volume "missing" not found')),
    ],
)  # fmt: skip
def test_claim_without_a_volume_says_what_it_waits_for(spec, report):
    world = World(make_claim(**spec), None)

    world.settle()

    assert report in world.reports


def test_reservation_stands_above_the_class_and_the_smallest_one_is_taken():
    reserved = [
        make_volume(name="big", claimRef=OURS, capacity={"storage": "9Gi"}),
        make_volume(name="b", claimRef=OURS, storageClassName="fast"),
        make_volume(name="a", claimRef=OURS),
        make_volume(name="small", claimRef=OURS, capacity={"storage": "1Mi"}),
        make_volume(name="taken", claimRef={**OURS, "uid": "another"}),
    ]

    ranked = rank_reserved(as_claim(make_claim()), [as_volume(one) for one in reserved])

    assert [volume.metadata.name for volume in ranked] == ["a", "b", "big"]


def test_claim_that_is_going_is_left_alone():
    document = make_claim(volumeName="pv")
    document["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    world = World(document, make_volume())

    assert not world.turn_of_claim()


def test_claim_does_not_take_a_volume_that_is_being_deleted():
    going = make_volume("Available")
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    world = World(make_claim(volumeName="pv"), going)
    assert not world.turn_of_claim()
    assert world.reports == [("FailedBinding", 'volume "pv" is being deleted')]


@pytest.mark.parametrize(
    ("annotations", "policy", "phase"),
    [
        ({"pv.kubernetes.io/provisioned-by": "x"}, "Delete", "Released"),
        ({"pv.kubernetes.io/provisioned-by": "x"}, "Retain", "Available"),
        ({}, "Delete", "Available"),
    ],
)
def test_volume_made_for_a_claim_that_went_with_another_is_nobody_elses(annotations, policy, phase):
    reference = {**OURS, "uid": "c-uid"}
    spare = make_volume("Bound", claimRef=reference, persistentVolumeReclaimPolicy=policy)
    spare["metadata"]["annotations"] = {BOUND_BY_CONTROLLER: "yes", **annotations}
    world = World(make_claim("Bound", {BIND_COMPLETED: "yes"}, volumeName="other"), spare)
    while world.turn_of_volume():
        pass
    assert world.volume["status"]["phase"] == phase
