"""The official Python client against our API."""

import asyncio
from typing import Any

import pytest

from tests.contract.kubernetes.conftest import TOKEN, Served
from tests.unit.http.world import make_pod

kubernetes = pytest.importorskip("kubernetes", reason="needs the kubernetes package: make setup")


def connect(served: Served) -> Any:
    configuration = kubernetes.client.Configuration()
    configuration.host = served.url
    configuration.ssl_ca_cert = served.ca_file
    configuration.api_key = {"authorization": f"Bearer {TOKEN}"}
    configuration.proxy = None
    return kubernetes.client.CoreV1Api(kubernetes.client.ApiClient(configuration))


async def test_pod_lives_its_life_when_driven_by_the_client(served: Served) -> None:
    def drive() -> None:
        api = connect(served)
        pod = make_pod(
            volumes=[{"name": "v", "emptyDir": {"medium": "Memory", "sizeLimit": "1024Mi"}}]
        )
        created = api.create_namespaced_pod("default", pod)
        assert created.metadata.creation_timestamp is not None
        assert created.spec.volumes[0].empty_dir.size_limit == "1Gi"
        assert [p.metadata.name for p in api.list_namespaced_pod("default").items] == ["web"]
        api.patch_namespaced_pod("web", "default", {"metadata": {"labels": {"a": "b"}}})
        api.patch_namespaced_pod_status("web", "default", {"status": {"phase": "Running"}})
        read = api.read_namespaced_pod("web", "default")
        assert (read.metadata.labels, read.status.phase) == ({"a": "b"}, "Running")
        read.metadata.labels = {"c": "d"}
        replaced = api.replace_namespaced_pod("web", "default", read)
        assert replaced.metadata.labels == {"c": "d"}
        api.delete_namespaced_pod("web", "default", grace_period_seconds=0)
        with pytest.raises(kubernetes.client.ApiException) as caught:
            api.read_namespaced_pod("web", "default")
        assert caught.value.status == 404

    await asyncio.to_thread(drive)


async def test_watch_yields_the_changes_when_things_happen(served: Served) -> None:
    def drive() -> list[tuple[str, str]]:
        api = connect(served)
        listing = api.list_namespaced_config_map("default")
        api.create_namespaced_config_map("default", {"metadata": {"name": "a"}, "data": {"k": "v"}})
        api.delete_namespaced_config_map("a", "default")
        watch = kubernetes.watch.Watch()
        return [
            (event["type"], event["object"].metadata.name)
            for event in watch.stream(
                api.list_namespaced_config_map,
                "default",
                resource_version=listing.metadata.resource_version,
                timeout_seconds=1,
            )
        ]

    assert await asyncio.to_thread(drive) == [("ADDED", "a"), ("DELETED", "a")]


async def test_secret_is_stored_as_data_when_given_as_text(served: Served) -> None:
    def drive() -> Any:
        api = connect(served)
        body = kubernetes.client.V1Secret(
            metadata=kubernetes.client.V1ObjectMeta(name="s"), string_data={"password": "hunter2"}
        )
        return api.create_namespaced_secret("default", body)

    secret = await asyncio.to_thread(drive)
    assert (secret.data, secret.type) == ({"password": "aHVudGVyMg=="}, "Opaque")


async def test_volume_and_claim_are_typed_when_created(served: Served) -> None:
    def drive() -> None:
        api = connect(served)
        volume = {
            "metadata": {"name": "pv"},
            "spec": {
                "capacity": {"storage": "1024Mi"},
                "accessModes": ["ReadWriteMany"],
                "nfs": {"server": "10.0.0.1", "path": "/x"},
            },
        }
        created = api.create_persistent_volume(volume)
        assert created.spec.persistent_volume_reclaim_policy == "Retain"
        assert created.spec.capacity == {"storage": "1Gi"}
        claim = {
            "metadata": {"name": "c"},
            "spec": {
                "accessModes": ["ReadWriteMany"],
                "volumeName": "pv",
                "resources": {"requests": {"storage": "1Gi"}},
            },
        }
        made = api.create_namespaced_persistent_volume_claim("default", claim)
        assert made.status.phase == "Pending"
        with pytest.raises(kubernetes.client.ApiException) as caught:
            api.create_persistent_volume({"metadata": {"name": "x"}, "spec": {}})
        assert caught.value.status == 422

    await asyncio.to_thread(drive)
