"""Claims of generic ephemeral volumes come with their pods, and go with them."""

from tests.simulation.virtual_time import run_virtually
from tests.unit.control.controllers import running, settle, start_server
from volagent.client.contract import CLAIMS, EVENTS, PODS, NotFound
from volagent.control.ephemeral.run import EphemeralController

TEMPLATE = {
    "metadata": {"labels": {"app": "db"}},
    "spec": {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "fast",
        "resources": {"requests": {"storage": "1Gi"}},
    },
}


def a_pod(**spec):
    return {
        "metadata": {"name": "web"},
        "spec": {
            "containers": [
                {"name": "c", "image": "i", "volumeMounts": [{"name": "s", "mountPath": "/s"}]}
            ],
            "volumes": [{"name": "s", "ephemeral": {"volumeClaimTemplate": TEMPLATE}}],
            **spec,
        },
    }


def test_claim_is_made_for_the_pod_and_deleted_after_it():
    async def story():
        client = await start_server()
        async with running(
            client, lambda copies, events: EphemeralController(copies, client, events)
        ):
            pod = await client.create(PODS, a_pod(), "default")
            await settle()
            claim = await client.get(CLAIMS, "web-s", "default")
            assert claim["metadata"]["labels"] == {"app": "db"}
            (owner,) = claim["metadata"]["ownerReferences"]
            assert (owner["name"], owner["uid"]) == ("web", pod["metadata"]["uid"])
            assert claim["spec"]["storageClassName"] == "fast"
            await client.delete(PODS, "web", "default", grace_period_seconds=0)
            await settle()
            assert "deletionTimestamp" in (await client.get(CLAIMS, "web-s", "default"))["metadata"]

    run_virtually(story())


def test_claim_left_by_a_pod_that_went_unseen_is_deleted_at_the_next_start():
    async def story():
        client = await start_server()

        def make(copies, events):
            return EphemeralController(copies, client, events)

        await client.create(PODS, a_pod(), "default")
        async with running(client, make):
            await settle()
        await client.delete(PODS, "web", "default", grace_period_seconds=0)
        await client.create(PODS, a_pod(), "default")  # another life of the same name
        async with running(client, make):
            await settle()
            claim = await client.get(CLAIMS, "web-s", "default")
            assert "deletionTimestamp" in claim["metadata"]

    run_virtually(story())


def test_claim_of_somebody_else_is_left_alone_and_the_pod_told():
    async def story():
        client = await start_server()
        document = {"metadata": {"name": "web-s"}, "spec": TEMPLATE["spec"]}
        await client.create(CLAIMS, document, "default")
        async with running(
            client, lambda copies, events: EphemeralController(copies, client, events)
        ):
            await client.create(PODS, a_pod(), "default")
            await settle()
            claim = await client.get(CLAIMS, "web-s", "default")
            assert "ownerReferences" not in claim["metadata"]
            messages = [event["message"] for event in (await client.list(EVENTS)).items]
            assert any("was not created for pod" in message for message in messages)
            await client.delete(PODS, "web", "default", grace_period_seconds=0)
            await settle()
            assert "deletionTimestamp" not in (
                await client.get(CLAIMS, "web-s", "default")
            )["metadata"]  # fmt: skip

    run_virtually(story())


def test_claim_whose_template_breaks_a_rule_is_reported_on_the_pod():
    async def story():
        client = await start_server()
        bad = {"spec": {**TEMPLATE["spec"], "accessModes": ["Nonsense"]}}
        volumes = [{"name": "s", "ephemeral": {"volumeClaimTemplate": bad}}]
        async with running(
            client, lambda copies, events: EphemeralController(copies, client, events)
        ):
            await client.create(PODS, a_pod(volumes=volumes), "default")
            await settle()
            messages = [event["message"] for event in (await client.list(EVENTS)).items]
            assert any("create PVC web-s" in text and "Nonsense" in text for text in messages)
            try:
                await client.get(CLAIMS, "web-s", "default")
                raise AssertionError("a bad claim was made")
            except NotFound:
                pass

    run_virtually(story())
