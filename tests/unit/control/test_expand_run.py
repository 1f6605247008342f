"""A claim grows over an API in memory: what is written, told, and recovered from."""

from tests.contract.client.documents import claim, volume
from tests.simulation.virtual_time import VirtualClock, run_virtually
from tests.unit.control.controllers import running, settle, start_server
from volagent.api.admission import Admission, NoSurroundings
from volagent.client.contract import CLAIMS, EVENTS, PERSISTENT_VOLUMES
from volagent.control.expand.run import ExpandController
from volagent.drivers.errors import Rejected, Uncertain
from volagent.drivers.provisioning.contract import Grown, OutOfSpace

MAKER = "test.volagent.dev"
GIB = 1 << 30


class Growing(NoSurroundings):
    def class_can_grow(self, name: str) -> bool:
        return True


class Backend:
    """Grows up to its room; fails as told before."""

    name = MAKER
    node = ""

    def __init__(self, room=10 * GIB, *, node_half=False, failures=()):
        self.room = room
        self.node_half = node_half
        self.failures = list(failures)
        self.size = GIB
        self.asked = []

    async def grow(self, source, annotations, capacity_bytes):
        self.asked.append(capacity_bytes)
        if self.failures:
            raise self.failures.pop(0)
        if capacity_bytes > self.room:
            raise OutOfSpace("no room", remedy="ask for less")
        self.size = max(self.size, capacity_bytes)
        return Grown("grown", self.size, self.node_half)


async def with_bound_claim():
    admission = Admission()
    admission.surroundings = Growing()
    client = await start_server(admission)
    made = await client.create(CLAIMS, claim("c", volumeName="pv"), "default")
    reference = {"namespace": "default", "name": "c", "uid": made["metadata"]["uid"]}
    document = volume("pv", claimRef=reference)
    document["metadata"]["annotations"] = {"pv.kubernetes.io/provisioned-by": MAKER}
    await client.create(PERSISTENT_VOLUMES, document)
    status = {"phase": "Bound", "capacity": {"storage": "1Gi"}}
    await client.patch(CLAIMS, "c", {"status": status}, "default", subresource="status")
    return client


async def ask_for(client, size):
    change = {"spec": {"resources": {"requests": {"storage": size}}}}
    await client.patch(CLAIMS, "c", change, "default")


def controller_of(client, backend):
    return lambda copies, events: ExpandController(
        copies, client, events, {MAKER: backend}, VirtualClock()
    )


async def status_of(client):
    return (await client.get(CLAIMS, "c", "default"))["status"]


def test_claim_gets_what_it_asks_for():
    async def story():
        client, backend = await with_bound_claim(), Backend()
        async with running(client, controller_of(client, backend)):
            await ask_for(client, "3Gi")
            await settle()
            status = await status_of(client)
            assert status["capacity"] == {"storage": "3Gi"}
            assert "allocatedResources" not in status
            assert "conditions" not in status
            spec = (await client.get(PERSISTENT_VOLUMES, "pv"))["spec"]
            assert spec["capacity"] == {"storage": "3Gi"}
            reasons = {event["reason"] for event in (await client.list(EVENTS)).items}
            assert {"Resizing", "VolumeResizeSuccessful"} <= reasons
        assert backend.asked == [3 * GIB]

    run_virtually(story())


def test_full_backend_is_told_asked_again_later_and_recovered_from_by_asking_for_less():
    async def story():
        client, backend = await with_bound_claim(), Backend(room=5 * GIB)
        async with running(client, controller_of(client, backend)):
            await ask_for(client, "9Gi")
            await settle()
            status = await status_of(client)
            assert status["allocatedResourceStatuses"] == {"storage": "ControllerResizeInfeasible"}
            assert status["capacity"] == {"storage": "1Gi"}
            assert "ask for less" in status["conditions"][0]["message"]
            assert 2 <= len(backend.asked) <= 12
            await ask_for(client, "4Gi")
            await settle()
            status = await status_of(client)
            assert status["capacity"] == {"storage": "4Gi"}
            assert "allocatedResourceStatuses" not in status

    run_virtually(story())


def test_refusal_for_good_is_not_asked_again_and_ends_when_nothing_more_is_wanted():
    async def story():
        client = await with_bound_claim()
        backend = Backend(failures=[Rejected("cannot grow")])
        async with running(client, controller_of(client, backend)):
            await ask_for(client, "2Gi")
            await settle()
            assert backend.asked == [2 * GIB]
            await ask_for(client, "1Gi")
            await settle()
            status = await status_of(client)
            assert "allocatedResourceStatuses" not in status
            assert "conditions" not in status

    run_virtually(story())


def test_unknown_outcome_is_asked_for_again_until_it_is_known():
    async def story():
        client = await with_bound_claim()
        backend = Backend(failures=[Uncertain("timed out")] * 3)
        async with running(client, controller_of(client, backend)):
            await ask_for(client, "2Gi")
            await settle(300)
            assert (await status_of(client))["capacity"] == {"storage": "2Gi"}
        assert backend.asked == [2 * GIB] * 4

    run_virtually(story())
