"""The permissions in the status of nodes: given and taken in the version that was judged."""

import asyncio
import json
from dataclasses import replace

import pytest

from tests.simulation.virtual_time import run_virtually
from tests.unit.control.controllers import start_server
from volagent.client.contract import FENCINGS, NODES, VOLUME_ATTACHMENTS
from volagent.control.attach.decide import Standing
from volagent.control.attach.nodes import AttachedLists
from volagent.objects.attachments import OUT_OF_SERVICE, AttachmentSource
from volagent.objects.fencing import WITHHELD, fencing_name

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
        client, standing = await a_cluster(attached=["disk"], in_use=["disk"])
        assert await AttachedLists(client).remove("disk", standing) is False
        assert await listed(client) == ["disk"]

    run_virtually(story())


def test_node_that_begins_to_use_the_disk_meanwhile_keeps_it():
    async def story():
        client, standing = await a_cluster(attached=["disk"])
        meddler = Meddler(client, {"volumesInUse": ["disk"]})
        assert await AttachedLists(meddler).remove("disk", standing) is False
        assert await listed(client) == ["disk"]

    run_virtually(story())


def test_other_changes_of_the_node_do_not_keep_the_disk():
    async def story():
        client, standing = await a_cluster(attached=["disk"])
        meddler = Meddler(client, {"volumesInUse": ["a"]}, {"volumesInUse": ["b"]})
        assert await AttachedLists(meddler).remove("disk", standing) is True
        assert await listed(client) == []

    run_virtually(story())


def test_node_that_has_not_told_what_it_uses_keeps_everything():
    async def story():
        client, standing = await a_cluster(attached=["disk"], boot="")
        lists = AttachedLists(client)
        assert await lists.remove("disk", standing) is False
        assert await lists.remove("disk", replace(standing, node="missing")) is False
        taint = {"key": OUT_OF_SERVICE, "effect": "NoExecute"}
        await client.patch(NODES, "n", {"spec": {"taints": [taint]}})
        assert await lists.remove("disk", standing) is True
        assert await listed(client) == []

    run_virtually(story())


async def fence(client, uid, *, seal="7", phase="Proven", name=""):
    spec = {
        "attachment": {"name": "va", "uid": uid}, "volume": "disk", "nodeName": "n",
        "method": "Storage", "executor": "m", "seal": seal,
    }  # fmt: skip
    name = name or fencing_name(uid)
    await client.create(FENCINGS, {"metadata": {"name": name}, "spec": spec})
    change = {"status": {"phase": phase, "message": "its key is gone"}}
    await client.patch(FENCINGS, name, change, subresource="status")


async def withhold(client, **disks):
    change = {"metadata": {"annotations": {WITHHELD: json.dumps(disks)}}}
    await client.patch(NODES, "n", change)


def test_fenced_disk_is_taken_from_a_node_that_says_that_it_uses_it():
    async def story():
        client, standing = await a_cluster(attached=["other"], in_use=["disk"])
        await fence(client, standing.uid)
        await withhold(client, disk="7")
        lists = AttachedLists(client)
        assert await lists.remove("disk", standing) is True
        assert await lists.remove("disk", standing) is True  # whoever goes on after a death
        assert await listed(client) == ["other"]

    run_virtually(story())


@pytest.mark.parametrize(
    ("fenced", "withheld"),
    [
        ({"phase": "Pending"}, {"disk": "7"}),
        ({"phase": "Impossible"}, {"disk": "7"}),
        ({"seal": "6"}, {"disk": "7"}),
        ({}, {"elsewhere": "7"}),
        ({"seal": ""}, {}),
    ],
    ids=str,
)
def test_fencing_is_no_proof_unless_permission_was_withheld_ever_since(fenced, withheld):
    async def story():
        client, standing = await a_cluster(in_use=["disk"])
        await fence(client, standing.uid, **fenced)
        await withhold(client, **withheld)
        assert await AttachedLists(client).remove("disk", standing) is False

    run_virtually(story())


def test_fencing_is_no_proof_while_the_node_has_permission():
    async def story():
        client, standing = await a_cluster(attached=["disk"], in_use=["disk"])
        await fence(client, standing.uid)
        await withhold(client, disk="7")
        assert await AttachedLists(client).remove("disk", standing) is False
        assert await listed(client) == ["disk"]

    run_virtually(story())


def test_fencing_of_another_attachment_is_no_proof():
    async def story():
        client, standing = await a_cluster(in_use=["disk"])
        await fence(client, "another")
        await fence(client, "forged", name=fencing_name(standing.uid))
        await withhold(client, disk="7")
        assert await AttachedLists(client).remove("disk", standing) is False

    run_virtually(story())


@pytest.mark.parametrize("phase", ["Pending", "Proven", "Impossible"])
def test_disk_is_not_named_while_its_node_is_being_fenced(phase):
    async def story():
        client, standing = await a_cluster()
        await fence(client, standing.uid, phase=phase)
        assert await AttachedLists(client).add("disk", standing) is False

    run_virtually(story())


def test_disk_is_not_named_while_its_node_is_lost():
    async def story():
        client, standing = await a_cluster()
        await set_status(client, conditions=[{"type": "Ready", "status": "Unknown"}])
        assert await AttachedLists(client).add("disk", standing) is False

    run_virtually(story())


def test_permission_ends_what_withheld_it():
    async def story():
        client, standing = await a_cluster()
        await withhold(client, disk="7", other="8")
        assert await AttachedLists(client).add("disk", standing) is True
        node = await client.get(NODES, "n")
        assert json.loads(node["metadata"]["annotations"][WITHHELD]) == {"other": "8"}

    run_virtually(story())


def test_permission_that_is_given_while_the_disk_is_taken_is_not_written():
    """Of the two one must see the other's write, whichever comes first."""

    async def story():
        client, standing = await a_cluster(in_use=["disk"])
        await withhold(client, disk="7")

        class FencedMeanwhile:
            def __getattr__(self, name):
                return getattr(client, name)

            async def patch(self, *arguments, **options):
                await fence(client, standing.uid)
                assert await AttachedLists(client).remove("disk", standing) is True
                return await client.patch(*arguments, **options)

        assert await AttachedLists(FencedMeanwhile()).add("disk", standing) is False
        assert await listed(client) == []

    run_virtually(story())
