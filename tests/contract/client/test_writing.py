"""Create, update and patch, as every client gives them."""

import asyncio

import pytest

from tests.contract.client.documents import config_map, pod, volume, with_meta
from volagent.client.contract import (
    CONFIG_MAPS,
    EVENTS,
    PERSISTENT_VOLUMES,
    PODS,
    AlreadyExists,
    ApiError,
    BadRequest,
    Conflict,
    Invalid,
    NotFound,
)

JSON_PATCH = "application/json-patch+json"


async def test_create_stamps_identity_and_time(client):
    created = await client.create(CONFIG_MAPS, config_map("a", k="v"), "default")

    metadata = created["metadata"]
    assert metadata["namespace"] == "default"
    assert len(metadata["uid"]) == 36
    assert metadata["creationTimestamp"].endswith("Z")
    assert int(metadata["resourceVersion"]) > 0
    assert await client.get(CONFIG_MAPS, "a", "default") == created


async def test_create_keeps_fields_that_nobody_knows(client):
    document = volume("pv")
    document["spec"]["someFutureField"] = {"deep": [1, {"x": None}]}

    await client.create(PERSISTENT_VOLUMES, document)

    stored = await client.get(PERSISTENT_VOLUMES, "pv")
    assert stored["spec"]["someFutureField"]["deep"][0] == 1


async def test_create_does_not_change_what_it_was_given(client):
    document = pod("a")
    before = repr(document)

    await client.create(PODS, document, "default")

    assert repr(document) == before


async def test_create_makes_up_a_name_when_only_its_beginning_is_given(client):
    document = config_map("")
    document["metadata"] = {"generateName": "gen-"}

    names = {
        (await client.create(CONFIG_MAPS, document, "default"))["metadata"]["name"]
        for _ in range(5)
    }

    assert len(names) == 5
    assert all(name.startswith("gen-") and len(name) == 9 for name in names)


async def test_create_is_refused_when_the_name_is_taken(client):
    await client.create(CONFIG_MAPS, config_map("a"), "default")

    with pytest.raises(AlreadyExists, match='configmaps "a" already exists') as refused:
        await client.create(CONFIG_MAPS, config_map("a"), "default")
    assert refused.value.status["details"]["name"] == "a"


async def test_create_is_refused_when_the_namespace_does_not_exist(client):
    with pytest.raises(NotFound, match='namespaces "nowhere" not found'):
        await client.create(CONFIG_MAPS, config_map("a"), "nowhere")


async def test_create_is_refused_when_the_document_names_another_namespace(client):
    with pytest.raises(BadRequest, match="does not match the namespace"):
        await client.create(CONFIG_MAPS, with_meta(config_map("a"), namespace="x"), "default")


async def test_create_is_refused_when_the_document_is_of_another_kind(client):
    with pytest.raises(BadRequest):
        await client.create(CONFIG_MAPS, pod("a"), "default")


async def test_create_is_refused_when_a_resource_version_is_given(client):
    with pytest.raises(BadRequest, match="resourceVersion should not be set"):
        await client.create(CONFIG_MAPS, with_meta(config_map("a"), resourceVersion="1"), "default")


@pytest.mark.parametrize("name", ["", "a/b", "..", "Upper", "a" * 254])
async def test_create_is_refused_when_the_name_cannot_be_one(client, name):
    with pytest.raises(Invalid):
        await client.create(CONFIG_MAPS, config_map(name), "default")


async def test_create_ignores_the_status_it_is_given(client):
    created = await client.create(PODS, {**pod("a"), "status": {"phase": "Failed"}}, "default")

    assert created["status"]["phase"] == "Pending"


async def test_pod_is_placed_on_the_only_node_when_it_names_none(client):
    created = await client.create(PODS, pod("a"), "default")

    assert created["spec"]["nodeName"] == "vm-1"
    conditions = {c["type"]: c["status"] for c in created["status"]["conditions"]}
    assert conditions["PodScheduled"] == "True"


async def test_pod_stays_unplaced_and_says_why_when_its_selector_does_not_fit(client):
    created = await client.create(PODS, pod("a", nodeSelector={"disk": "fast"}), "default")

    assert "nodeName" not in created["spec"]
    (condition,) = created["status"]["conditions"]
    assert (condition["status"], condition["reason"]) == ("False", "Unschedulable")


