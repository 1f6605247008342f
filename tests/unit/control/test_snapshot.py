"""Snapshots come, are told about, and go with what was made of them in the backend."""

import pytest

from tests.contract.client.documents import claim, volume
from tests.simulation.virtual_time import VirtualClock, run_virtually
from tests.unit.control.controllers import running, settle, start_server
from volagent.client.contract import (
    CLAIMS,
    EVENTS,
    PERSISTENT_VOLUMES,
    SNAPSHOT_CLASSES,
    SNAPSHOT_CONTENTS,
    SNAPSHOTS,
    NotFound,
)
from volagent.control.snapshot.run import SnapshotController
from volagent.drivers.contract import Done
from volagent.drivers.errors import Rejected, Uncertain
from volagent.drivers.provisioning.contract import SnapshotTaken

DRIVER = "image.volagent.dev"


class Copier:
    """A backend that can be told to fail."""

    name = DRIVER
    node = ""

    def __init__(self, *failures):
        self.failures = list(failures)
        self.copies = {}
        self.requests = []

    async def snapshot(self, request):
        self.requests.append(request)
        if self.failures:
            failure = self.failures.pop(0)
            if isinstance(failure, Uncertain):
                self.copies[request.name] = request.source
            raise failure
        self.copies[request.name] = request.source
        return SnapshotTaken("copied", request.name, 1 << 30, 1_700_000_000_000_000_000)

    async def drop_snapshot(self, handle, owner):
        self.copies.pop(handle, None)
        return Done()


async def with_bound_claim(policy="Delete", **class_metadata):
    client = await start_server()
    reference = {"kind": "PersistentVolumeClaim", "namespace": "default", "name": "data"}
    made = await client.create(CLAIMS, claim("data", volumeName="pv"), "default")
    source = {"driver": DRIVER, "volumeHandle": "db"}
    document = volume("pv", claimRef={**reference, "uid": made["metadata"]["uid"]}, csi=source)
    del document["spec"]["nfs"]
    await client.create(PERSISTENT_VOLUMES, document)
    await client.patch(
        CLAIMS, "data", {"status": {"phase": "Bound"}}, "default", subresource="status"
    )
    await client.create(SNAPSHOT_CLASSES, {
        "metadata": {"name": "images", **class_metadata}, "driver": DRIVER,
        "deletionPolicy": policy,
    })  # fmt: skip
    return client


def a_snapshot(name="monday", **spec):
    source = {"persistentVolumeClaimName": "data"}
    return {
        "metadata": {"name": name},
        "spec": {"source": source, "volumeSnapshotClassName": "images", **spec},
    }


def controller_of(client, backend):
    return lambda copies, events: SnapshotController(
        copies, client, events, {DRIVER: backend}, VirtualClock()
    )


async def find_gone(client):
    with pytest.raises(NotFound):
        await client.get(SNAPSHOTS, "monday", "default")


def test_snapshot_of_a_claim_is_taken_and_deleted_with_its_copy():
    async def story():
        client, backend = await with_bound_claim(), Copier()
        async with running(client, controller_of(client, backend)):
            await client.create(SNAPSHOTS, a_snapshot(), "default")
            await settle()
            taken = await client.get(SNAPSHOTS, "monday", "default")
            assert taken["status"]["readyToUse"] is True
            assert taken["status"]["restoreSize"] == str(1 << 30)
            assert taken["status"]["creationTime"].startswith("2023-11-14T")
            name = taken["status"]["boundVolumeSnapshotContentName"]
            content = await client.get(SNAPSHOT_CONTENTS, name)
            assert content["status"]["snapshotHandle"] in backend.copies
            assert backend.requests[0].source == {"csi": {"driver": DRIVER, "volumeHandle": "db"}}
            await client.delete(SNAPSHOTS, "monday", "default")
            await settle()
            await find_gone(client)
            assert (await client.list(SNAPSHOT_CONTENTS)).items == []
            assert backend.copies == {}

    run_virtually(story())


