"""What a process follows of each kind."""

import asyncio

from volagent.client.contract import (
    CLAIMS,
    NODES,
    PERSISTENT_VOLUMES,
    PODS,
    STORAGE_CLASSES,
    Listing,
    Selection,
)
from volagent.client.shared import SharedCopies
from volagent.objects.meta import ObjectMeta
from volagent.objects.pod import Pod
from volagent.objects.storage import PersistentVolumeClaim


class Asked:
    """A client that notes what is asked for."""

    def __init__(self):
        self.selections = {}

    async def list(self, resource, selection=Selection()):  # noqa: B008  # a frozen value
        self.selections[resource] = selection.field_selector
        return Listing([], "1")

    async def watch(self, _resource, _selection, **_options):
        return
        yield


async def follow(**options):
    client = Asked()
    copies = SharedCopies(client, **options)
    for followed in copies._all.values():
        await followed.informer._list()
    return client.selections


async def test_agent_follows_its_own_node_alone():
    asked = await follow(pods_of_node="vm1", only_node="vm1")

    assert asked[NODES] == "metadata.name=vm1"
    assert asked[PODS] == "spec.nodeName=vm1"
    assert asked[STORAGE_CLASSES] == ""


async def test_storage_node_follows_all_nodes():
    asked = await follow(pods_of_node="vm1")

    assert asked[NODES] == ""


async def test_kind_that_is_lent_is_listed_once_and_run_by_its_borrower():
    client = Asked()
    copies = SharedCopies(client, pods_of_node="vm1", only_node="vm1")
    own = copies.lend(PODS, Pod, Selection(field_selector="spec.nodeName=vm1"))
    claims = copies.lend(CLAIMS, PersistentVolumeClaim)
    assert own is copies.pods
    assert claims is copies.claims

    running = asyncio.ensure_future(copies.run())
    while len(client.selections) < 3:
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait([running])

    assert set(client.selections) == {PERSISTENT_VOLUMES, STORAGE_CLASSES, NODES}
    assert not copies.is_synced


async def test_narrower_copy_is_its_own():
    copies = SharedCopies(Asked())

    own = copies.lend(PODS, Pod, Selection(field_selector="spec.nodeName=vm1"))

    assert own is not copies.pods
    assert copies.follow(PODS, Pod) is copies.pods


async def test_copy_is_not_synced_for_others_while_its_borrower_goes_by_what_it_remembers():
    copies = SharedCopies(Asked())
    told = []
    claims = copies.lend(CLAIMS, PersistentVolumeClaim)
    claims.listen(lambda key, old, new: told.append((key, old, new)))
    remembered = PersistentVolumeClaim(ObjectMeta(name="data", namespace="default"))
    claims.informer.seed({("default", "data"): remembered})
    for followed in copies._all.values():
        if followed is not claims:
            await followed.informer._list()

    assert claims.informer.synced.is_set()
    assert copies.claims.get("default", "data") is remembered
    assert not copies.is_synced

    await claims.informer._list()

    assert copies.is_synced
    assert told == [(("default", "data"), remembered, None)]
