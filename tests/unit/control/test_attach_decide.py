"""What is done about a disk, by who wants it and where it is."""

import dataclasses

import pytest

from volagent.control.attach.decide import (
    Attach,
    Await,
    Create,
    Refuse,
    Release,
    Standing,
    Tell,
    Withdraw,
    decide_disk,
)
from volagent.control.attach.wants import Want
from volagent.drivers.contract import DriverName
from volagent.objects.attachments import AttachmentSource, is_shareable, unique_name

PV = AttachmentSource(persistent_volume_name="pv")


def want(node="n1", pod="web", **more):
    values = {
        "volume": "disk", "driver": DriverName("d"), "label": "pv", "use": "data",
        "node": node, "exclusive": True,
        "source": PV, "pod": ("default", pod), "uid": pod, "since": "2026", "leaving": False,
    }  # fmt: skip
    return Want(**{**values, **more})


def standing(node="n1", **more):
    values = {
        "node": node, "attachment": "va", "uid": "u", "source": PV, "exclusive": True,
        "attached": True, "going": False, "told": True, "in_use": True, "proof": "",
    }  # fmt: skip
    return Standing(**{**values, **more})


def kinds(steps):
    return [type(step) for step in steps]


def decide(wants=(), standings=(), barred=None):
    return decide_disk(wants, standings, barred or {})


@pytest.mark.parametrize(
    ("here", "wanted", "expected"),
    [
        ({"attached": False, "told": False, "in_use": False}, True, [Attach]),
        ({"told": False, "in_use": False}, True, [Tell]),
        ({"in_use": False}, True, []),
        ({}, True, []),
        ({}, False, [Await]),
        ({"in_use": False}, False, [Release]),
        ({"in_use": False, "attached": False, "told": False}, False, [Release]),
        ({"going": True}, False, [Await]),
        ({"going": True, "in_use": False}, False, [Withdraw]),
        ({"going": True, "in_use": False, "told": False}, False, [Withdraw]),
        ({"going": True, "in_use": False}, True, [Withdraw]),
        ({"going": True}, True, [Await]),
        ({"proof": "off"}, False, [Release]),
        ({"proof": "off"}, True, [Release]),
        ({"proof": "off", "going": True}, True, [Withdraw]),
        ({"attachment": ""}, False, [Await]),
        ({"attachment": "", "in_use": False}, False, [Withdraw]),
    ],
)
def test_one_node(here, wanted, expected):
    wants = [want()] if wanted else []
    assert kinds(decide(wants, [standing(**here)])) == expected


def test_disk_that_only_its_node_lists_gets_an_attachment_again():
    assert kinds(decide([want()], [standing(attachment="")])) == [Await, Create]


def test_first_of_two_nodes_gets_a_new_disk():
    first, second = want("n2", "a", since="2025"), want("n1", "b")
    steps = decide([first, second])
    assert kinds(steps) == [Create, Refuse]
    assert steps[0].want is first


def test_pods_of_one_node_share_it():
    assert kinds(decide([want(pod="a"), want(pod="b")])) == [Create]
    assert kinds(decide([want(pod="a"), want(pod="b")], [standing()])) == []


def test_leaving_pod_gets_nothing_and_keeps_what_is_in_use():
    assert decide([want(leaving=True)]) == []
    assert kinds(decide([want(leaving=True)], [standing()])) == [Await]


@pytest.mark.parametrize(
    "here", [{}, {"going": True}, {"going": True, "told": False}, {"attachment": ""}]
)
def test_nobody_gets_a_disk_that_is_with_another_node(here):
    steps = decide([want("n2")], [standing("n1", **here)])
    assert Create not in kinds(steps)
    assert Refuse in kinds(steps)


def test_reason_names_pods_and_says_how_many_are_elsewhere():
    users = [want("n1", f"p{n}") for n in range(5)] + [want("n1", pod="x")]
    users[-1] = dataclasses.replace(users[-1], pod=("other", "x"))
    (refusal,) = [
        s for s in decide([*users, want("n2", "me")], [standing("n1")]) if isinstance(s, Refuse)
    ]
    assert refusal.reason == (
        'Multi-Attach error for volume "pv" Volume is already used by pod(s) p0, p1, p2 and 2 more'
        " and 1 pod(s) in different namespaces (on node n1)"
    )


@pytest.mark.parametrize(
    ("here", "words"),
    [
        ({}, "node n1 still uses it, or cannot be asked"),
        ({"in_use": False}, "being detached from node n1"),
    ],
)  # fmt: skip
def test_reason_without_a_pod_says_what_is_waited_for(here, words):
    (refusal,) = [
        s for s in decide([want("n2")], [standing("n1", **here)]) if isinstance(s, Refuse)
    ]
    assert "Volume is already exclusively attached to one node" in refusal.reason
    assert words in refusal.reason


def test_node_that_is_known_to_be_off_gets_nothing():
    (refusal,) = decide([want()], [], {"n1": "it is off"})
    assert refusal.reason == 'volume "pv" is not attached to node n1: it is off'


def test_one_disk_under_two_names_is_given_to_one_of_them():
    other = want(pod="b", source=AttachmentSource(persistent_volume_name="pv2"), label="pv2")
    (refusal,) = decide([want(), other], [standing()])
    assert refusal.reason == (
        'volume "pv2" is the same disk as PersistentVolume pv, which is attached to node n1'
    )
    assert kinds(decide([want(), other])) == [Create, Refuse]


def test_readers_share_and_writers_wait_for_them():
    readers = [want("n1", "a", exclusive=False), want("n2", "b", exclusive=False)]
    assert kinds(decide(readers)) == [Create, Create]
    writer = want("n3", "c")
    assert kinds(decide([*readers, writer])) == [Create, Create, Refuse]
    assert kinds(decide([writer, *readers])) == [Create, Refuse, Refuse]


@pytest.mark.parametrize(
    ("modes", "block", "read_only", "shareable"),
    [
        (["ReadWriteOnce"], False, False, False),
        (["ReadWriteOncePod"], False, False, False),
        (["ReadOnlyMany"], False, False, True),
        (["ReadOnlyMany", "ReadWriteOnce"], False, False, False),
        (["ReadWriteMany"], False, False, False),
        (["ReadWriteMany"], True, False, True),
        (["ReadWriteOnce"], False, True, True),
    ],
)
def test_who_may_share(modes, block, read_only, shareable):
    assert is_shareable(modes, block=block, read_only=read_only) is shareable


def test_unique_names():
    assert unique_name("kubernetes.io/iscsi", "iqn:lun-1") == "kubernetes.io/iscsi/iqn:lun-1"
    assert unique_name("nbd.volagent.dev", "h:1/e") == "kubernetes.io/csi/nbd.volagent.dev^h:1/e"