def test_copy_is_kept_when_the_class_says_retain():
    async def story():
        client, backend = await with_bound_claim("Retain"), Copier()
        async with running(client, controller_of(client, backend)):
            await client.create(SNAPSHOTS, a_snapshot(), "default")
            await settle()
            await client.delete(SNAPSHOTS, "monday", "default")
            await settle()
            await find_gone(client)
            assert len((await client.list(SNAPSHOT_CONTENTS)).items) == 1
            assert len(backend.copies) == 1

    run_virtually(story())


@pytest.mark.parametrize("failure", [Uncertain("lost"), Rejected("busy", remedy="stop the pod")])
def test_failure_is_told_and_leaves_nothing_behind_when_the_snapshot_goes(failure):
    async def story():
        client, backend = await with_bound_claim(), Copier(*[failure] * 50)
        async with running(client, controller_of(client, backend)):
            await client.create(SNAPSHOTS, a_snapshot(), "default")
            await settle()
            status = (await client.get(SNAPSHOTS, "monday", "default"))["status"]
            assert status["readyToUse"] is False
            assert str(failure) in status["error"]["message"]
            await client.delete(SNAPSHOTS, "monday", "default")
            await settle()
            await find_gone(client)
            assert backend.copies == {}

    run_virtually(story())


def test_snapshot_waits_for_its_class_and_says_so():
    async def story():
        client, backend = await with_bound_claim(), Copier()
        async with running(client, controller_of(client, backend)):
            await client.create(SNAPSHOTS, a_snapshot(volumeSnapshotClassName="later"), "default")
            await settle()
            messages = [event["message"] for event in (await client.list(EVENTS)).items]
            assert any('VolumeSnapshotClass "later" not found' in text for text in messages)
            await client.create(SNAPSHOT_CLASSES, {
                "metadata": {"name": "later"}, "driver": DRIVER, "deletionPolicy": "Delete",
            })  # fmt: skip
            await settle()
            assert (await client.get(SNAPSHOTS, "monday", "default"))["status"]["readyToUse"]

    run_virtually(story())


def test_copy_that_was_there_before_is_bound_to_its_snapshot():
    async def story():
        client, backend = await with_bound_claim(), Copier()
        async with running(client, controller_of(client, backend)):
            await client.create(SNAPSHOT_CONTENTS, {
                "metadata": {"name": "old"},
                "spec": {
                    "driver": DRIVER, "deletionPolicy": "Retain",
                    "source": {"snapshotHandle": "handle-1"},
                    "volumeSnapshotRef": {"namespace": "default", "name": "monday"},
                },
            })  # fmt: skip
            source = {"volumeSnapshotContentName": "old"}
            await client.create(SNAPSHOTS, a_snapshot(source=source), "default")
            await settle()
            status = (await client.get(SNAPSHOTS, "monday", "default"))["status"]
            assert status["boundVolumeSnapshotContentName"] == "old"
            assert status["readyToUse"] is True
            assert backend.requests == []

    run_virtually(story())


def test_snapshot_that_a_claim_is_being_filled_from_stays_until_it_is_done():
    async def story():
        client, backend = await with_bound_claim(), Copier()
        async with running(client, controller_of(client, backend)):
            await client.create(SNAPSHOTS, a_snapshot(), "default")
            source = {
                "apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "monday",
            }  # fmt: skip
            await client.create(CLAIMS, claim("copy", dataSource=source), "default")
            await settle()
            await client.delete(SNAPSHOTS, "monday", "default")
            await settle()
            assert len(backend.copies) == 1
            await client.patch(CLAIMS, "copy", {"spec": {"volumeName": "pv2"}}, "default")
            await client.patch(
                CLAIMS, "copy", {"status": {"phase": "Bound"}}, "default", subresource="status"
            )
            await settle()
            await find_gone(client)
            assert backend.copies == {}

    run_virtually(story())
