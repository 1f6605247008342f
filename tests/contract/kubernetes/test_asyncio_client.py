"""The official clients, with asyncio too: list, watch with resume and 410, patch, apply, delete."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.client.conftest import serve_in_process
from tests.contract.kubernetes.conftest import Served
from tests.contract.kubernetes.manifests import CLASS, VOLUME
from volagent.client.contract import CONFIG_MAPS, PERSISTENT_VOLUMES

kubernetes_asyncio = pytest.importorskip(
    "kubernetes_asyncio", reason="needs the kubernetes_asyncio package: make setup"
)
Json = dict[str, Any]


@pytest.fixture
async def connection(served: Served) -> AsyncIterator[Any]:
    configuration = kubernetes_asyncio.client.Configuration()
    await kubernetes_asyncio.config.load_kube_config(
        served.kubeconfig, client_configuration=configuration
    )
    async with kubernetes_asyncio.client.ApiClient(configuration) as connection:
        yield connection


@pytest.fixture
def core(connection: Any) -> Any:
    return kubernetes_asyncio.client.CoreV1Api(connection)


def config_map(name: str, **data: str) -> Json:
    return {"metadata": {"name": name}, "data": data}


async def test_objects_are_listed_in_pages(core: Any) -> None:
    for number in range(5):
        await core.create_namespaced_config_map("default", config_map(f"c{number}", a="1"))
    names, token = [], None
    while True:
        page = await core.list_namespaced_config_map("default", limit=2, _continue=token)
        names += [item.metadata.name for item in page.items]
        token = page.metadata._continue
        if not token:
            break
    assert names == [f"c{number}" for number in range(5)]


async def test_watch_goes_on_where_it_was_left(core: Any) -> None:
    listing = await core.list_namespaced_config_map("default")
    await core.create_namespaced_config_map("default", config_map("a", k="1"))
    seen = []
    async with kubernetes_asyncio.watch.Watch() as watch:
        async for event in watch.stream(
            core.list_namespaced_config_map, "default",
            resource_version=listing.metadata.resource_version,
        ):  # fmt: skip
            seen.append((event["type"], event["object"].metadata.name))
            left_at = event["object"].metadata.resource_version
            break
    await core.patch_namespaced_config_map("a", "default", {"data": {"k": "2"}})
    await core.delete_namespaced_config_map("a", "default")
    async with kubernetes_asyncio.watch.Watch() as watch:
        async for event in watch.stream(
            core.list_namespaced_config_map, "default", resource_version=left_at
        ):
            seen.append((event["type"], event["object"].metadata.name))
            if event["type"] == "DELETED":
                break
    assert seen == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]


@pytest.fixture
async def earlier_life(tmp_path: Path) -> str:
    """What happened before the server was started; the revision of its first write."""
    async with serve_in_process(tmp_path / "state") as client:
        made = [
            await client.create(CONFIG_MAPS, config_map(f"c{number}"), "default")
            for number in range(3)
        ]
    return str(made[0]["metadata"]["resourceVersion"])


async def test_watch_says_gone_when_its_revision_is_forgotten(earlier_life: str, core: Any) -> None:
    async with kubernetes_asyncio.watch.Watch() as watch:
        events = watch.stream(
            core.list_namespaced_config_map, "default", resource_version=earlier_life
        )
        with pytest.raises(kubernetes_asyncio.client.ApiException) as caught:
            await anext(events)
    assert caught.value.status == 410


async def test_object_is_changed_by_each_kind_of_patch(core: Any, served: Served) -> None:
    await core.create_persistent_volume(VOLUME)
    await core.patch_persistent_volume("pv1", {"metadata": {"labels": {"m": "1"}}})
    operations = [{"op": "add", "path": "/metadata/labels/j", "value": "2"}]
    await core.patch_persistent_volume("pv1", operations)
    stored = await served.client.get(PERSISTENT_VOLUMES, "pv1")
    assert stored["metadata"]["labels"] == {"a": "b", "c": "d", "m": "1", "j": "2"}


async def test_object_is_made_when_applied_on_the_server(connection: Any) -> None:
    api = kubernetes_asyncio.client.StorageV1Api(connection)
    applied = await api.patch_storage_class(
        "fast", CLASS, field_manager="test", force=True,
        _content_type="application/apply-patch+yaml",
    )  # fmt: skip
    assert applied.reclaim_policy == "Delete"
    (entry,) = applied.metadata.managed_fields
    assert (entry.manager, entry.operation) == ("test", "Apply")
    with pytest.raises(kubernetes_asyncio.client.ApiException) as caught:
        await api.patch_storage_class(
            "fast", {**CLASS, "allowVolumeExpansion": False}, field_manager="other",
            _content_type="application/apply-patch+yaml",
        )  # fmt: skip
    assert (caught.value.status, "FieldManagerConflict" in caught.value.body) == (409, True)


async def test_manager_must_be_named_when_applying(connection: Any) -> None:
    api = kubernetes_asyncio.client.StorageV1Api(connection)
    with pytest.raises(kubernetes_asyncio.client.ApiException) as caught:
        await api.patch_storage_class("fast", CLASS, _content_type="application/apply-patch+yaml")
    assert caught.value.status == 422
    assert "fieldManager: Required value: is required for apply patch" in caught.value.body


async def test_object_is_gone_when_deleted(core: Any) -> None:
    await core.create_namespaced_config_map("default", config_map("a"))
    await core.delete_namespaced_config_map("a", "default")
    with pytest.raises(kubernetes_asyncio.client.ApiException) as caught:
        await core.read_namespaced_config_map("a", "default")
    assert caught.value.status == 404


async def test_client_of_the_main_project_applies_and_finds_conflicts(
    served: Served, tmp_path: Path
) -> None:
    kubernetes = pytest.importorskip("kubernetes", reason="needs the kubernetes package")

    def drive() -> None:
        kubernetes.config.load_kube_config(served.kubeconfig)
        dynamic = kubernetes.dynamic.DynamicClient(kubernetes.client.ApiClient())
        classes = dynamic.resources.get(api_version="storage.k8s.io/v1", kind="StorageClass")
        made = classes.server_side_apply(body=CLASS, name="fast", field_manager="one")
        assert made.provisioner == "example.com/fast"
        changed = {**CLASS, "allowVolumeExpansion": False}
        with pytest.raises(kubernetes.client.ApiException) as caught:
            classes.server_side_apply(body=changed, name="fast", field_manager="two")
        assert caught.value.status == 409
        taken = classes.server_side_apply(
            body=changed, name="fast", field_manager="two", force_conflicts=True
        )
        assert taken.allowVolumeExpansion is False

    await asyncio.to_thread(drive)
