"""A class's parameters, and what CreateVolume is asked for them."""

import pytest

from volagent.drivers.ebs.parameters import creation, read_parameters, round_up_gib
from volagent.drivers.errors import Rejected

GIB = 1 << 30


def asked(size_gib, **parameters):
    return creation(read_parameters(parameters), size_gib)


@pytest.mark.parametrize(
    ("size_gib", "parameters", "expected"),
    [
        (10, {}, {"Size": 10, "VolumeType": "gp2"}),
        (10, {"type": "gp3", "iops": "4000", "throughput": "250"},
         {"Size": 10, "VolumeType": "gp3", "Iops": 4000, "Throughput": 250}),
        (100, {"type": "io1", "iopsPerGB": "10"}, {"Size": 100, "VolumeType": "io1", "Iops": 1000}),
        (4, {"type": "io1", "iopspergb": "10"}, {"Size": 4, "VolumeType": "io1", "Iops": 100}),
        (16000, {"type": "io1", "iopsPerGB": "50"},
         {"Size": 16000, "VolumeType": "io1", "Iops": 64000}),
        (10, {"encrypted": "true", "kmsKeyId": "arn:aws:kms:x"},
         {"Size": 10, "VolumeType": "gp2", "Encrypted": True, "KmsKeyId": "arn:aws:kms:x"}),
        (125, {"type": "st1", "fsType": "xfs"}, {"Size": 125, "VolumeType": "st1"}),
    ],
)  # fmt: skip
def test_creation_asks_for_what_the_class_says(size_gib, parameters, expected):
    assert asked(size_gib, **parameters) == expected


@pytest.mark.parametrize(
    ("parameters", "word"),
    [
        ({"colour": "red"}, "colour"),
        ({"type": "gp9"}, "gp9"),
        ({"type": "gp2", "iops": "100"}, "takes no iops"),
        ({"type": "io1"}, "needs iopsPerGB"),
        ({"type": "io1", "iops": "100", "iopsPerGB": "1"}, "both"),
        ({"type": "io1", "iopsPerGB": "-1"}, "iopsPerGB"),
        ({"type": "io1", "iopsPerGB": "many"}, "many"),
        ({"type": "gp2", "throughput": "125"}, "throughput"),
        ({"encrypted": "yes"}, "encrypted"),
        ({"kmsKeyId": "k"}, "kmsKeyId"),
        ({"fsType": "ntfs"}, "ntfs"),
        ({"zone": "a", "zones": "b"}, "both zone and zones"),
        ({"zones": " , "}, "zones"),
    ],
)
def test_parameter_is_refused_by_name(parameters, word):
    with pytest.raises(Rejected, match=word):
        read_parameters(parameters)


@pytest.mark.parametrize(("type_", "size_gib"), [("st1", 10), ("io1", 3), ("gp2", 16385)])
def test_size_that_the_type_does_not_have_is_refused_not_rounded(type_, size_gib):
    extra = {"iops": "100"} if type_ == "io1" else {}
    with pytest.raises(Rejected, match="GiB"):
        asked(size_gib, type=type_, **extra)


def test_file_system_is_named_as_external_provisioners_do_too():
    assert read_parameters({"csi.storage.k8s.io/fstype": "xfs"}).fs_type == "xfs"
    assert read_parameters({"fstype": "btrfs"}).fs_type == "btrfs"
    assert read_parameters({}).fs_type == "ext4"


def test_zones_are_read_from_either_parameter():
    assert read_parameters({"zones": "b, a,b"}).zones == ("a", "b")
    assert read_parameters({"zone": "a"}).zones == ("a",)


@pytest.mark.parametrize(
    ("size_bytes", "gib"), [(1, 1), (GIB, 1), (GIB + 1, 2), (10**9, 1), (10 * GIB, 10)]
)
def test_sizes_are_whole_gib(size_bytes, gib):
    assert round_up_gib(size_bytes) == gib
