"""Pods of lost nodes, nodes that are lost again and again, and permissions of another boot."""

import asyncio

import msgspec
import pytest

from tests.contract.client.documents import pod
from tests.simulation.virtual_time import VirtualClock, run_virtually
from tests.unit.control.controllers import running, settle, start_server
from volagent.client.contract import EVENTS, FENCINGS, LEASES, NODES, PODS, NotFound, Selection
from volagent.control.failover.decide import Prove, Watchdog
from volagent.control.failover.fencing import FencingWriter
from volagent.control.failover.lost import LostNodes
from volagent.control.failover.means import Fencers
from volagent.control.failover.pods import PodMover
from volagent.control.failover.steady import UNSTEADY, SteadinessController
from volagent.control.nodes.off import OutOfService
from volagent.control.nodes.run import NodeLife
from volagent.control.nodes.silence import LEASE_NAMESPACE
from volagent.node.attachment import AttachmentGate
from volagent.node.lease import LeaseKeeper
from volagent.node.register import NodeReporter
from volagent.objects.attachments import OUT_OF_SERVICE
from volagent.objects.fencing import FENCES_ITSELF, Fencing
from volagent.objects.storage import Node
from volagent.settings import LeaseSettings
from volagent.settings_failover import FailoverSettings

LEASE = LeaseSettings()
OWNER = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs", "uid": "u"}


def life(client):
    return lambda copies, events: NodeLife(copies, client, events, VirtualClock(), LEASE.timeout_s)


def mover(client):
    return lambda copies, events: PodMover(
        copies, client, events, LostNodes(copies, VirtualClock(), LEASE, share_max=0.34),
        attachers={}, shared_after_s=300.0,
    )  # fmt: skip


async def a_server():
    client = await start_server()
    client.leave_to_scheduler(lambda: None)
    await client.create(NODES, {"metadata": {"name": "vm1"}})
    metadata = {"name": "vm1", "namespace": LEASE_NAMESPACE}
    await client.create(LEASES, {"metadata": metadata, "spec": {}}, LEASE_NAMESPACE)
    return client


async def place(client, name, **metadata):
    document = pod(name)
    document["metadata"] |= metadata
    await client.create(PODS, document, "default")
    await client.bind_pod(name, "default", "vm1")
    return (await client.get(PODS, name, "default"))["metadata"]["uid"]


async def told(client, name):
    found = (await client.list(EVENTS, Selection(namespace="default"))).items
    return [each["message"] for each in found if each["involvedObject"]["name"] == name]


def test_pods_without_exclusive_disks_are_placed_anew_after_a_while():
    async def story():
        client = await a_server()
        uid = await place(client, "web")
        await place(client, "owned", ownerReferences=[OWNER])
        await client.create(PODS, pod("pinned", nodeName="vm1"), "default")
        async with running(client, life(client), mover(client)):
            await asyncio.sleep(LEASE.timeout_s + 290)
            assert (await client.get(PODS, "web", "default"))["metadata"]["uid"] == uid
            await asyncio.sleep(20)
            moved = await client.get(PODS, "web", "default")
            assert moved["metadata"]["uid"] != uid
            assert "nodeName" not in moved["spec"]
            with pytest.raises(NotFound):
                await client.get(PODS, "owned", "default")
            pinned = await client.get(PODS, "pinned", "default")
            assert pinned["spec"]["nodeName"] == "vm1"

    run_virtually(story())


def test_no_pod_is_moved_while_many_nodes_are_silent_at_once():
    async def story():
        client = await a_server()
        uid = await place(client, "web")
        await client.create(NODES, {"metadata": {"name": "vm2"}})
        metadata = {"name": "vm2", "namespace": LEASE_NAMESPACE}
        await client.create(LEASES, {"metadata": metadata, "spec": {}}, LEASE_NAMESPACE)
        async with running(client, life(client), mover(client)):
            await asyncio.sleep(1000)
            assert (await client.get(PODS, "web", "default"))["metadata"]["uid"] == uid
            await client.delete(LEASES, "vm2", LEASE_NAMESPACE)
            await asyncio.sleep(5)
            assert (await client.get(PODS, "web", "default"))["metadata"]["uid"] != uid

    run_virtually(story())


def test_no_pod_is_moved_before_this_server_has_seen_a_whole_lease_time():
    async def story():
        client = await a_server()
        taint = {"key": "node.kubernetes.io/unreachable", "effect": "NoSchedule"}
        await client.patch(NODES, "vm1", {"spec": {"taints": [taint]}})
        document = pod("web", tolerations=[{
            "key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute",
            "tolerationSeconds": 0,
        }])  # fmt: skip
        await client.create(PODS, document, "default")
        await client.bind_pod("web", "default", "vm1")
        async with running(client, mover(client)):
            await asyncio.sleep(LEASE.timeout_s - 1)
            assert (await client.get(PODS, "web", "default"))["spec"]["nodeName"] == "vm1"
            await asyncio.sleep(2)
            assert "nodeName" not in (await client.get(PODS, "web", "default"))["spec"]

    run_virtually(story())


