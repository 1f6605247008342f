"""An informer over every client."""

import asyncio

import pytest

from tests.contract.client.documents import pod
from volagent.client.contract import PODS, Selection
from volagent.client.informer import Informer
from volagent.client.shared import SharedCopies
from volagent.objects.pod import Pod, read_pod


class Reports:
    """What an informer told, and a way to wait for it."""

    def __init__(self):
        self.seen = []
        self._changed = asyncio.Event()

    def __call__(self, key, old, new):
        self.seen.append((key[1], old is not None, new is not None))
        self._changed.set()

    async def wait_for(self, count):
        while len(self.seen) < count:
            self._changed.clear()
            await self._changed.wait()
        return self.seen


@pytest.fixture
async def reports():
    return Reports()


async def test_informer_follows_the_pods_of_its_node(client, reports):
    await client.create(PODS, pod("before"), "default")
    informer = Informer(
        client, PODS, Selection(field_selector="spec.nodeName=vm-1"), read_pod, reports
    )
    running = asyncio.ensure_future(informer.run())
    await informer.synced.wait()
    assert informer.get("default", "before").metadata.name == "before"

    await client.create(PODS, pod("elsewhere", nodeName="vm-2"), "default")
    await client.create(PODS, pod("here"), "default")
    await client.patch(
        PODS, "here", {"status": {"phase": "Running"}}, "default", subresource="status"
    )
    await client.delete(PODS, "here", "default", grace_period_seconds=0)

    assert await reports.wait_for(4) == [
        ("before", False, True),
        ("here", False, True),
        ("here", True, True),
        ("here", True, False),
    ]
    assert [view.metadata.name for view in informer.values()] == ["before"]
    running.cancel()
    await asyncio.wait([running])


async def test_informer_misses_nothing_when_many_write_at_once(client, reports):
    informer = Informer(client, PODS, Selection(), read_pod, reports)
    running = asyncio.ensure_future(informer.run())
    await informer.synced.wait()

    await asyncio.gather(*(client.create(PODS, pod(f"p{n}"), "default") for n in range(100)))

    await reports.wait_for(100)
    assert {view.metadata.name for view in informer.values()} == {f"p{n}" for n in range(100)}
    running.cancel()
    await asyncio.wait([running])


async def test_lent_copy_tells_node_and_controllers_the_same_in_place_of_what_was_remembered(
    client,
):
    await client.create(PODS, pod("before"), "default")
    copies = SharedCopies(client, pods_of_node="vm-1", only_node="vm-1")
    lent = copies.lend(PODS, Pod, Selection(field_selector="spec.nodeName=vm-1"))
    listeners = Reports(), Reports()
    copies.pods.listen(listeners[0])
    lent.listen(listeners[1])
    gone = read_pod({**pod("gone"), "metadata": {"name": "gone", "namespace": "default"}})
    lent.informer.seed({("default", "gone"): gone})
    running = [asyncio.ensure_future(each) for each in (copies.run(), lent.informer.run())]
    await copies.wait_synced()

    assert [each.metadata.name for each in copies.pods.values()] == ["before"]
    await client.create(PODS, pod("here"), "default")
    for reports in listeners:
        assert await reports.wait_for(3) == [
            ("before", False, True),
            ("gone", True, False),
            ("here", False, True),
        ]
    for task in running:
        task.cancel()
    await asyncio.wait(running)
