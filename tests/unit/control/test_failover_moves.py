"""What becomes of pods whose node is lost, and of nodes that are lost again and again."""

from datetime import UTC, datetime, timedelta

import pytest

from volagent.control.failover.moves import (
    Forget,
    Leave,
    Redeclare,
    Situation,
    decide_pod,
    find_patience,
)
from volagent.control.failover.steady import find_hold_s
from volagent.objects.annotations import PLACED_ON
from volagent.objects.meta import ObjectMeta, OwnerReference
from volagent.objects.pod import Pod, PodSpec, PodStatus
from volagent.objects.scheduling import Toleration

UNREACHABLE = "node.kubernetes.io/unreachable"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
FREE = Situation(1.0, exclusive=True)


def a_pod(*, placed=True, phase="Running", tolerations=(), **metadata):
    annotations = {PLACED_ON: "vm1"} if placed else None
    spec = PodSpec([], node_name="vm1", tolerations=list(tolerations))
    return Pod(
        metadata=ObjectMeta("web", annotations=annotations, **metadata),
        spec=spec, status=PodStatus(phase=phase),
    )  # fmt: skip


def decide(pod, situation=FREE):
    return decide_pod(pod, situation, 300.0)


def test_pod_that_the_scheduler_placed_is_declared_again_when_its_disks_are_free():
    assert decide(a_pod()) == Redeclare()


def test_pod_stays_while_one_of_its_disks_is_not_proved_free():
    held = Situation(1e6, exclusive=True, held={"pv-1"})
    for pod in (a_pod(), a_pod(deletion_timestamp="t"), a_pod(owner_references=[OwnerReference()])):
        move = decide(pod, held)
        assert isinstance(move, Leave)
        assert "nothing proves yet that it cannot write to pv-1" in move.reason


@pytest.mark.parametrize("pod", [
    a_pod(owner_references=[OwnerReference("v1", "ReplicaSet", "web", "u")]),
    a_pod(deletion_timestamp="2026-01-01T00:00:00Z", placed=False),
])  # fmt: skip
def test_pod_that_somebody_else_makes_or_that_was_to_go_is_deleted(pod):
    assert decide(pod) == Forget()


@pytest.mark.parametrize(
    ("pod", "situation", "reason"),
    [
        (a_pod(placed=False), FREE, "manifest names that node"),
        (a_pod(finalizers=["x.test/y"]), FREE, "finalizers keep the pod: x.test/y"),
        (a_pod(), Situation(1.0, exclusive=True, only_here={"pv-2"}), "volume pv-2 is on that"),
        (a_pod(tolerations=[Toleration(UNREACHABLE, "Exists")]), FREE, "the pod tolerates that"),
        (a_pod(phase="Succeeded"), FREE, ""),
    ],
)
def test_pod_stays_and_says_why(pod, situation, reason):
    move = decide(pod, situation)
    assert isinstance(move, Leave)
    assert reason in move.reason


def test_pod_without_exclusive_disks_waits_as_long_as_it_says():
    shared = Situation(100.0, exclusive=False)
    assert decide(a_pod(), shared) == Leave("", 200.0)
    assert decide(a_pod(), Situation(300.0, exclusive=False)) == Redeclare()
    quick = a_pod(tolerations=[Toleration(UNREACHABLE, "Exists", toleration_seconds=30)])
    assert decide(quick, shared) == Redeclare()
    assert decide(quick, Situation(10.0, exclusive=False)) == Leave("", 20.0)


@pytest.mark.parametrize(
    ("tolerations", "patience_s"),
    [
        ([], 300.0),
        ([Toleration(UNREACHABLE, "Exists", effect="NoSchedule")], 300.0),
        ([Toleration("other", "Exists")], 300.0),
        ([Toleration("", "Exists")], None),
        ([Toleration(UNREACHABLE, "Exists", toleration_seconds=-5)], 0.0),
        ([Toleration(UNREACHABLE, "Exists", toleration_seconds=60), Toleration("", "Exists")], 60),
    ],
)
def test_patience_is_that_of_the_toleration(tolerations, patience_s):
    assert find_patience(a_pod(tolerations=tolerations), 300.0) == patience_s


@pytest.mark.parametrize(
    ("ages_min", "hold_s"),
    [([], 0), ([1, 2], 0), ([5, 20, 30], 300), ([5, 20, 30, 40], 900), ([50, 55, 59], 0),
     ([1, 2, 70], 0), ([1, *range(2, 12)], 3540)],
)  # fmt: skip
def test_node_is_avoided_longer_the_more_often_it_is_lost(ages_min, hold_s):
    losses = [NOW - timedelta(minutes=age) for age in ages_min]
    assert find_hold_s(losses, NOW, 3, 600.0) == hold_s
