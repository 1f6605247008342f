"""What discovery does with what it finds, and with the volumes it has made."""

import msgspec
import pytest

from volagent.control.discover.decide import (
    Clean,
    Doubt,
    Found,
    LetGo,
    Offer,
    Rule,
    decide,
    describe_volume,
    volume_name,
)
from volagent.objects.storage import PersistentVolume
from volagent.objects.validate import prepare_create

NODE = "vm1"
RULE = Rule("/mnt/disks", "local-ssd", labels={"rack": "r1"})
SSD = Found("/mnt/disks/ssd1", "filesystem", 10 << 30, "uuid:aa:/")


def volume_of(found=SSD, *, phase="Available", rule=RULE, going=False, **spec):
    document = prepare_create("PersistentVolume", describe_volume(NODE, rule, found))
    document["metadata"] |= {"uid": "u1", "resourceVersion": "7"}
    if going:
        document["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    document["spec"] |= spec
    document["status"] = {"phase": phase}
    return msgspec.convert(document, PersistentVolume)


def look(*found, volumes=(), rule=RULE, cleaned=()):
    known = {volume.metadata.name: volume for volume in volumes}
    return decide(NODE, rule, found, known, frozenset(cleaned))


def test_new_place_is_offered_as_a_valid_volume_of_this_node():
    (step,) = look(SSD)
    assert isinstance(step, Offer)
    offered = prepare_create("PersistentVolume", step.document)
    assert offered["spec"]["local"] == {"path": "/mnt/disks/ssd1"}
    assert offered["spec"]["storageClassName"] == "local-ssd"
    assert offered["spec"]["capacity"] == {"storage": "10Gi"}
    assert offered["metadata"]["labels"] == {"kubernetes.io/hostname": "vm1", "rack": "r1"}
    assert offered["metadata"]["name"] == volume_name(NODE, RULE, SSD.path)


def test_place_is_offered_once():
    assert look(SSD, volumes=[volume_of()]) == []
    assert look(SSD, volumes=[volume_of(phase="Bound")]) == []


def test_disk_is_offered_raw_and_a_directory_says_that_its_size_is_no_limit():
    (disk,) = look(Found("/mnt/disks/sdb", "block", 1 << 30, "wwid:x"))
    assert disk.document["spec"]["volumeMode"] == "Block"
    (directory,) = look(Found("/mnt/disks/dir", "directory", 1 << 30, "directory:1:2"))
    assert directory.document["metadata"]["annotations"]["volagent.dev/capacity-enforced"] == (
        "false"
    )


@pytest.mark.parametrize("phase", ["Released", "Failed"])
def test_released_volume_is_cleaned_and_only_then_let_go(phase):
    volume = volume_of(phase=phase)
    assert look(SSD, volumes=[volume]) == [Clean(volume, SSD)]
    assert look(SSD, volumes=[volume], cleaned=["u1"]) == [LetGo(volume)]


def test_released_volume_is_left_alone_when_it_is_to_be_retained():
    volume = volume_of(phase="Released", persistentVolumeReclaimPolicy="Retain")
    assert look(SSD, volumes=[volume]) == []


def test_volume_deleted_by_hand_is_cleaned_first_unless_it_is_to_be_retained():
    volume = volume_of(going=True)
    assert look(SSD, volumes=[volume]) == [Clean(volume, SSD)]
    kept = volume_of(going=True, persistentVolumeReclaimPolicy="Retain")
    assert look(SSD, volumes=[kept]) == [LetGo(kept)]


def test_volume_deleted_while_bound_is_not_touched():
    volume = volume_of(phase="Bound", going=True)
    assert look(SSD, volumes=[volume]) == []


@pytest.mark.parametrize("phase", ["Available", "Bound", "Released"])
def test_other_disk_at_the_place_is_reported_and_never_cleaned(phase):
    volume = volume_of(phase=phase)
    swapped = Found(SSD.path, "filesystem", 1, "uuid:bb:/")
    (step,) = look(swapped, volumes=[volume])
    assert isinstance(step, Doubt)
    assert "uuid:bb:/ instead of uuid:aa:/" in step.message


def test_missing_disk_is_reported_and_its_volume_stays():
    volume = volume_of(phase="Released")
    (step,) = look(volumes=[volume])
    assert isinstance(step, Doubt)
    assert "/mnt/disks/ssd1" in step.message


def test_volumes_of_another_directory_are_not_this_rules_business():
    other = Rule("/mnt/disks2", "local-ssd")
    volume = volume_of(Found("/mnt/disks2/a", "filesystem", 1, "uuid:cc:/"), rule=other)
    assert look(volumes=[volume]) == []
