"""The scheduler with the real binder and API on virtual time, killed after every write."""

import asyncio

import pytest

from tests.simulation.scheduling import (
    Backend,
    Plane,
    a_claim,
    a_class,
    a_node,
    a_pod,
    a_volume,
)
from tests.simulation.virtual_time import run_virtually
from volagent.client.contract import CLAIMS, NODES, PERSISTENT_VOLUMES, PODS

PATIENCE = 20


def test_claim_stays_pending_until_its_pod_comes_and_both_go_where_the_volume_is():
    async def main():
        plane = Plane()
        await plane.start(a_node("node01"), a_node("node02"))
        await plane.declare(a_class(), a_volume("pv", "node02"), a_claim("data"))
        await plane.settle()
        assert await plane.volume_of("data") == ""

        await plane.declare(a_pod("web", "data"))
        await plane.settle()
        assert await plane.node_of("web") == "node02"
        assert await plane.volume_of("data") == "pv"
        assert (await plane.condition("web"))["status"] == "True"
        assert await plane.events("Scheduled") == ["Successfully assigned default/web to node02"]
        assert await plane.events("FailedScheduling") == []

    run_virtually(main())


def test_pod_made_again_returns_to_the_node_of_its_data():
    async def main():
        plane = Plane()
        await plane.start(a_node("node01"), a_node("node02"), a_node("node03"))
        await plane.declare(a_class(), a_volume("pv", "node02"), a_claim("data"))
        for _ in range(3):
            await plane.declare(a_pod("web", "data"))
            await plane.settle()
            assert await plane.node_of("web") == "node02"
            await plane.client.delete(PODS, "web", "default", grace_period_seconds=0)

    run_virtually(main())


async def _declare_pair(plane):
    """Two claims that a greedy choice cannot serve: the small one must leave `a` to the other."""
    await plane.start(a_node("node01"), a_node("node02"))
    await plane.declare(
        a_class(),
        a_volume("a", "node02", "2Gi"), a_volume("b", "node02", "3Gi"),
        a_volume("c", "node01", "9Gi"),
        a_claim("small", "1Gi"), a_claim("large", "2Gi"),
        a_pod("web", "small", "large"),
    )  # fmt: skip


def test_two_claims_of_a_pod_are_bound_on_the_only_node_that_can_serve_both():
    async def main():
        plane = Plane()
        await _declare_pair(plane)
        await plane.settle()
        assert await plane.node_of("web") == "node02"
        assert {await plane.volume_of("small"), await plane.volume_of("large")} == {"a", "b"}

    run_virtually(main())


@pytest.mark.parametrize("writes", range(12))
def test_pod_with_two_claims_arrives_whenever_the_control_plane_was_killed(writes):
    async def main():
        plane = Plane()
        await _declare_pair(plane)
        await plane.settle(writes=writes)
        await plane.settle()
        assert await plane.node_of("web") == "node02"
        assert {await plane.volume_of("small"), await plane.volume_of("large")} == {"a", "b"}
        untouched = await plane.client.get(PERSISTENT_VOLUMES, "c")
        assert "claimRef" not in untouched["spec"]

    run_virtually(main())


@pytest.mark.parametrize("writes", range(12))
def test_volume_is_made_on_one_node_only_whenever_the_control_plane_was_killed(writes):
    async def main():
        plane, backend = Plane(), Backend()
        await plane.start(a_node("node01"), a_node("node02"))
        await plane.declare(
            a_class(provisioner="test/backend"), a_volume("pv", "node02"),
            a_claim("data"), a_claim("made"),
        )  # fmt: skip
        await plane.settle()
        await plane.declare(a_pod("web", "data", "made"))
        await plane.settle(writes=writes, backend=backend)
        await plane.settle(backend=backend)
        node = await plane.node_of("web")
        assert node == "node02"  # where one of the two exists already
        volumes = {await plane.volume_of("data"), await plane.volume_of("made")}
        assert "" not in volumes
        assert len(volumes) == 2
        assert {asked for _, asked in backend.asked} == {node}

    run_virtually(main())


