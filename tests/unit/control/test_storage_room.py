"""What a storage node says of the room for its volumes, on its Node and by events."""

import json

from tests.simulation.virtual_time import run_virtually
from tests.unit.control.controllers import running, settle, start_server
from volagent.client.contract import EVENTS, NODES
from volagent.control.show.room import LOOK_AGAIN_S, RoomReporter
from volagent.objects.storage_nodes import STORAGE_ROOM

GIB = 1 << 30


class Pool:
    def __init__(self, **room: int) -> None:
        self.room = room

    async def measure(self):
        return dict(self.room)


def tell(pool, *stories):
    """Declare the node, run the reporter, and do one thing after the other."""

    async def story():
        client = await start_server()
        await client.create(
            NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "store"}}
        )

        def make(copies, events):
            return RoomReporter(copies, client, events, pool.measure, "store")

        async with running(client, make):
            for each in stories:
                each()
                await settle(LOOK_AGAIN_S + 60)
        node = await client.get(NODES, "store")
        told = json.loads(node["metadata"]["annotations"][STORAGE_ROOM])
        events = (await client.list(EVENTS)).items
        return told, [each["reason"] for each in events]

    return run_virtually(story())


def test_room_is_told_and_told_again_when_it_has_changed_by_much():
    pool = Pool(total=4 * GIB, free=3 * GIB, data_percent=25, metadata_percent=10)
    told, events = tell(
        pool,
        lambda: None,
        lambda: pool.room.update(free=3 * GIB - 1, data_percent=26),
    )
    assert told == {"total": 4 * GIB, "free": 3 * GIB, "data_percent": 25, "metadata_percent": 10}
    assert events == []
    told, _ = tell(pool, lambda: None, lambda: pool.room.update(metadata_percent=15))
    assert told["metadata_percent"] == 15


def test_pool_that_is_nearly_full_is_an_event_of_its_node():
    pool = Pool(total=4 * GIB, free=3 * GIB, data_percent=25, metadata_percent=10)
    _, events = tell(pool, lambda: None, lambda: pool.room.update(metadata_percent=80))
    assert events == ["ThinPoolNearlyFull"]