async def test_pod_keeps_the_node_it_names(client):
    created = await client.create(PODS, pod("a", nodeName="vm-7"), "default")

    assert created["spec"]["nodeName"] == "vm-7"


async def test_dry_run_answers_like_the_real_thing_and_stores_nothing(client):
    created = await client.create(CONFIG_MAPS, config_map("a"), "default", dry_run=True)
    assert created["metadata"]["uid"]
    with pytest.raises(NotFound):
        await client.get(CONFIG_MAPS, "a", "default")

    real = await client.create(CONFIG_MAPS, config_map("a", k="1"), "default")
    with pytest.raises(AlreadyExists):
        await client.create(CONFIG_MAPS, config_map("a"), "default", dry_run=True)
    changed = await client.update(CONFIG_MAPS, config_map("a", k="2"), "default", dry_run=True)
    assert changed["data"] == {"k": "2"}
    await client.patch(CONFIG_MAPS, "a", {"data": {"k": "3"}}, "default", dry_run=True)
    await client.delete(CONFIG_MAPS, "a", "default", dry_run=True)
    assert await client.get(CONFIG_MAPS, "a", "default") == real


async def test_update_replaces_and_keeps_identity(client):
    created = await client.create(CONFIG_MAPS, config_map("a", k="1"), "default")

    updated = await client.update(CONFIG_MAPS, config_map("a", other="2"), "default")

    assert updated["data"] == {"other": "2"}
    assert updated["metadata"]["uid"] == created["metadata"]["uid"]
    assert updated["metadata"]["creationTimestamp"] == created["metadata"]["creationTimestamp"]
    assert int(updated["metadata"]["resourceVersion"]) > int(created["metadata"]["resourceVersion"])


async def test_update_is_refused_when_the_resource_version_is_stale(client):
    created = await client.create(CONFIG_MAPS, config_map("a", k="1"), "default")
    await client.update(CONFIG_MAPS, {**created, "data": {"k": "2"}}, "default")

    with pytest.raises(Conflict, match="the object has been modified"):
        await client.update(CONFIG_MAPS, {**created, "data": {"k": "3"}}, "default")


async def test_update_is_refused_when_the_uid_is_another_ones(client):
    await client.create(CONFIG_MAPS, config_map("a"), "default")

    with pytest.raises(Conflict, match="UID in precondition"):
        await client.update(CONFIG_MAPS, with_meta(config_map("a", k="1"), uid="x"), "default")


async def test_update_without_effect_writes_nothing(client):
    created = await client.create(PODS, pod("a"), "default")

    assert await client.update(PODS, created, "default") == created
    listing = await client.list(PODS)
    assert listing.resource_version == created["metadata"]["resourceVersion"]


async def test_update_of_a_missing_object_is_refused_except_for_events(client):
    with pytest.raises(NotFound):
        await client.update(CONFIG_MAPS, config_map("a"), "default")

    event = {
        "metadata": {"name": "e"},
        "involvedObject": {"kind": "Pod", "namespace": "default", "name": "a"},
        "reason": "Tested",
        "type": "Normal",
    }
    assert (await client.update(EVENTS, event, "default"))["metadata"]["uid"]


async def test_update_leaves_the_status_and_the_status_door_leaves_the_rest(client):
    created = await client.create(PODS, pod("a"), "default")
    running = {
        **with_meta(created, labels={"new": "label"}),
        "status": {"phase": "Running"},
        "spec": {**created["spec"], "nodeName": "other"},
    }

    through_status = await client.update(PODS, running, "default", subresource="status")
    assert through_status["status"]["phase"] == "Running"
    assert "labels" not in through_status["metadata"]
    assert through_status["spec"] == created["spec"]

    labelled = with_meta(through_status, labels={"a": "b"})
    through_main = await client.update(PODS, {**labelled, "status": {"phase": "Failed"}}, "default")
    assert through_main["metadata"]["labels"] == {"a": "b"}
    assert through_main["status"]["phase"] == "Running"


async def test_status_door_is_closed_where_there_is_none(client):
    created = await client.create(CONFIG_MAPS, config_map("a"), "default")

    with pytest.raises(ApiError) as refused:
        await client.update(CONFIG_MAPS, created, "default", subresource="status")
    assert refused.value.code in (404, 405)


