"""An agent that keeps other nodes out of disks: what it is asked for, and what it tells."""

import asyncio
from contextlib import asynccontextmanager

from tests.simulation.fake_host import make_fake_host
from tests.simulation.fake_initiator import FakeInitiator
from tests.simulation.fake_kernel import FakeKernel
from tests.simulation.virtual_time import VirtualClock, run_virtually
from tests.unit.control.controllers import settle, start_server
from volagent.aio.tasks import Supervisor
from volagent.client.contract import FENCINGS, PERSISTENT_VOLUMES, SECRETS
from volagent.drivers.errors import Transient
from volagent.drivers.fencing.contract import NoProof
from volagent.drivers.fencing.table import make_node_fences
from volagent.drivers.iscsi.driver import ISCSI, IscsiDriver
from volagent.node.fencing import NodeFencing

VOLUME = "kubernetes.io/iscsi/iqn.lab:a:lun-1"
ISCSI_BODY = {
    "targetPortal": "10.0.0.5", "iqn": "iqn.2026-01.lab:a", "lun": 1, "chapAuthSession": True,
    "secretRef": {"name": "chap", "namespace": "default"},
}  # fmt: skip


class FakeFence:
    """Fails with what it is told to, then succeeds."""

    def __init__(self, *failures):
        self.failures = list(failures)
        self.orders = []
        self.confirmed = []

    async def fence(self, order):
        self.orders.append(order)
        if self.failures:
            raise self.failures.pop(0)
        self.confirmed.append(await order.confirm())
        return "its key is gone"


async def a_server(**body):
    client = await start_server()
    spec = {
        "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
        "iscsi": ISCSI_BODY | body,
    }  # fmt: skip
    await client.create(PERSISTENT_VOLUMES, {"metadata": {"name": "disk"}, "spec": spec})
    secret = {"metadata": {"name": "chap", "namespace": "default"}, "stringData": {"word": "w"}}
    await client.create(SECRETS, secret, "default")
    return client


async def order(client, name="volagent-a1", **spec):
    wish = {
        "attachment": {"name": "volagent-x", "uid": "a1"}, "volume": VOLUME,
        "source": {"persistentVolumeName": "disk"}, "nodeName": "node01", "method": "Storage",
        "executor": "node02",
    }  # fmt: skip
    await client.create(FENCINGS, {"metadata": {"name": name}, "spec": wish | spec})


async def status_of(client, name="volagent-a1"):
    return (await client.get(FENCINGS, name)).get("status") or {}


@asynccontextmanager
async def node02(client, fence):
    host = make_fake_host(FakeKernel())
    drivers = {ISCSI: IscsiDriver(host, FakeInitiator(host))}
    fences = {**make_node_fences(None, "node02"), **({ISCSI: fence} if fence else {})}
    async with Supervisor() as tasks:
        agent = NodeFencing(
            client, VirtualClock(), "node02", drivers=drivers, fences=fences, start=tasks.start
        )
        loop = asyncio.ensure_future(agent.run())
        yield agent
        assert not loop.done()
        loop.cancel()


def test_evidence_becomes_the_proof():
    async def story():
        client, fence = await a_server(), FakeFence()
        async with node02(client, fence):
            await order(client)
            await settle(1)
            status = await status_of(client)
        assert status["phase"] == "Proven"
        assert status["message"] == "its key is gone"
        assert status["attempts"] == 1
        assert status["provenAt"].startswith("2026-01-01T")
        (asked,) = fence.orders
        assert (asked.node, asked.attachment_uid, asked.volume) == ("node01", "a1", VOLUME)
        assert asked.credentials.text("word") == "w"
        assert asked.source.body["lun"] == 1
        assert fence.confirmed == [""]

    run_virtually(story())


def test_orders_for_others_and_other_methods_are_left_alone():
    async def story():
        client, fence = await a_server(), FakeFence()
        await order(client, "volagent-b", executor="node03")
        await order(client, "volagent-c", method="Hook")
        async with node02(client, fence):
            await settle(10)
        assert fence.orders == []

    run_virtually(story())


def test_failure_is_told_and_tried_again():
    async def story():
        client = await a_server()
        fence = FakeFence(Transient("the portal is silent", remedy="look"), RuntimeError("a bug"))
        async with node02(client, fence):
            await order(client)
            await settle(0.1)
            status = await status_of(client)
            assert status["phase"] == "Pending"
            assert status["message"] == "the portal is silent (look)"
            assert status["attempts"] == 1
            await settle(1.0)
            assert "unexpected RuntimeError" in (await status_of(client))["message"]
            await settle(10)
            assert (await status_of(client))["phase"] == "Proven"
        assert len(fence.orders) == 3

    run_virtually(story())


def test_storage_without_proof_ends_it():
    async def story():
        client = await a_server()
        fence = FakeFence(NoProof("it has no reservations"))
        async with node02(client, fence):
            await order(client)
            await settle(100)
            assert (await status_of(client))["phase"] == "Impossible"
        assert len(fence.orders) == 1

    run_virtually(story())


def test_node_without_an_initiator_says_so():
    async def story():
        client = await a_server()
        async with node02(client, None):
            await order(client)
            await settle(10)
            status = await status_of(client)
        assert status["phase"] == "Impossible"
        assert "kubernetes.io/iscsi" in status["message"]
        assert "confirm-off" in status["message"]

    run_virtually(story())


def test_missing_secret_is_told_and_read_again():
    async def story():
        client = await a_server(secretRef={"name": "other", "namespace": "default"})
        async with node02(client, FakeFence()):
            await order(client)
            await settle(1)
            assert "secret default/other not found" in (await status_of(client))["message"]
            secret = {
                "metadata": {"name": "other", "namespace": "default"},
                "stringData": {"a": "b"},
            }
            await client.create(SECRETS, secret, "default")
            await settle(10)
            assert (await status_of(client))["phase"] == "Proven"

    run_virtually(story())


def test_order_that_was_replaced_is_not_confirmed_and_its_outcome_not_written():
    async def story():
        client = await a_server()

        class Slow(FakeFence):
            async def fence(self, order_):
                if not self.orders:
                    await client.delete(FENCINGS, "volagent-a1")
                    await order(client, executor="node03")
                return await super().fence(order_)

        fence = Slow()
        async with node02(client, fence):
            await order(client)
            await settle(30)
            assert (await status_of(client)).get("phase", "Pending") == "Pending"
        assert fence.confirmed == ["it is not wanted any more"]

    run_virtually(story())


def test_agent_that_starts_anew_does_it_again():
    async def story():
        client = await a_server()
        await order(client)
        fence = FakeFence()
        async with node02(client, fence):
            await settle(1)
        async with node02(client, fence):
            await settle(1)
        assert len(fence.orders) == 1  # it is proven by then

    run_virtually(story())
