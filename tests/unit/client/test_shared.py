"""What a process follows of each kind."""

from volagent.client.contract import NODES, PODS, STORAGE_CLASSES, Listing, Selection
from volagent.client.shared import SharedCopies


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
