"""`pods/redeclare`: a pod of a lost node makes way for its successor in one write."""

import pytest

from tests.contract.client.documents import pod
from volagent.client.contract import PODS, Conflict, NotFound, Selection
from volagent.objects.annotations import PLACED_ON, SUCCESSOR_OF

ELSEWHERE = {"nodeSelector": {"disk": "ssd"}}
"""Not on the one node that pods are assigned to when they are created."""


async def a_placed_pod(client, node="vm-7", **metadata):
    document = pod("a", **ELSEWHERE)
    document["metadata"] |= metadata
    await client.create(PODS, document, "default")
    await client.bind_pod("a", "default", node)
    change = {"status": {"phase": "Running", "hostIP": "10.0.0.7"}}
    return await client.patch(PODS, "a", change, "default", subresource="status")


async def test_successor_is_the_same_manifest_without_what_became_of_it(client):
    old = await a_placed_pod(client, labels={"app": "web"}, annotations={"a": "b"})
    new = await client.redeclare_pod("a", "default", uid=old["metadata"]["uid"])
    assert new == await client.get(PODS, "a", "default")
    assert new["metadata"]["uid"] != old["metadata"]["uid"]
    assert new["metadata"]["labels"] == {"app": "web"}
    assert new["metadata"]["annotations"] == {"a": "b", SUCCESSOR_OF: old["metadata"]["uid"]}
    assert new["metadata"]["generation"] == 1
    assert new["status"] == {"phase": "Pending"}
    wanted = {name: value for name, value in old["spec"].items() if name != "nodeName"}
    assert new["spec"] == wanted
    await client.bind_pod("a", "default", "vm-8", uid=new["metadata"]["uid"])


async def test_watchers_see_the_old_pod_go_and_the_new_one_come(client):
    old = await a_placed_pod(client)
    version = old["metadata"]["resourceVersion"]
    new = await client.redeclare_pod("a", "default", uid=old["metadata"]["uid"])
    seen = {}
    for selector in ("", "spec.nodeName=vm-7", "spec.nodeName="):
        selection = Selection(field_selector=selector)
        events = client.watch(PODS, selection, resource_version=version)
        found = seen[selector] = []
        async for batch in events:
            found += [
                (each.type, each.object["metadata"]["uid"], each.object["metadata"])
                for each in batch
            ]
            break
        await events.aclose()
    gone = ("DELETED", old["metadata"]["uid"])
    come = ("ADDED", new["metadata"]["uid"])
    assert [each[:2] for each in seen[""]] == [gone, come]
    assert [each[:2] for each in seen["spec.nodeName=vm-7"]] == [gone]
    assert [each[:2] for each in seen["spec.nodeName="]] == [come]
    # Whoever breaks off after the first of the two is told both again.
    (_, _, departed), (_, _, arrived) = seen[""]
    assert int(departed["resourceVersion"]) < int(arrived["resourceVersion"])


async def test_changes_of_the_successor_are_ordinary(client):
    old = await a_placed_pod(client)
    new = await client.redeclare_pod("a", "default", uid=old["metadata"]["uid"])
    version = new["metadata"]["resourceVersion"]
    await client.patch(PODS, "a", {"metadata": {"labels": {"x": "y"}}}, "default")
    events = client.watch(PODS, resource_version=version)
    async for batch in events:
        assert [each.type for each in batch] == ["MODIFIED"]
        break
    await events.aclose()


async def test_pod_that_names_its_node_is_not_declared_again(client):
    annotations = {PLACED_ON: "vm-1"}
    document = pod("a", nodeName="vm-1")
    document["metadata"]["annotations"] = annotations  # copied from another pod
    pinned = await client.create(PODS, document, "default")
    with pytest.raises(Conflict, match="no scheduler has chosen"):
        await client.redeclare_pod("a", "default", uid=pinned["metadata"]["uid"])


async def test_pod_that_must_not_go_is_not_declared_again(client):
    kept = await a_placed_pod(client, finalizers=["example.com/keep"])
    with pytest.raises(Conflict, match=r"finalizers \(example.com/keep\)"):
        await client.redeclare_pod("a", "default", uid=kept["metadata"]["uid"])
    await client.delete(PODS, "a", "default")
    with pytest.raises(Conflict, match="being deleted"):
        await client.redeclare_pod("a", "default", uid=kept["metadata"]["uid"])


async def test_only_that_very_pod_is_declared_again(client):
    old = await a_placed_pod(client)
    await client.redeclare_pod("a", "default", uid=old["metadata"]["uid"])
    with pytest.raises(Conflict):
        await client.redeclare_pod("a", "default", uid=old["metadata"]["uid"])
    with pytest.raises(NotFound):
        await client.redeclare_pod("b", "default", uid="u")