def test_claim_that_waits_for_a_node_keeps_it_after_a_restart():
    async def main():
        plane = Plane()
        await plane.start(a_node("node01"), a_node("node02"))
        await plane.declare(a_class(provisioner="test/backend"), a_claim("made"))
        await plane.declare(a_pod("web", "made"))
        await plane.settle()
        claim = await plane.client.get(CLAIMS, "made", "default")
        assert claim["metadata"]["annotations"]["volume.kubernetes.io/selected-node"] == "node01"
        condition = await plane.condition("web")
        assert condition["reason"] == "WaitingForVolumes"
        assert 'persistentvolumeclaim "made" to be bound on node node01' in condition["message"]

        crowd = [a_pod(f"busy{i}", nodeName="node01", requests={"cpu": "1"}) for i in range(3)]
        await plane.declare(*crowd)
        await plane.settle(backend=Backend())
        assert await plane.node_of("web") == "node01"

    run_virtually(main())


def test_node_whose_storage_is_full_is_left_for_another():
    async def main():
        plane, backend = Plane(), Backend("node01")
        await plane.start(a_node("node01"), a_node("node02"))
        await plane.declare(a_class(provisioner="test/backend"), a_claim("made"))
        await plane.declare(a_pod("web", "made"))
        await plane.settle(backend=backend)
        assert await plane.node_of("web") == "node02"
        assert backend.asked == [("made", "node01"), ("made", "node02")]

    run_virtually(main())


def test_full_nodes_are_tried_again_after_a_while():
    async def main():
        plane, backend = Plane(), Backend("node01", "node02")
        await plane.start(a_node("node01"), a_node("node02"))
        await plane.declare(a_class(provisioner="test/backend"), a_claim("made"))
        await plane.declare(a_pod("web", "made"))
        async with plane.running(backend=backend):
            await asyncio.sleep(PATIENCE)
            assert [node for _, node in backend.asked] == ["node01", "node02"]
            told = (await plane.condition("web"))["message"]
            assert told == ("0/2 nodes are available: 2 node(s) did not have enough free storage.")
            backend.full.clear()
            await asyncio.sleep(600)
            assert await plane.node_of("web") != ""

    run_virtually(main())


def test_selected_node_that_is_gone_is_replaced():
    async def main():
        plane = Plane()
        await plane.start(a_node("node01"), a_node("node02"))
        await plane.declare(a_class(provisioner="test/backend"), a_claim("made"))
        await plane.declare(a_pod("web", "made"))
        await plane.settle()
        await plane.client.delete(NODES, "node01")
        await plane.settle()
        await plane.settle(backend=Backend())
        assert await plane.node_of("web") == "node02"

    run_virtually(main())


def test_pods_never_share_the_last_volume_or_the_last_room():
    async def main():
        plane = Plane()
        await plane.start(a_node("node01", cpu="2"), a_node("node02", cpu="2"))
        await plane.declare(a_class(), *(a_volume(f"pv{i}", f"node0{i}") for i in (1, 2)))
        for i in range(4):
            await plane.declare(a_claim(f"c{i}"))
            await plane.declare(a_pod(f"p{i}", f"c{i}"))
        for i in range(6):
            await plane.declare(a_pod(f"big{i}", requests={"cpu": "1"}))
        await plane.settle()
        volumes = [await plane.volume_of(f"c{i}") for i in range(4)]
        assert sorted(volumes) == ["", "", "pv1", "pv2"]
        for i, volume in enumerate(volumes):
            assert await plane.node_of(f"p{i}") == volume.replace("pv", "node0")
        nodes = [await plane.node_of(f"big{i}") for i in range(6)]
        assert sorted(nodes) == ["", "", "node01", "node01", "node02", "node02"]

    run_virtually(main())


def test_pod_gets_the_room_that_another_leaves():
    async def main():
        plane = Plane()
        await plane.start(a_node("node01", cpu="1"))
        await plane.declare(a_pod("first", requests={"cpu": "1"}))
        await plane.settle()
        await plane.declare(a_pod("second", requests={"cpu": "1"}))
        async with plane.running():
            await asyncio.sleep(PATIENCE)
            condition = await plane.condition("second")
            assert condition["reason"] == "Unschedulable"
            assert condition["message"] == "0/1 nodes are available: 1 Insufficient cpu."
            await plane.client.delete(PODS, "first", "default", grace_period_seconds=0)
            await asyncio.sleep(PATIENCE)
            assert await plane.node_of("second") == "node01"

    run_virtually(main())


async def _lift_cordon(plane):
    await plane.cordon("node01", on=False)


async def _add_node(plane):
    await plane.declare(a_node("node02"))


