"""Growth, driven step by step by the decisions alone, from every state it can be interrupted in."""

import msgspec
import pytest

from volagent.control.expand.decide import (
    AwaitNode,
    Begin,
    Enlarge,
    Finish,
    GiveUp,
    Ignore,
    decide_growth,
)
from volagent.objects.growth import (
    status_awaiting_node,
    status_begun,
    status_refused,
    status_settled,
)
from volagent.objects.storage import PersistentVolume, PersistentVolumeClaim

NOW = "2026-01-01T00:00:00Z"
IMAGE = {"csi": {"driver": "image.volagent.dev", "volumeHandle": "v"}}
NFS = {"nfs": {"server": "s", "path": "/p"}}


def claim_of(wanted="1Gi", held="1Gi", phase="Bound", **status):
    return msgspec.convert(
        {
            "metadata": {"name": "c", "namespace": "default", "uid": "u1"},
            "spec": {"volumeName": "pv", "resources": {"requests": {"storage": wanted}}},
            "status": {"phase": phase, "capacity": {"storage": held}, **status},
        },
        PersistentVolumeClaim,
    )


def volume_of(capacity="1Gi", source=IMAGE, uid="u1", annotations=None):
    return msgspec.convert(
        {
            "metadata": {"name": "pv", "annotations": annotations},
            "spec": {
                "capacity": {"storage": capacity},
                "claimRef": {"namespace": "default", "name": "c", "uid": uid},
                **source,
            },
        },
        PersistentVolume,
    )


def decide(claim, volume, grows=True):
    return decide_growth(claim, volume, "image.volagent.dev", grows=grows)


def with_status(claim, change):
    """The claim after a merge patch of its status."""
    document = msgspec.to_builtins(claim)
    for field, value in change.items():
        if value is None:
            document["status"].pop(field, None)
        else:
            document["status"][field] = value
    return msgspec.convert(document, PersistentVolumeClaim)


def test_claim_that_asks_for_what_it_has_is_left_alone():
    assert decide(claim_of(), volume_of()) is None
    assert decide(claim_of(wanted="2Gi", phase="Pending"), volume_of()) is None
    assert decide(claim_of(wanted="2Gi"), volume_of(uid="another")) is None
    assert decide(claim_of(wanted="2Gi"), None) is None


@pytest.mark.parametrize(("source", "ends"), [(IMAGE, AwaitNode), (NFS, Finish)])
def test_growth_goes_through_its_steps_and_ends(source, ends):
    claim, volume = claim_of(wanted="2Gi"), volume_of(source=source)
    assert isinstance(decide(claim, volume), Begin)
    claim = with_status(claim, status_begun(claim, "2Gi", NOW))
    step = decide(claim, volume)
    assert isinstance(step, Enlarge)
    assert step.target_bytes == 2 << 30
    volume = volume_of("2Gi", source)
    assert isinstance(decide(claim, volume), ends)
    if ends is AwaitNode:
        claim = with_status(claim, status_awaiting_node(claim, "2Gi", NOW))
        assert decide(claim, volume) is None
        assert claim.status.conditions[0]["type"] == "FileSystemResizePending"
    claim = with_status(claim, status_settled(claim, volume))
    assert decide(claim, volume) is None
    assert claim.status.conditions is None
    assert claim.status.capacity == {"storage": "2Gi"}


def test_volume_whose_file_system_fills_itself_needs_no_node():
    volume = volume_of("2Gi", annotations={"volagent.dev/node-resize": "false"})
    assert isinstance(decide(claim_of(wanted="2Gi"), volume), Finish)


def test_volume_of_somebody_else_is_left_to_them():
    assert isinstance(decide(claim_of(wanted="2Gi"), volume_of(), grows=False), Ignore)
    # and when they have made it larger, the node follows
    grown = volume_of("2Gi")
    assert isinstance(decide(claim_of(wanted="2Gi"), grown, grows=False), AwaitNode)


def test_volume_grown_by_hand_does_not_change_its_claim_unasked():
    assert decide(claim_of(), volume_of("5Gi")) is None


def test_refused_growth_is_given_up_when_no_more_is_asked_than_there_is():
    claim = claim_of(wanted="9Gi")
    refused = with_status(claim, status_refused(claim, "9Gi", "full", NOW))
    less = with_status(claim_of(), status_refused(claim, "9Gi", "full", NOW))
    assert isinstance(decide(less, volume_of()), GiveUp)
    assert isinstance(decide(refused, volume_of()), Begin)  # tried again when its time has come


def test_refused_growth_begins_anew_for_less():
    claim = claim_of(wanted="2Gi")
    refused = with_status(claim, status_refused(claim, "9Gi", "full", NOW))
    assert isinstance(decide(refused, volume_of()), Begin)


def test_growth_with_unknown_outcome_is_first_asked_for_again_as_it_was():
    claim = claim_of(wanted="2Gi")
    begun = with_status(claim, status_begun(claim, "9Gi", NOW))
    step = decide(begun, volume_of())
    assert isinstance(step, Enlarge)
    assert step.target_bytes == 9 << 30


def test_other_conditions_of_the_claim_survive():
    claim = claim_of(wanted="2Gi", conditions=[{"type": "Mine", "status": "True"}])
    begun = with_status(claim, status_begun(claim, "2Gi", NOW))
    assert [one["type"] for one in begun.status.conditions] == ["Mine", "Resizing"]
    settled = with_status(begun, status_settled(begun, volume_of("2Gi")))
    assert [one["type"] for one in settled.status.conditions] == ["Mine"]
