"""Machines that a server has switched off: which, on whose word, and which are left alone."""

from tests.simulation.virtual_time import VirtualClock, run_virtually
from tests.unit.control.controllers import running, settle, start_server
from volagent.client.contract import FENCINGS, NODES
from volagent.control.fencing.run import ServerFencing
from volagent.drivers.errors import Transient
from volagent.drivers.fencing.contract import NoProof


class FakeHooks:
    def __init__(self, *failures):
        self.failures = list(failures)
        self.asked = []

    async def switch_off(self, machine):
        self.asked.append(machine)
        if self.failures:
            raise self.failures.pop(0)
        return "the machine is off"


async def a_server():
    client = await start_server()
    node = {"metadata": {"name": "node01", "annotations": {"example.org/domain": "guest7"}}}
    await client.create(NODES, node)
    status = {
        "nodeInfo": {"bootID": "boot-1", "machineID": "m1"},
        "addresses": [
            {"type": "InternalIP", "address": "10.0.0.1"},
            {"type": "InternalIP", "address": "10.0.1.1"},
        ],
    }
    await client.patch(NODES, "node01", {"status": status}, subresource="status")
    return client


async def order(client, **spec):
    wish = {
        "attachment": {"name": "volagent-x", "uid": "a1"}, "volume": "v", "nodeName": "node01",
        "bootId": "boot-1", "method": "Hook", "executor": "",
    }  # fmt: skip
    await client.create(FENCINGS, {"metadata": {"name": "volagent-a1"}, "spec": wish | spec})


async def status_of(client):
    return (await client.get(FENCINGS, "volagent-a1")).get("status") or {}


def fencing(client, hooks):
    return lambda copies, _events: ServerFencing(copies, client, VirtualClock(), hooks)


def test_program_is_told_about_the_machine_and_its_word_is_the_proof():
    async def story():
        client, hooks = await a_server(), FakeHooks()
        async with running(client, fencing(client, hooks)):
            await order(client)
            await settle(1)
            status = await status_of(client)
        assert (status["phase"], status["message"]) == ("Proven", "the machine is off")
        (machine,) = hooks.asked
        assert (machine.node, machine.boot_id) == ("node01", "boot-1")
        assert machine.facts["INTERNAL_IP"] == "10.0.0.1"
        assert machine.facts["MACHINE_ID"] == "m1"
        assert "guest7" in machine.facts["ANNOTATIONS"]

    run_virtually(story())


def test_failure_is_tried_again_and_no_program_ends_it():
    async def story():
        client = await a_server()
        hooks = FakeHooks(Transient("no route"), NoProof("no program"))
        async with running(client, fencing(client, hooks)):
            await order(client)
            await settle(0.1)
            assert (await status_of(client))["message"] == "no route"
            await settle(60)
            assert (await status_of(client))["phase"] == "Impossible"
        assert len(hooks.asked) == 2

    run_virtually(story())


def test_machine_that_has_booted_since_is_left_on():
    async def story():
        client, hooks = await a_server(), FakeHooks()
        async with running(client, fencing(client, hooks)):
            await order(client, bootId="boot-0")
            await settle(5)
            assert "has booted since" in (await status_of(client))["message"]
        assert hooks.asked == []

    run_virtually(story())


def test_orders_of_agents_and_watchdogs_are_not_ours():
    async def story():
        client, hooks = await a_server(), FakeHooks()
        await order(client, executor="node02")
        async with running(client, fencing(client, hooks)):
            await settle(5)
        assert hooks.asked == []
        await client.delete(FENCINGS, "volagent-a1")
        await order(client, method="Watchdog")
        async with running(client, fencing(client, hooks)):
            await settle(5)
        assert hooks.asked == []

    run_virtually(story())


def test_server_that_takes_over_goes_on():
    async def story():
        client = await a_server()
        await order(client)
        hooks = FakeHooks()
        async with running(client, fencing(client, hooks)):
            await settle(1)
        async with running(client, fencing(client, hooks)):
            await settle(60)
        assert len(hooks.asked) == 1

    run_virtually(story())