async def test_generation_counts_changes_of_the_spec_only(client):
    created = await client.create(PODS, pod("a"), "default")
    assert created["metadata"]["generation"] == 1

    await client.patch(PODS, "a", {"status": {"phase": "Running"}}, "default", subresource="status")
    labelled = await client.patch(PODS, "a", {"metadata": {"labels": {"a": "b"}}}, "default")
    assert labelled["metadata"]["generation"] == 1
    longer = await client.patch(PODS, "a", {"spec": {"activeDeadlineSeconds": 9}}, "default")
    assert longer["metadata"]["generation"] == 2


async def test_merge_patch_changes_a_part(client):
    await client.create(CONFIG_MAPS, config_map("a", k="1", other="2"), "default")

    patched = await client.patch(CONFIG_MAPS, "a", {"data": {"k": None, "new": "3"}}, "default")

    assert patched["data"] == {"other": "2", "new": "3"}


async def test_json_patch_changes_a_part(client):
    await client.create(CONFIG_MAPS, config_map("a", k="1"), "default")
    operations = [
        {"op": "test", "path": "/data/k", "value": "1"},
        {"op": "replace", "path": "/data/k", "value": "2"},
        {"op": "add", "path": "/metadata/labels", "value": {"x": "y"}},
    ]

    patched = await client.patch(CONFIG_MAPS, "a", operations, "default", content_type=JSON_PATCH)

    assert patched["data"] == {"k": "2"}
    assert patched["metadata"]["labels"] == {"x": "y"}


async def test_json_patch_does_nothing_when_one_operation_fails(client):
    created = await client.create(CONFIG_MAPS, config_map("a", k="1"), "default")
    operations = [
        {"op": "replace", "path": "/data/k", "value": "2"},
        {"op": "test", "path": "/data/k", "value": "1"},
    ]

    with pytest.raises(Invalid):
        await client.patch(CONFIG_MAPS, "a", operations, "default", content_type=JSON_PATCH)
    assert await client.get(CONFIG_MAPS, "a", "default") == created


async def test_patch_without_effect_writes_nothing(client):
    created = await client.create(CONFIG_MAPS, config_map("a", k="1"), "default")

    assert await client.patch(CONFIG_MAPS, "a", {"data": {"k": "1"}}, "default") == created


async def test_patch_is_refused_when_it_names_a_stale_resource_version(client):
    created = await client.create(CONFIG_MAPS, config_map("a", k="1"), "default")
    await client.patch(CONFIG_MAPS, "a", {"data": {"k": "2"}}, "default")
    stale = {
        "metadata": {"resourceVersion": created["metadata"]["resourceVersion"]},
        "data": {"k": "3"},
    }

    with pytest.raises(Conflict):
        await client.patch(CONFIG_MAPS, "a", stale, "default")


async def test_patch_is_refused_when_it_changes_the_uid(client):
    await client.create(CONFIG_MAPS, config_map("a"), "default")

    with pytest.raises(Invalid, match="field is immutable"):
        await client.patch(CONFIG_MAPS, "a", {"metadata": {"uid": "x"}}, "default")


async def test_patch_cannot_move_an_object(client):
    await client.create(CONFIG_MAPS, config_map("a"), "default")

    for change in ({"name": "b"}, {"namespace": "kube-system"}):
        with pytest.raises(ApiError):
            await client.patch(CONFIG_MAPS, "a", {"metadata": change}, "default")


async def test_patches_of_different_fields_all_take_effect_when_they_run_at_once(client):
    await client.create(CONFIG_MAPS, config_map("a"), "default")

    await asyncio.gather(
        *(client.patch(CONFIG_MAPS, "a", {"data": {f"k{n}": str(n)}}, "default") for n in range(30))
    )

    patched = await client.get(CONFIG_MAPS, "a", "default")
    assert patched["data"] == {f"k{n}": str(n) for n in range(30)}


async def test_unknown_object_is_not_found_whatever_the_verb(client):
    for attempt in (
        client.get(CONFIG_MAPS, "nothing", "default"),
        client.patch(CONFIG_MAPS, "nothing", {"data": {}}, "default"),
        client.delete(CONFIG_MAPS, "nothing", "default"),
    ):
        with pytest.raises(NotFound, match='configmaps "nothing" not found'):
            await attempt
