"""Who can be asked to keep a lost node out of a disk."""

import pytest

from volagent.control.failover.means import Fencers
from volagent.control.failover.world import Stranded
from volagent.objects.attachments import AttachmentSource, AttachmentSpec, VolumeAttachment
from volagent.objects.fencing import FENCES_ITSELF
from volagent.objects.meta import ObjectMeta
from volagent.objects.storage import Node, NodeInfo, NodeStatus
from volagent.objects.storage_nodes import SHOW, SHOWN, SHOWN_BY

LOST = Node(metadata=ObjectMeta(name="lost"))
ISCSI = "kubernetes.io/iscsi/iqn.a:lun-1"
NBD = "kubernetes.io/csi/nbd.volagent.dev^a/b"


def attachment(**metadata):
    spec = AttachmentSpec("volagent.dev", AttachmentSource("pv-a"), "lost")
    return VolumeAttachment(metadata=ObjectMeta(name="a", uid="u", **metadata), spec=spec)


def find(volume, made, *, ready=("n1", "n2", "s1"), wanting=()):
    fencers = Fencers(drivers={"kubernetes.io/iscsi"})
    disk = Stranded(volume, made, None, sound=False)
    return fencers.find_means(LOST, 60.0, [disk], ready, {"pv-a": wanting})[volume]


def test_node_that_a_pod_waits_on_is_asked_first():
    means = find(ISCSI, attachment(), wanting=["n2"])
    assert means.executors[0] == "n2"
    assert set(means.executors) == {"n1", "n2", "s1"}


@pytest.mark.parametrize(
    "metadata",
    [
        {"annotations": {SHOW: "s1"}},
        {"annotations": {SHOWN_BY: "s1"}, "finalizers": [SHOWN]},
    ],
)
@pytest.mark.parametrize("volume", [ISCSI, "kubernetes.io/csi/nfs.volagent.dev^s1/a"])
def test_storage_node_that_shows_a_disk_is_the_only_one_that_is_asked(volume, metadata):
    means = find(volume, attachment(**metadata), wanting=["n2"])
    assert list(means.executors) == ["s1"]


def test_storage_node_that_is_silent_too_is_named():
    means = find(ISCSI, attachment(annotations={SHOW: "s1"}), ready=["n1", "n2"])
    assert list(means.executors) == []
    assert "its storage node s1 is not ready" in means.lacking


def test_watchdog_counts_from_a_renewal_only():
    promise = '{"withinSeconds": 20, "by": "dog", "bootID": "b"}'
    node = Node(
        metadata=ObjectMeta(name="lost", annotations={FENCES_ITSELF: promise}),
        status=NodeStatus(node_info=NodeInfo("b")),
    )
    disk = Stranded(NBD, attachment(), None, sound=False)
    found = {
        silent_s: Fencers().find_means(node, silent_s, [disk], (), {})[NBD]
        for silent_s in (60.0, None)
    }
    assert found[60.0].watchdog is not None
    assert found[None].watchdog is None
    assert "no lease from which its time counts" in found[None].lacking


def test_disk_that_no_storage_takes_from_anybody_says_so():
    means = find(NBD, attachment())
    assert list(means.executors) == []
    assert "the storage of nbd.volagent.dev cannot keep a node out" in means.lacking