@pytest.mark.parametrize("remedy", [_lift_cordon, _add_node])
def test_unschedulable_pod_goes_as_soon_as_a_node_lets_it(remedy):
    async def main():
        plane = Plane()
        await plane.start(a_node("node01", unschedulable=True))
        await plane.declare(a_pod("web"))
        async with plane.running():
            await asyncio.sleep(PATIENCE)
            text = "0/1 nodes are available: 1 node(s) were unschedulable."
            assert (await plane.condition("web"))["message"] == text
            (told,) = await plane.events("FailedScheduling")
            assert told.startswith(text)
            assert "kubectl uncordon node01" in told
            await remedy(plane)
            await asyncio.sleep(0.5)
            assert await plane.node_of("web") != ""

    run_virtually(main())


def test_pod_goes_as_soon_as_a_volume_appears():
    async def main():
        plane = Plane()
        await plane.start(a_node("node01"), a_node("node02", taints=[TAINT]))
        await plane.declare(a_class(), a_claim("data"), a_pod("web", "data"))
        async with plane.running():
            await asyncio.sleep(PATIENCE)
            assert (await plane.condition("web"))["message"] == (
                "0/2 nodes are available: 1 node(s) didn't find available persistent volumes to "
                "bind, 1 node(s) had untolerated taint {disk: slow}."
            )
            await plane.declare(a_volume("pv", "node01"))
            await asyncio.sleep(0.5)
            assert await plane.node_of("web") == "node01"

    run_virtually(main())


TAINT = {"key": "disk", "value": "slow", "effect": "NoSchedule"}


def test_pod_before_its_claim_is_not_called_unschedulable_at_once():
    async def main():
        plane = Plane()
        await plane.start(a_node("node01"))
        await plane.declare(a_class(), a_volume("pv", "node01"))
        async with plane.running():
            await plane.declare(a_pod("web", "data"))
            await asyncio.sleep(0.3)
            assert await plane.condition("web") == {}
            await plane.declare(a_claim("data"))
            await asyncio.sleep(0.3)
            assert await plane.node_of("web") == "node01"
        assert await plane.events("FailedScheduling") == []

    run_virtually(main())


def test_missing_claim_is_named_when_it_does_not_come():
    async def main():
        plane = Plane()
        await plane.start(a_node("node01"), a_node("node02"))
        await plane.declare(a_pod("web", "data"))
        await plane.settle()
        assert (await plane.condition("web"))["message"] == (
            '0/2 nodes are available: persistentvolumeclaim "data" not found.'
        )

    run_virtually(main())


@pytest.mark.parametrize(
    "spec", [{"schedulerName": "mine"}, {"schedulingGates": [{"name": "example.com/wait"}]}]
)
def test_pods_of_other_schedulers_and_gated_ones_are_left_alone(spec):
    async def main():
        plane = Plane()
        await plane.start(a_node("node01"))
        await plane.declare(a_pod("web", **spec))
        await plane.settle()
        assert await plane.node_of("web") == ""
        assert await plane.condition("web") == {}
        if "schedulingGates" in spec:
            await plane.client.patch(PODS, "web", {"spec": {"schedulingGates": None}}, "default")
            await plane.settle()
            assert await plane.node_of("web") == "node01"

    run_virtually(main())


def test_pod_deleted_while_its_claim_is_being_bound_leaves_the_claim_to_the_next():
    async def main():
        plane = Plane()
        await plane.start(a_node("node01"))
        await plane.declare(a_class(), a_volume("pv", "node01"), a_claim("data"))
        await plane.settle()
        await plane.declare(a_pod("web", "data"))
        await plane.settle(binds=False)
        assert await plane.node_of("web") == ""
        await plane.client.delete(PODS, "web", "default", grace_period_seconds=0)
        await plane.settle()
        assert await plane.volume_of("data") == "pv"
        await plane.declare(a_pod("next", "data"))
        await plane.settle()
        assert await plane.node_of("next") == "node01"

    run_virtually(main())


def test_explain_lists_each_node_with_its_reason():
    async def main():
        plane = Plane()
        await plane.start(a_node("node01"), a_node("node02"), a_node("node03", taints=[TAINT]))
        await plane.declare(a_class(), a_volume("pv", "node01"), a_claim("data"))
        await plane.declare(a_pod("first", "data"))
        await plane.settle()
        await plane.cordon("node01")
        await plane.declare(a_pod("web", "data"))
        async with plane.running():
            await asyncio.sleep(PATIENCE)
            told = [outlook.describe() for outlook in plane.scheduler.explain("default", "web")]
        assert told == [
            "node01: node(s) were unschedulable (`kubectl uncordon node01` lets pods in again)",
            "node02: node(s) had volume node affinity conflict",
            "node03: node(s) had untolerated taint {disk: slow}",
        ]

    run_virtually(main())
