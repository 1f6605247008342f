"""Names of volumes, devices and zones."""

import pytest

from volagent.drivers.ebs.names import (
    DEVICE_NAMES,
    choose_device_name,
    format_volume_name,
    link_of,
    parse_volume_name,
    serial_of,
    xen_name,
)
from volagent.drivers.ebs.zones import affinity_to_zone, choose_zone, region_of
from volagent.drivers.errors import Rejected

ID = "vol-0123456789abcdef0"


@pytest.mark.parametrize(
    ("text", "zone"), [(ID, ""), (f"aws:///{ID}", ""), (f"aws://us-east-1a/{ID}", "us-east-1a")]
)
def test_volume_is_named_in_three_ways(text, zone):
    assert parse_volume_name(text) == (ID, zone)
    assert parse_volume_name(format_volume_name(ID, "eu-west-3b")) == (ID, "eu-west-3b")


@pytest.mark.parametrize("text", ["", "vol-", "i-0123", f"aws://x/y/{ID}", f"{ID}/..", "vol-A B"])
def test_what_names_no_volume_is_refused(text):
    with pytest.raises(Rejected, match="volumeID"):
        parse_volume_name(text)


def test_free_device_name_is_chosen_whatever_the_others_are_written_like():
    assert choose_device_name([]) == "/dev/xvdba"
    assert choose_device_name(["/dev/sda1", "/dev/xvdba", "/dev/sdbb", "xvdbc"]) == "/dev/xvdbd"
    assert choose_device_name(DEVICE_NAMES) is None


def test_disk_is_recognised_by_the_volumes_id():
    assert serial_of(ID) == "vol0123456789abcdef0"
    assert link_of(ID) == "nvme-Amazon_Elastic_Block_Store_vol0123456789abcdef0"
    assert xen_name("/dev/sdba") == xen_name("/dev/xvdba") == "xvdba"


def topology(*zones):
    return [{"matchLabelExpressions": [{"key": "topology.kubernetes.io/zone", "values": zones}]}]


def zone_for(claim="default/data", *, labels=None, topologies=(), zones=()):
    return choose_zone(
        claim, own="us-east-1a", node_labels=labels or {}, allowed_topologies=topologies,
        zones=zones,
    )  # fmt: skip


def test_chosen_nodes_zone_comes_first():
    labels = {"topology.kubernetes.io/zone": "us-east-1b"}
    assert zone_for(labels=labels) == "us-east-1b"
    assert zone_for(labels=labels, topologies=topology("us-east-1b", "us-east-1c")) == "us-east-1b"
    old = {"failure-domain.beta.kubernetes.io/zone": "us-east-1d"}
    assert zone_for(labels=old) == "us-east-1d"
    for limits in ({"topologies": topology("us-east-1c")}, {"zones": ("us-east-1c",)}):
        with pytest.raises(Rejected, match="us-east-1b"):
            zone_for(labels=labels, **limits)


def test_own_zone_is_preferred_and_others_are_spread_by_the_claims_name():
    assert zone_for() == "us-east-1a"
    assert zone_for(zones=("us-east-1a", "us-east-1b")) == "us-east-1a"
    others = ("us-east-1b", "us-east-1c", "us-east-1d")
    chosen = {f"default/data-{n}": zone_for(f"default/data-{n}", zones=others) for n in range(30)}
    assert set(chosen.values()) == set(others)
    assert all(zone_for(claim, zones=others) == zone for claim, zone in chosen.items())


def test_two_ways_to_name_zones_exclude_each_other():
    with pytest.raises(Rejected, match="allowedTopologies"):
        zone_for(topologies=topology("us-east-1b"), zones=("us-east-1b",))


@pytest.mark.parametrize(
    ("zone", "region"),
    [("us-east-1a", "us-east-1"), ("us-gov-west-1b", "us-gov-west-1"), ("nowhere", ""),
     ("us-west-2-lax-1a", "us-west-2"), ("cn-north-1a", "cn-north-1")],
)  # fmt: skip
def test_region_is_read_from_the_zone(zone, region):
    assert region_of(zone) == region


def test_affinity_names_the_zone():
    (term,) = affinity_to_zone("us-east-1a")["required"]["nodeSelectorTerms"]
    assert term["matchExpressions"] == [
        {"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["us-east-1a"]}
    ]
