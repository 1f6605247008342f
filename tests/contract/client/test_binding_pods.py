"""`pods/binding`: a pod gets its node once, from whoever schedules."""

import pytest

from tests.contract.client.documents import pod
from volagent.client.contract import PODS, Conflict, NotFound

GATED = {"schedulingGates": [{"name": "example.com/wait"}]}
ELSEWHERE = {"nodeSelector": {"disk": "ssd"}}
"""Not on the one node that pods are assigned to when they are created."""


async def test_bound_pod_has_its_node_and_the_condition_in_one_write(client):
    created = await client.create(PODS, pod("a", **ELSEWHERE), "default")
    version = created["metadata"]["resourceVersion"]
    uid = created["metadata"]["uid"]
    await client.bind_pod("a", "default", "vm-7", uid=uid, resource_version=version)
    bound = await client.get(PODS, "a", "default")
    assert bound["spec"]["nodeName"] == "vm-7"
    assert bound["spec"]["nodeSelector"] == {"disk": "ssd"}
    (condition,) = bound["status"]["conditions"]
    assert (condition["type"], condition["status"]) == ("PodScheduled", "True")
    assert "reason" not in condition


async def test_pod_that_has_a_node_is_not_bound_again(client):
    await client.create(PODS, pod("a", nodeName="vm-1"), "default")
    with pytest.raises(Conflict, match='already assigned to node "vm-1"'):
        await client.bind_pod("a", "default", "vm-2")


async def test_pod_with_gates_is_not_bound(client):
    await client.create(PODS, pod("a", **GATED), "default")
    with pytest.raises(Conflict, match="schedulingGates"):
        await client.bind_pod("a", "default", "vm-2")


async def test_gates_may_be_taken_away_and_not_added(client):
    await client.create(PODS, pod("a", **GATED), "default")
    more = {"spec": {"schedulingGates": [*GATED["schedulingGates"], {"name": "example.com/b"}]}}
    with pytest.raises(Exception, match="only deletion is allowed"):
        await client.patch(PODS, "a", more, "default")
    await client.patch(PODS, "a", {"spec": {"schedulingGates": None}}, "default")
    await client.bind_pod("a", "default", "vm-2")


@pytest.mark.parametrize("precondition", [{"uid": "another"}, {"resource_version": "1"}])
async def test_another_object_than_the_one_meant_is_not_bound(client, precondition):
    await client.create(PODS, pod("a", **ELSEWHERE), "default")
    with pytest.raises(Conflict):
        await client.bind_pod("a", "default", "vm-2", **precondition)
    assert "nodeName" not in (await client.get(PODS, "a", "default"))["spec"]


async def test_missing_pod_cannot_be_bound(client):
    with pytest.raises(NotFound):
        await client.bind_pod("a", "default", "vm-2")


async def test_dry_run_of_a_binding_writes_nothing(client):
    await client.create(PODS, pod("a", **ELSEWHERE), "default")
    await client.bind_pod("a", "default", "vm-2", dry_run=True)
    assert "nodeName" not in (await client.get(PODS, "a", "default"))["spec"]
