"""What is in use stays, whatever is asked; what is not goes at once."""

import pytest

from tests.contract.client.documents import claim, volume
from tests.simulation.virtual_time import run_virtually
from tests.unit.control.controllers import running, settle, start_server
from volagent.client.contract import CLAIMS, PERSISTENT_VOLUMES, PODS, NotFound
from volagent.control.bind.run import Binder
from volagent.control.protect.run import ProtectionController


def a_pod(name="web", node="vm1", **volume_source):
    source = volume_source or {"persistentVolumeClaim": {"claimName": "c"}}
    return {
        "metadata": {"name": name},
        "spec": {
            "nodeName": node,
            "containers": [
                {"name": "m", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}
            ],
            "volumes": [{"name": "v", **source}],
        },
    }


def controllers(client):
    return (
        lambda copies, events: ProtectionController(copies, client),
        lambda copies, events: Binder(copies, client, events),
    )


async def is_there(client, resource, name, namespace="default"):
    try:
        return await client.get(resource, name, namespace)
    except NotFound:
        return None


async def bound_pair(client):
    await client.create(CLAIMS, claim("c", volumeName="pv"), "default")
    await client.create(PERSISTENT_VOLUMES, volume("pv"))
    await settle()


def test_claim_stays_while_a_pod_uses_it_and_goes_with_it():
    async def story():
        client = await start_server()
        async with running(client, *controllers(client)):
            await bound_pair(client)
            await client.create(PODS, a_pod(), "default")
            await client.delete(CLAIMS, "c", "default")
            await settle()
            assert "deletionTimestamp" in (await is_there(client, CLAIMS, "c"))["metadata"]
            await client.patch(PODS, "web", {"status": {"phase": "Succeeded"}}, "default",
                               subresource="status")  # fmt: skip
            await settle()
            assert await is_there(client, CLAIMS, "c"), "a finished pod still holds it"
            await client.delete(PODS, "web", "default", grace_period_seconds=0)
            await settle()
            assert await is_there(client, CLAIMS, "c") is None
            assert (await client.get(PERSISTENT_VOLUMES, "pv"))["status"]["phase"] == "Released"

    run_virtually(story())


@pytest.mark.parametrize(
    "pod", [a_pod(node=""), a_pod(persistentVolumeClaim={"claimName": "another"})]
)
def test_claim_goes_at_once_when_no_pod_with_a_node_uses_it(pod):
    async def story():
        client = await start_server()
        async with running(client, *controllers(client)):
            await bound_pair(client)
            await client.create(PODS, pod, "default")
            await client.delete(CLAIMS, "c", "default")
            await settle()
            assert await is_there(client, CLAIMS, "c") is None

    run_virtually(story())


def test_claim_of_an_ephemeral_volume_is_held_by_its_pod():
    async def story():
        client = await start_server()
        template = {"spec": claim("x")["spec"]}
        async with running(client, *controllers(client)):
            await client.create(CLAIMS, claim("web-v"), "default")
            await client.create(PODS, a_pod(ephemeral={"volumeClaimTemplate": template}), "default")
            await client.delete(CLAIMS, "web-v", "default")
            await settle()
            assert await is_there(client, CLAIMS, "web-v")

    run_virtually(story())


def test_volume_stays_while_its_claim_does():
    async def story():
        client = await start_server()
        async with running(client, *controllers(client)):
            await bound_pair(client)
            await client.delete(PERSISTENT_VOLUMES, "pv")
            await settle()
            assert (await is_there(client, PERSISTENT_VOLUMES, "pv", ""))["status"]["phase"] == (
                "Bound"
            )
            await client.delete(CLAIMS, "c", "default")
            await settle()
            assert await is_there(client, PERSISTENT_VOLUMES, "pv", "") is None

    run_virtually(story())


def test_protection_that_somebody_took_off_is_put_back():
    async def story():
        client = await start_server()
        async with running(client, *controllers(client)):
            await bound_pair(client)
            for resource, name, namespace in (
                (CLAIMS, "c", "default"), (PERSISTENT_VOLUMES, "pv", ""),
            ):  # fmt: skip
                bare = {"metadata": {"finalizers": None}}
                await client.patch(resource, name, bare, namespace)
                await settle()
                assert (await client.get(resource, name, namespace))["metadata"]["finalizers"]

    run_virtually(story())
