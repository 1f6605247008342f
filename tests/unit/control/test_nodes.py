"""Which nodes are alive: by when their leases were seen to change, not by anybody's clock."""

import asyncio

import pytest

from tests.simulation.virtual_time import VirtualClock, run_virtually
from tests.unit.control.controllers import running, settle, start_server
from volagent.client.contract import LEASES, NODES
from volagent.control.nodes.run import NodeLife
from volagent.control.nodes.silence import LEASE_NAMESPACE
from volagent.node.lease import LeaseKeeper

TIMEOUT_S = 10.0
FOREIGN = {"key": "disk", "value": "slow", "effect": "NoSchedule"}


async def a_server(**spec):
    client = await start_server()
    await client.create(NODES, {"metadata": {"name": "vm2"}, "spec": spec})
    return client


def life(client):
    return lambda copies, events: NodeLife(copies, client, events, VirtualClock(), TIMEOUT_S)


def keeper(client):
    return LeaseKeeper(client, "vm2", VirtualClock(), period_s=3.0, timeout_s=TIMEOUT_S)


async def told(client):
    """The node's Ready condition and the keys of its taints."""
    node = await client.get(NODES, "vm2")
    conditions = node.get("status", {}).get("conditions") or ()
    ready = [each["status"] for each in conditions if each["type"] == "Ready"]
    return ready, [taint["key"] for taint in node["spec"].get("taints") or ()]


def test_node_is_lost_when_its_lease_stands_still_and_back_when_it_moves_again():
    async def story():
        client = await a_server(taints=[FOREIGN])
        async with running(client, life(client)):
            renewing = asyncio.ensure_future(keeper(client).run())
            await settle(100)
            assert await told(client) == ([], ["disk"])
            renewing.cancel()
            await asyncio.sleep(TIMEOUT_S - 4)
            assert await told(client) == ([], ["disk"])
            await asyncio.sleep(5)
            lost = (["Unknown"], ["disk", "node.kubernetes.io/unreachable"])
            assert await told(client) == lost
            renewing = asyncio.ensure_future(keeper(client).run())
            await asyncio.sleep(1)
            assert await told(client) == (["True"], ["disk"])
            renewing.cancel()

    run_virtually(story())


async def tell_boot(client, boot_id):
    status = {"status": {"nodeInfo": {"bootID": boot_id}}}
    await client.patch(NODES, "vm2", status, subresource="status")


def test_node_that_was_only_declared_is_not_judged():
    async def story():
        client = await a_server()
        async with running(client, life(client)):
            await settle(1000)
            assert await told(client) == ([], [])

    run_virtually(story())


def test_node_whose_agent_never_renewed_a_lease_is_lost_a_lease_time_after_it_was_seen():
    async def story():
        client = await a_server()
        async with running(client, life(client)):
            await asyncio.sleep(100)
            await tell_boot(client, "first")
            await asyncio.sleep(TIMEOUT_S - 1)
            assert (await told(client))[0] == []
            await tell_boot(client, "second")  # its agent has spoken
            await asyncio.sleep(TIMEOUT_S - 1)
            assert (await told(client))[0] == []
            await asyncio.sleep(2)
            assert await told(client) == (["Unknown"], ["node.kubernetes.io/unreachable"])
            (ready,) = (await client.get(NODES, "vm2"))["status"]["conditions"]
            assert "has no lease" in ready["message"]
            renewing = asyncio.ensure_future(keeper(client).run())
            await asyncio.sleep(1)
            assert await told(client) == (["True"], [])
            renewing.cancel()

    run_virtually(story())


@pytest.mark.parametrize("leased", [True, False])
def test_lost_node_stays_lost_until_it_is_heard_when_another_server_leads(leased):
    async def story():
        client = await a_server()
        await tell_boot(client, "first")
        if leased:
            metadata = {"name": "vm2", "namespace": LEASE_NAMESPACE}
            await client.create(LEASES, {"metadata": metadata, "spec": {}}, LEASE_NAMESPACE)
        lost = (["Unknown"], ["node.kubernetes.io/unreachable"])
        async with running(client, life(client)):
            await asyncio.sleep(TIMEOUT_S + 1)
            assert await told(client) == lost
        version = (await client.get(NODES, "vm2"))["metadata"]["resourceVersion"]
        async with running(client, life(client)):
            await asyncio.sleep(3 * TIMEOUT_S)
            assert await told(client) == lost
            assert (await client.get(NODES, "vm2"))["metadata"]["resourceVersion"] == version

    run_virtually(story())


def test_lost_node_is_not_back_when_its_lease_is_deleted():
    async def story():
        client = await a_server()
        await tell_boot(client, "first")
        async with running(client, life(client)):
            renewing = asyncio.ensure_future(keeper(client).run())
            await asyncio.sleep(1)
            renewing.cancel()
            await client.delete(LEASES, "vm2", LEASE_NAMESPACE)
            await asyncio.sleep(TIMEOUT_S - 2)
            assert (await told(client))[0] == []
            await asyncio.sleep(2)
            assert (await told(client))[0] == ["Unknown"]
            await asyncio.sleep(1000)
            assert (await told(client))[0] == ["Unknown"]

    run_virtually(story())


def test_node_of_the_servers_own_process_is_never_lost_and_comes_back_when_it_was():
    def own(client):
        return lambda copies, events: NodeLife(
            copies, client, events, VirtualClock(), TIMEOUT_S, own_node="vm2"
        )

    async def story():
        client = await a_server()
        await tell_boot(client, "first")
        metadata = {"name": "vm2", "namespace": LEASE_NAMESPACE}  # of the days of another server
        await client.create(LEASES, {"metadata": metadata, "spec": {}}, LEASE_NAMESPACE)
        async with running(client, own(client)):
            await settle(1000)
            assert await told(client) == ([], [])
        async with running(client, life(client)):
            await asyncio.sleep(TIMEOUT_S + 1)
            assert (await told(client))[0] == ["Unknown"]
        async with running(client, own(client)):
            await asyncio.sleep(1)
            assert await told(client) == (["True"], [])

    run_virtually(story())


@pytest.mark.parametrize("moment", ["1970-01-01T00:00:00.000000Z", "2999-01-01T00:00:00.000000Z"])
def test_clock_of_a_node_does_not_matter(moment):
    async def story():
        client = await a_server()
        metadata = {"name": "vm2", "namespace": LEASE_NAMESPACE}
        spec = {"holderIdentity": "vm2", "renewTime": moment}
        await client.create(LEASES, {"metadata": metadata, "spec": spec}, LEASE_NAMESPACE)
        async with running(client, life(client)):
            await asyncio.sleep(TIMEOUT_S - 1)
            assert await told(client) == ([], [])
            await asyncio.sleep(2)
            assert (await told(client))[0] == ["Unknown"]

    run_virtually(story())


def test_server_that_was_away_gives_every_node_its_whole_time_again():
    async def story():
        client = await a_server()
        renewing = asyncio.ensure_future(keeper(client).run())
        await asyncio.sleep(1)
        renewing.cancel()
        await asyncio.sleep(1000)  # the server is down; the node may have tried
        async with running(client, life(client)):
            await asyncio.sleep(TIMEOUT_S - 1)
            assert await told(client) == ([], [])
            await asyncio.sleep(2)
            assert (await told(client))[0] == ["Unknown"]

    run_virtually(story())
