"""Delete, grace, finalizers and the end of namespaces, as every client gives them."""

from contextlib import aclosing
from datetime import UTC, datetime, timedelta

import pytest

from tests.contract.client.documents import config_map, namespace, pod, volume, with_meta
from volagent.aio.clock import parse_time
from volagent.client.contract import (
    CONFIG_MAPS,
    NAMESPACES,
    PERSISTENT_VOLUMES,
    PODS,
    SERVICE_ACCOUNTS,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    Selection,
)


async def is_gone(client, resource, name, space="default"):
    try:
        await client.get(resource, name, space)
    except NotFound:
        return True
    return False


async def wait_gone(client, resource, name):
    """Wait for a deletion by watching; returns at once when there is nothing."""
    selection = Selection(field_selector=f"metadata.name={name}")
    listing = await client.list(resource, selection)
    if not listing.items:
        return
    async with aclosing(
        client.watch(resource, selection, resource_version=listing.resource_version)
    ) as changes:
        async for batch in changes:
            if any(event.type == "DELETED" for event in batch):
                return


async def test_delete_answers_with_a_status_for_a_config_map(client):
    created = await client.create(CONFIG_MAPS, config_map("a"), "default")

    answer = await client.delete(CONFIG_MAPS, "a", "default")

    assert (answer["kind"], answer["status"]) == ("Status", "Success")
    assert answer["details"] == {
        "name": "a", "kind": "configmaps", "uid": created["metadata"]["uid"],
    }  # fmt: skip
    assert await is_gone(client, CONFIG_MAPS, "a")


async def test_delete_answers_with_the_object_for_a_volume(client):
    created = await client.create(PERSISTENT_VOLUMES, volume("pv"))

    assert (await client.delete(PERSISTENT_VOLUMES, "pv"))["metadata"]["uid"] == created[
        "metadata"
    ]["uid"]


@pytest.mark.parametrize(
    ("given_s", "own_s", "expected_s"), [(None, None, 30), (None, 7, 7), (5, 60, 5)]
)
async def test_pod_ends_with_grace(client, given_s, own_s, expected_s):
    spec = {} if own_s is None else {"terminationGracePeriodSeconds": own_s}
    await client.create(PODS, pod("a", **spec), "default")

    answer = await client.delete(PODS, "a", "default", grace_period_seconds=given_s)

    metadata = (await client.get(PODS, "a", "default"))["metadata"]
    assert answer["metadata"] == metadata
    assert metadata["deletionGracePeriodSeconds"] == expected_s
    due = parse_time(metadata["deletionTimestamp"])
    assert abs(due - datetime.now(UTC) - timedelta(seconds=expected_s)) < timedelta(seconds=5)


async def test_shorter_grace_wins_and_longer_is_ignored(client):
    await client.create(PODS, pod("a"), "default")
    await client.delete(PODS, "a", "default", grace_period_seconds=20)

    longer = await client.delete(PODS, "a", "default", grace_period_seconds=60)
    assert longer["metadata"]["deletionGracePeriodSeconds"] == 20
    shorter = await client.delete(PODS, "a", "default", grace_period_seconds=5)
    assert shorter["metadata"]["deletionGracePeriodSeconds"] == 5
    moved = parse_time(longer["metadata"]["deletionTimestamp"]) - parse_time(
        shorter["metadata"]["deletionTimestamp"]
    )
    assert moved == timedelta(seconds=15)
    await client.delete(PODS, "a", "default", grace_period_seconds=0)
    assert await is_gone(client, PODS, "a")


async def test_pod_goes_at_once_when_nobody_runs_it(client):
    await client.create(PODS, pod("unplaced", nodeSelector={"no": "where"}), "default")
    await client.delete(PODS, "unplaced", "default")
    assert await is_gone(client, PODS, "unplaced")

    await client.create(PODS, pod("done"), "default")
    await client.patch(
        PODS, "done", {"status": {"phase": "Succeeded"}}, "default", subresource="status"
    )
    await client.delete(PODS, "done", "default")
    assert await is_gone(client, PODS, "done")


async def test_delete_is_refused_when_its_precondition_does_not_hold(client):
    created = await client.create(CONFIG_MAPS, config_map("a"), "default")

    with pytest.raises(Conflict, match="UID in precondition"):
        await client.delete(CONFIG_MAPS, "a", "default", uid="another")
    with pytest.raises(Conflict, match="ResourceVersion in precondition"):
        await client.delete(CONFIG_MAPS, "a", "default", resource_version="1")
    await client.delete(
        CONFIG_MAPS,
        "a",
        "default",
        uid=created["metadata"]["uid"],
        resource_version=created["metadata"]["resourceVersion"],
    )
    assert await is_gone(client, CONFIG_MAPS, "a")


async def test_finalizer_holds_an_object_until_it_is_taken_away(client):
    document = with_meta(config_map("a"), finalizers=["example.com/hold"])
    await client.create(CONFIG_MAPS, document, "default")

    answer = await client.delete(CONFIG_MAPS, "a", "default")
    assert answer["kind"] == "ConfigMap"
    assert answer["metadata"]["deletionTimestamp"]
    again = await client.delete(CONFIG_MAPS, "a", "default")
    assert again["metadata"]["resourceVersion"] == answer["metadata"]["resourceVersion"]

    last = await client.patch(CONFIG_MAPS, "a", {"metadata": {"finalizers": None}}, "default")
    assert "finalizers" not in last["metadata"]
    assert await is_gone(client, CONFIG_MAPS, "a")


async def test_finalizer_cannot_be_added_to_what_is_going(client):
    document = with_meta(config_map("a"), finalizers=["example.com/hold"])
    await client.create(CONFIG_MAPS, document, "default")
    await client.delete(CONFIG_MAPS, "a", "default")

    more = {"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}}
    with pytest.raises(Invalid, match="no new finalizers can be added"):
        await client.patch(CONFIG_MAPS, "a", more, "default")


async def test_deletion_time_cannot_be_taken_back(client):
    await client.create(PODS, pod("a"), "default")
    going = await client.delete(PODS, "a", "default")

    kept = await client.patch(
        PODS, "a", {"metadata": {"deletionTimestamp": None, "labels": {"x": "y"}}}, "default"
    )

    assert kept["metadata"]["deletionTimestamp"] == going["metadata"]["deletionTimestamp"]


async def test_every_namespace_has_its_service_account(client):
    await client.create(NAMESPACES, namespace("new"))

    for name in ("default", "kube-system", "new"):
        assert (await client.get(SERVICE_ACCOUNTS, "default", name))["metadata"]["uid"]


async def test_namespace_ends_with_everything_in_it(client):
    await client.create(NAMESPACES, namespace("short"))
    await client.create(CONFIG_MAPS, config_map("a"), "short")
    await client.create(PODS, pod("p"), "short")

    answer = await client.delete(NAMESPACES, "short")
    assert answer["status"]["phase"] == "Terminating"
    with pytest.raises(Forbidden, match="because it is being terminated") as refused:
        await client.create(CONFIG_MAPS, config_map("b"), "short")
    assert refused.value.details["causes"][0]["reason"] == "NamespaceTerminating"

    # The node's part: it takes the pod down and lets it go.
    await client.delete(PODS, "p", "short", grace_period_seconds=0)
    await wait_gone(client, NAMESPACES, "short")
    assert await is_gone(client, CONFIG_MAPS, "a", "short")
    await client.create(NAMESPACES, namespace("short"))


async def test_permanent_namespaces_stay(client):
    for name in ("default", "kube-system"):
        with pytest.raises(Forbidden):
            await client.delete(NAMESPACES, name)
