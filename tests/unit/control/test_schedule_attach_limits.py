"""How many volumes a node takes, by each driver's word."""

import pytest

from tests.unit.control.scheduling_world import (
    a_claim,
    a_class,
    a_node,
    a_pod,
    a_volume,
    bound,
    reason,
)


def csi_volume(name, driver="disk.example.com"):
    volume = a_volume(name, "n1")
    del volume["spec"]["local"]
    volume["spec"]["csi"] = {"driver": driver, "volumeHandle": f"h-{name}"}
    return {**volume, "status": {"phase": "Bound"}}


def csi_node(name, count):
    driver = {"name": "disk.example.com", "nodeID": name, "allocatable": {"count": count}}
    return {"metadata": {"name": name}, "spec": {"drivers": [driver]}}


@pytest.mark.parametrize(("limit", "expected"), [(2, "1 node(s) exceed max volume count"), (3, "")])
def test_driver_attaches_so_many_volumes_to_a_node(limit, expected):
    names = ["a", "b", "c"]
    world = {
        "claims": [bound(a_claim(name), name) for name in names],
        "volumes": [csi_volume(name) for name in names],
        "pods": [a_pod("one", "a", "b", nodeName="n1"), a_pod("two", "a", nodeName="n1")],
    }
    pod = a_pod("web", "c")
    assert reason(pod, a_node("n1"), csi_nodes=[csi_node("n1", limit)], **world) == expected
    old = a_node("n1")
    old["status"]["capacity"]["attachable-volumes-csi-disk.example.com"] = str(limit)
    assert reason(pod, old, **world) == expected


@pytest.mark.parametrize(("limit", "expected"), [(1, "1 node(s) exceed max volume count"), (2, "")])
def test_disk_of_the_block_store_counts_however_it_is_declared(limit, expected):
    def ebs_volume(name, disk):
        volume = csi_volume(name)
        del volume["spec"]["csi"]
        volume["spec"]["awsElasticBlockStore"] = {"volumeID": f"aws://us-east-1a/{disk}"}
        return volume

    inline = a_pod("one", nodeName="n1")
    source = {"awsElasticBlockStore": {"volumeID": "vol-0001"}}
    inline["spec"]["volumes"] = [{"name": "data", **source}]
    world = {
        "claims": [bound(a_claim(name), name) for name in ("a", "b")],
        "volumes": [ebs_volume("a", "vol-0001"), ebs_volume("b", "vol-0002")],
        "pods": [inline],
    }
    node = a_node("n1")
    node["status"]["capacity"]["attachable-volumes-aws-ebs"] = str(limit)
    assert reason(a_pod("web", "a"), node, **world) == ""
    assert reason(a_pod("web", "b"), node, **world) == expected


def test_volume_that_is_attached_already_needs_no_room():
    world = {
        "claims": [bound(a_claim("a"), "a")],
        "volumes": [csi_volume("a")],
        "pods": [a_pod("one", "a", nodeName="n1")],
        "csi_nodes": [csi_node("n1", 1)],
    }
    assert reason(a_pod("web", "a"), a_node("n1"), **world) == ""


def test_volume_still_to_be_made_counts_against_the_limit():
    world = {
        "claims": [bound(a_claim("a"), "a"), a_claim("new", cls="disk")],
        "volumes": [csi_volume("a")],
        "classes": [a_class("disk", "disk.example.com")],
        "pods": [a_pod("one", "a", nodeName="n1")],
    }
    pod = a_pod("web", "new")
    full = reason(pod, a_node("n1"), csi_nodes=[csi_node("n1", 1)], **world)
    assert full == "1 node(s) exceed max volume count"
    assert reason(pod, a_node("n1"), csi_nodes=[csi_node("n1", 2)], **world) == ""


@pytest.mark.parametrize(("limit", "expected"), [(1, "1 node(s) exceed max volume count"), (2, "")])
def test_luns_of_iscsi_targets_count(limit, expected):
    def lun(name, number):
        volume = csi_volume(name)
        del volume["spec"]["csi"]
        source = {"targetPortal": "10.0.0.1", "iqn": "iqn.2026-01.test:a", "lun": number}
        volume["spec"]["iscsi"] = source
        return volume

    world = {
        "claims": [bound(a_claim(name), name) for name in ("a", "b")],
        "volumes": [lun("a", 1), lun("b", 2)],
        "pods": [a_pod("one", "a", nodeName="n1")],
    }
    node = a_node("n1")
    node["status"]["capacity"]["attachable-volumes-iscsi"] = str(limit)
    assert reason(a_pod("web", "b"), node, **world) == expected
