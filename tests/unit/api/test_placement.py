"""Which new pods are placed as they are created, and which are left to the scheduler."""

import asyncio

import msgspec
import pytest

from tests.contract.client.documents import pod
from tests.simulation.memory_store import MemoryStore
from tests.simulation.scheduling import a_node
from tests.simulation.virtual_time import VirtualClock, run_virtually
from volagent.aio.tasks import Supervisor
from volagent.api.admission import Admission
from volagent.api.inprocess import InProcessClient
from volagent.api.placement import place_simple_pod
from volagent.api.surroundings_nodes import NodesAround
from volagent.client.contract import NODES, PODS
from volagent.client.shared import SharedCopies
from volagent.objects.storage import Node
from volagent.objects.validate import prepare_create

SLOW = {"key": "disk", "value": "slow", "effect": "NoSchedule"}
LEAVING = {"key": "leaving", "effect": "NoExecute"}
DISLIKED = {"key": "disk", "value": "slow", "effect": "PreferNoSchedule"}
REPELS = {
    "podAntiAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [
            {"labelSelector": {}, "topologyKey": "kubernetes.io/hostname"}
        ]
    }
}


def node(**fields):
    return msgspec.convert(a_node("vm-1", disk="ssd", **fields), Node)


def place(spec, on):
    """The node that the pod gets at once, or ""."""
    document = pod("web", **spec)
    document["metadata"] |= {"namespace": "default", "creationTimestamp": "2026-01-01T00:00:00Z"}
    placed = place_simple_pod(prepare_create("Pod", document), on)
    name = placed["spec"].get("nodeName", "")
    conditions = placed.get("status", {}).get("conditions", [])
    assert [c["status"] for c in conditions] == (["True"] if name else [])
    return name


def container(**resources):
    return {"containers": [{"name": "main", "image": "x", "resources": resources}]}


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"nodeSelector": {"disk": "ssd"}},
        {"volumes": [{"name": "v", "emptyDir": {}}, {"name": "h", "hostPath": {"path": "/x"}}]},
        {"tolerations": [{"operator": "Exists"}]},
        {"affinity": {}},
        container(),
    ],
)
def test_pod_that_asks_for_nothing_is_placed_at_once(spec):
    assert place(spec, node()) == "vm-1"


@pytest.mark.parametrize(
    "spec",
    [
        {"nodeSelector": {"disk": "hdd"}},
        {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]},
        {"volumes": [{"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}}}]},
        {"affinity": REPELS},
        {"topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]},
        {"schedulerName": "mine"},
        {"schedulingGates": [{"name": "example.com/wait"}]},
        {"overhead": {"cpu": "1m"}},
        container(requests={"cpu": "1m"}),
        container(limits={"memory": "1Gi"}),
    ],
)  # fmt: skip
def test_pod_that_asks_for_something_is_left_to_the_scheduler(spec):
    assert place(spec, node()) == ""


@pytest.mark.parametrize(
    ("fields", "tolerations", "expected"),
    [
        ({"unschedulable": True}, [], ""),
        ({"taints": [SLOW]}, [], ""),
        ({"taints": [LEAVING]}, [], ""),
        ({"taints": [DISLIKED]}, [], "vm-1"),
        ({"taints": [SLOW]}, [{"key": "disk", "value": "slow"}], "vm-1"),
    ],
)
def test_node_that_does_not_want_the_pod_leaves_it_to_the_scheduler(fields, tolerations, expected):
    assert place({"tolerations": tolerations}, node(**fields)) == expected


def test_node_that_is_not_ready_leaves_the_pod_to_the_scheduler():
    document = a_node("vm-1")
    document["status"]["conditions"] = [{"type": "Ready", "status": "False"}]
    assert place({}, msgspec.convert(document, Node)) == ""


async def _settle():
    await asyncio.sleep(1)


def _with_scheduler(main):
    """Run `main(client)` where the registry knows that a scheduler runs."""

    async def run():
        client = InProcessClient(
            MemoryStore(), Admission(), VirtualClock(), token_key=b"k" * 32,
            default_node_name="vm-1",
        )  # fmt: skip
        await client.housekeeping.bootstrap()
        copies = SharedCopies(client)
        client.leave_to_scheduler(NodesAround(copies).only_node)
        async with Supervisor() as tasks:
            tasks.start_loop("copies", copies.run())
            await copies.wait_synced()
            await main(client)

    run_virtually(run())


async def _create(client, name, **spec):
    created = await client.create(PODS, pod(name, **spec), "default")
    await _settle()
    return created["spec"].get("nodeName", "")


def test_second_node_means_that_the_scheduler_chooses():
    async def main(client):
        assert await _create(client, "early") == ""
        await client.create(NODES, a_node("vm-1"))
        await _settle()
        assert await _create(client, "alone") == "vm-1"
        await client.create(NODES, a_node("vm-2"))
        await _settle()
        assert await _create(client, "choice") == ""
        await client.delete(NODES, "vm-2")
        await _settle()
        assert await _create(client, "again") == "vm-1"

    _with_scheduler(main)


def test_pod_that_keeps_others_away_means_that_the_scheduler_chooses():
    async def main(client):
        await client.create(NODES, a_node("vm-1"))
        await _create(client, "hermit", nodeName="vm-1", affinity=REPELS)
        assert await _create(client, "web") == ""
        await client.delete(PODS, "hermit", "default", grace_period_seconds=0)
        await _settle()
        assert await _create(client, "next") == "vm-1"

    _with_scheduler(main)


def test_full_node_means_that_the_scheduler_says_so():
    async def main(client):
        document = a_node("vm-1")
        document["status"]["capacity"]["pods"] = "1"
        await client.create(NODES, document)
        await _settle()
        assert await _create(client, "one") == "vm-1"
        assert await _create(client, "two") == ""
        finished = {"status": {"phase": "Succeeded"}}
        await client.patch(PODS, "one", finished, "default", subresource="status")
        await _settle()
        assert await _create(client, "three") == "vm-1"

    _with_scheduler(main)