def test_pods_of_a_node_that_is_off_are_declared_again_or_forgotten():
    async def story():
        client = await a_server()
        uid = await place(client, "web")
        await client.create(PODS, pod("pinned", nodeName="vm1"), "default")
        taint = {"key": OUT_OF_SERVICE, "effect": "NoExecute"}
        await client.patch(NODES, "vm1", {"spec": {"taints": [taint]}})
        off = lambda copies, events: OutOfService(copies, client, events)  # noqa: E731
        async with running(client, off):
            await settle(5)
            moved = await client.get(PODS, "web", "default")
            assert moved["metadata"]["uid"] != uid
            assert "nodeName" not in moved["spec"]
            with pytest.raises(NotFound):
                await client.get(PODS, "pinned", "default")

    run_virtually(story())


def test_node_that_is_lost_often_gets_no_new_pods_for_a_while():
    async def story():
        client = await a_server()
        clock, settings = VirtualClock(), FailoverSettings(unsteady_hold_s=120.0)
        keeper = LeaseKeeper(client, "vm1", clock, period_s=3.0, timeout_s=10.0)

        async def taints():
            node = await client.get(NODES, "vm1")
            return {taint["key"] for taint in (node.get("spec") or {}).get("taints") or ()}

        def steady(copies, events):
            return SteadinessController(copies, client, events, clock, settings)

        async with running(client, life(client), steady):
            for times in range(3):
                assert UNSTEADY not in await taints(), times
                await asyncio.sleep(15)
                renewing = asyncio.ensure_future(keeper.run())
                await asyncio.sleep(5)
                renewing.cancel()
            renewing = asyncio.ensure_future(keeper.run())
            assert await taints() == {UNSTEADY}
            await asyncio.sleep(100)
            assert await taints() == {UNSTEADY}
            await asyncio.sleep(30)
            assert await taints() == set()
            renewing.cancel()

    run_virtually(story())


def test_permission_of_another_boot_is_none_until_the_node_has_told_its_own():
    async def story():
        client = await a_server()
        status = {
            "volumesAttached": [{"name": "disk", "devicePath": ""}], "volumesInUse": ["disk"],
            "nodeInfo": {"bootID": "before"},
        }  # fmt: skip
        await client.patch(NODES, "vm1", {"status": status}, subresource="status")
        gate = AttachmentGate()
        reporter = NodeReporter(
            client, "vm1", VirtualClock(), gate, lambda: ["disk"], lambda _: None, boot_id="now"
        )
        reporter._take(await client.get(NODES, "vm1"))
        assert not gate.is_granted("disk")
        await reporter.register()
        await reporter._write_facts({})
        assert gate.is_granted("disk")

    run_virtually(story())


def test_watchdog_proves_nothing_when_the_lease_was_renewed_and_the_copy_is_late():
    class LateCopy:
        """It has seen nothing for a minute."""

        seen = ""

        def silent_s(self, _node):
            return 60.0

        def version(self, _node):
            return self.seen

    async def story():
        client, late = await a_server(), LateCopy()
        late.seen = (await client.get(LEASES, "vm1", LEASE_NAMESPACE))["metadata"][
            "resourceVersion"
        ]
        promise = '{"withinSeconds": 20, "by": "dog", "bootID": "b"}'
        await client.patch(NODES, "vm1", {"metadata": {"annotations": {FENCES_ITSELF: promise}}})
        status = {"status": {"nodeInfo": {"bootID": "b"}}}
        await client.patch(NODES, "vm1", status, subresource="status")
        spec = {
            "attachment": {"uid": "u"}, "volume": "d", "nodeName": "vm1", "bootId": "b",
            "method": "Watchdog",
        }  # fmt: skip
        made = await client.create(FENCINGS, {"metadata": {"name": "f"}, "spec": spec})
        node = msgspec.convert(await client.get(NODES, "vm1"), Node)
        step = Prove(msgspec.convert(made, Fencing), Watchdog("dog", 20, -35))
        writer = FencingWriter(client, None, VirtualClock(), late, Fencers())
        lease = {"spec": {"holderIdentity": "vm1"}}
        await client.patch(LEASES, "vm1", lease, LEASE_NAMESPACE)
        assert await writer.prove(node, step) is False
        found = await client.get(LEASES, "vm1", LEASE_NAMESPACE)
        late.seen = found["metadata"]["resourceVersion"]
        assert await writer.prove(node, step) is True
        assert (await client.get(FENCINGS, "f"))["status"]["phase"] == "Proven"

    run_virtually(story())
