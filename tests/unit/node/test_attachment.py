"""When a node may touch a disk that several nodes can reach."""

import pytest

from volagent.drivers.contract import VolumeKey
from volagent.node.attachment import AttachmentGate
from volagent.objects.meta import ObjectMeta
from volagent.objects.storage import AttachedVolume, Node, NodeStatus

KEY = VolumeKey("pv/a")


def a_node(version, *, attached=(), in_use=()):
    status = NodeStatus(
        volumes_attached=[AttachedVolume(name) for name in attached], volumes_in_use=[*in_use]
    )
    return Node(metadata=ObjectMeta(name="n", resource_version=str(version)), status=status)


@pytest.mark.parametrize(
    ("attached", "in_use", "granted"),
    [((), (), False), (("a",), (), False), ((), ("a",), False), (("a",), ("a",), True),
     (("b",), ("a",), False), (("a", "b"), ("a",), True)],
)  # fmt: skip
def test_disk_is_granted_by_one_version_that_has_it_in_both_lists(attached, in_use, granted):
    gate = AttachmentGate()
    gate.observe(a_node(5, attached=attached, in_use=in_use))
    assert gate.is_granted("a") is granted
    assert gate.is_attached("a") is ("a" in attached)


def test_older_version_changes_nothing():
    gate = AttachmentGate()
    gate.observe(a_node(7))
    gate.observe(a_node(6, attached=["a"], in_use=["a"]))
    assert not gate.is_granted("a")


def test_permission_ends_with_the_attempt_to_write_without_it():
    gate = AttachmentGate()
    gate.observe(a_node(5, attached=["a", "b"], in_use=["a", "b"]))
    gate.begin_write(["b"])
    assert not gate.is_granted("a")
    assert gate.is_granted("b")
    # The same version once more, late: it may be from before the write.
    gate.observe(a_node(5, attached=["a", "b"], in_use=["a", "b"]))
    assert not gate.is_granted("a")
    # A later one that still has it is a proof that the write was not done.
    gate.observe(a_node(6, attached=["a", "b"], in_use=["a", "b"]))
    assert gate.is_granted("a")


def test_who_waits_goes_on_once_when_granted():
    gate = AttachmentGate()
    gate.await_grant("a", KEY)
    assert gate.observe(a_node(5, attached=["a"])) == set()
    assert gate.observe(a_node(6, attached=["a"], in_use=["a"])) == {KEY}
    assert gate.observe(a_node(7, attached=["a"], in_use=["a"])) == set()


def test_node_that_is_gone_grants_nothing_and_may_come_again():
    gate = AttachmentGate()
    gate.observe(a_node(5, attached=["a"], in_use=["a"]))
    gate.observe(None)
    assert not gate.is_granted("a")
    gate.observe(a_node(2, attached=["a"], in_use=["a"]))
    assert gate.is_granted("a")


def test_disk_that_was_given_back_is_told_once():
    gate = AttachmentGate()
    assert not gate.was_given_back(KEY)
    gate.give_back(KEY)
    assert gate.was_given_back(KEY)
    assert not gate.was_given_back(KEY)


def test_nothing_is_permitted_while_the_guard_says_no():
    gate = AttachmentGate()
    gate.observe(a_node(5, attached=["a"], in_use=["a"]))
    gate.guard = lambda: False
    assert not gate.is_granted("a")
    gate.guard = lambda: True
    assert gate.is_granted("a")


def test_node_that_is_read_after_forgetting_permits_again_although_it_is_no_newer():
    gate = AttachmentGate()
    gate.observe(a_node(5, attached=["a"], in_use=["a"]))
    gate.forget()
    assert not gate.is_granted("a")
    gate.await_grant("a", KEY)
    assert gate.observe(a_node(5, attached=["a"], in_use=["a"])) == {KEY}
    assert gate.is_granted("a")


def test_write_that_was_begun_before_forgetting_is_not_forgotten():
    gate = AttachmentGate()
    gate.observe(a_node(5, attached=["a"], in_use=["a"]))
    gate.begin_write([])
    gate.forget()
    # The write is conditional on this version, and may still arrive.
    gate.observe(a_node(5, attached=["a"], in_use=["a"]))
    assert not gate.is_granted("a")
    gate.observe(a_node(6, attached=["a"], in_use=["a"]))
    assert gate.is_granted("a")


def test_fenced_disk_is_neither_permitted_nor_in_use_until_its_fencing_is_gone():
    gate = AttachmentGate()
    gate.observe(a_node(5, attached=["a"], in_use=["a"]))
    gate.keep_out({"a"})
    assert not gate.is_granted("a")
    assert not gate.is_attached("a")
    gate.await_grant("a", KEY)
    assert gate.keep_out(()) == {KEY}
    assert gate.is_granted("a")
