"""The permissions in the status of nodes: given and taken in the version that was judged."""

import asyncio

import pytest

from tests.simulation.virtual_time import run_virtually
from tests.unit.control.controllers import start_server
from volagent.client.contract import NODES, VOLUME_ATTACHMENTS
from volagent.control.attach.decide import Standing
from volagent.control.attach.nodes import AttachedLists
from volagent.objects.attachments import OUT_OF_SERVICE, AttachmentSource

SOURCE = {"persistentVolumeName": "pv"}


class Meddler:
    """Somebody else writes the Node after it was read, as often as told."""

    def __init__(self, client, *changes):
        self._client = client
        self._changes = list(changes)

    def __getattr__(self, name):
        return getattr(self._client, name)

    async def get(self, resource, name, namespace=""):
        answer = await self._client.get(resource, name, namespace)
        if resource is NODES and self._changes:
            await set_status(self._client, **self._changes.pop(0))
        return answer


async def set_status(client, **status):
    await client.patch(NODES, "n", {"status": status}, subresource="status")


async def a_cluster(*, attached=(), in_use=(), boot="b"):
    client = await start_server()
    await client.create(NODES, {"metadata": {"name": "n"}})
    await set_status(
        client, volumesAttached=[{"name": name, "devicePath": ""} for name in attached],
        volumesInUse=[*in_use], nodeInfo={"bootID": boot},
    )  # fmt: skip
    made = await client.create(
        VOLUME_ATTACHMENTS,
        {"metadata": {"name": "va", "finalizers": ["x.test/keep"]},
         "spec": {"attacher": "volagent.dev", "nodeName": "n", "source": SOURCE}},
    )  # fmt: skip
    await client.patch(
        VOLUME_ATTACHMENTS, "va", {"status": {"attached": True}}, subresource="status"
    )
    standing = Standing(
        "n", "va", made["metadata"]["uid"], AttachmentSource(), exclusive=True, attached=True,
        going=False, told=False, in_use=False, proof="",
    )  # fmt: skip
    return client, standing


async def listed(client):
    status = (await client.get(NODES, "n"))["status"]
    return [each["name"] for each in status.get("volumesAttached") or ()]


def test_disk_is_named_once():
    async def story():
        client, standing = await a_cluster(attached=["other"])
        lists = AttachedLists(client)
        assert await asyncio.gather(*(lists.add("disk", standing) for _ in range(5))) == [True] * 5
        assert await listed(client) == ["other", "disk"]

    run_virtually(story())


def test_disks_named_at_the_same_time_are_all_there():
    async def story():
        client, standing = await a_cluster()
        lists = AttachedLists(client)
        await asyncio.gather(*(lists.add(f"disk{n}", standing) for n in range(20)))
        assert sorted(await listed(client)) == sorted(f"disk{n}" for n in range(20))

    run_virtually(story())


@pytest.mark.parametrize("undone", ["deleted", "detached", "replaced"])
def test_disk_is_not_named_when_its_attachment_is_going(undone):
    async def story():
        client, standing = await a_cluster()
        if undone == "deleted":
            await client.delete(VOLUME_ATTACHMENTS, "va")
        elif undone == "detached":
            change = {"status": {"attached": False}}
            await client.patch(VOLUME_ATTACHMENTS, "va", change, subresource="status")
        else:
            change = {"metadata": {"finalizers": None}}
            await client.patch(VOLUME_ATTACHMENTS, "va", change)
            await client.delete(VOLUME_ATTACHMENTS, "va")
            spec = {"attacher": "volagent.dev", "nodeName": "n", "source": SOURCE}
            await client.create(VOLUME_ATTACHMENTS, {"metadata": {"name": "va"}, "spec": spec})
        assert await AttachedLists(client).add("disk", standing) is False
        assert await listed(client) == []

    run_virtually(story())


def test_disk_stays_named_while_the_node_uses_it():
    async def story():
        client, _ = await a_cluster(attached=["disk"], in_use=["disk"])
        assert await AttachedLists(client).remove("n", "disk") is False
        assert await listed(client) == ["disk"]

    run_virtually(story())


def test_node_that_begins_to_use_the_disk_meanwhile_keeps_it():
    async def story():
        client, _ = await a_cluster(attached=["disk"])
        meddler = Meddler(client, {"volumesInUse": ["disk"]})
        assert await AttachedLists(meddler).remove("n", "disk") is False
        assert await listed(client) == ["disk"]

    run_virtually(story())


def test_other_changes_of_the_node_do_not_keep_the_disk():
    async def story():
        client, _ = await a_cluster(attached=["disk"])
        meddler = Meddler(client, {"volumesInUse": ["a"]}, {"volumesInUse": ["b"]})
        assert await AttachedLists(meddler).remove("n", "disk") is True
        assert await listed(client) == []

    run_virtually(story())


def test_node_that_has_not_told_what_it_uses_keeps_everything():
    async def story():
        client, _ = await a_cluster(attached=["disk"], boot="")
        lists = AttachedLists(client)
        assert await lists.remove("n", "disk") is False
        assert await lists.remove("missing", "disk") is False
        taint = {"key": OUT_OF_SERVICE, "effect": "NoExecute"}
        await client.patch(NODES, "n", {"spec": {"taints": [taint]}})
        assert await lists.remove("n", "disk") is True
        assert await listed(client) == []

    run_virtually(story())
