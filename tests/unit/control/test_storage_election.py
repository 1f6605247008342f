"""Several storage nodes for one class: one makes the volume, and it alone deals with it after."""

import asyncio
from collections import Counter

import msgspec
import pytest

from tests.contract.client.documents import claim
from tests.simulation.fake_provisioner import FakeProvisioner, FakeStorage
from tests.simulation.virtual_time import VirtualClock, run_virtually
from tests.unit.control.controllers import recorder, running, settle, start_server
from volagent.client.contract import CLAIMS, PERSISTENT_VOLUMES, STORAGE_CLASSES
from volagent.control.bind.run import Binder
from volagent.control.protect.run import ProtectionController
from volagent.control.provision.run import ProvisionController
from volagent.objects.storage_nodes import ISCSI_PROVISIONER, STORAGE_NODE

GIB = 1 << 30


class OnStorageNode(FakeProvisioner):
    """A provisioner of a storage node."""

    def __init__(self, storage_node, storage, clock):
        super().__init__(ISCSI_PROVISIONER, storage, clock)
        self.storage_node = storage_node

    async def create(self, request):
        made = await super().create(request)
        marks = {**made.annotations, STORAGE_NODE: self.storage_node}
        return msgspec.structs.replace(made, annotations=marks)


class Site:
    """A server, and storage nodes of a certain room."""

    def __init__(self, **rooms):
        self.storages = {name: FakeStorage(room_bytes=room) for name, room in rooms.items()}

    async def start(self, **parameters):
        self.client = await start_server()
        self.clock = VirtualClock()
        document = {
            "metadata": {"name": "disks"}, "provisioner": ISCSI_PROVISIONER,
            "reclaimPolicy": "Delete", "volumeBindingMode": "Immediate", "parameters": parameters,
        }  # fmt: skip
        await self.client.create(STORAGE_CLASSES, document)

    def living(self):
        def provision(name):
            table = {ISCSI_PROVISIONER: OnStorageNode(name, self.storages[name], self.clock)}
            return lambda copies, events: ProvisionController(
                copies, self.client, events, table, self.clock, default_keep_s=0
            )

        known = frozenset({ISCSI_PROVISIONER})
        return running(
            self.client,
            lambda copies, events: Binder(copies, self.client, events, known),
            lambda copies, _: ProtectionController(copies, self.client),
            *map(provision, self.storages),
            events=recorder(self.client),
        )

    async def ask(self, name, size="1Gi"):
        resources = {"requests": {"storage": size}}
        document = claim(name, storageClassName="disks", resources=resources)
        await self.client.create(CLAIMS, document, "default")

    async def makers(self):
        found = (await self.client.list(PERSISTENT_VOLUMES)).items
        return Counter(each["metadata"]["annotations"][STORAGE_NODE] for each in found)


def test_each_claim_is_made_once_by_one_of_them_and_dropped_by_that_one():
    async def story():
        site = Site(one=100 * GIB, two=100 * GIB)
        await site.start()
        async with site.living():
            for number in range(8):
                await site.ask(f"c{number}")
            await settle()
            made = [name for storage in site.storages.values() for name in storage.volumes]
            assert len(made) == len(set(made)) == 8
            counts = {name: len(each.volumes) for name, each in site.storages.items()}
            assert dict(await site.makers()) == {n: count for n, count in counts.items() if count}
            for number in range(8):
                await site.client.delete(CLAIMS, f"c{number}", "default")
            await settle()
            assert not any(storage.volumes for storage in site.storages.values())
            assert (await site.client.list(PERSISTENT_VOLUMES)).items == []

    run_virtually(story())


def test_one_that_is_full_leaves_the_claim_to_another():
    async def story():
        site = Site(full=0, roomy=100 * GIB)
        await site.start()
        async with site.living():
            for number in range(4):
                await site.ask(f"c{number}")
            await settle(600)
            assert await site.makers() == {"roomy": 4}
            bound = (await site.client.list(CLAIMS)).items
            assert {each["status"]["phase"] for each in bound} == {"Bound"}

    run_virtually(story())


@pytest.mark.parametrize("chosen", ["one", "two"])
def test_class_that_names_one_is_made_by_that_one(chosen):
    async def story():
        site = Site(one=100 * GIB, two=100 * GIB)
        await site.start(**{STORAGE_NODE: chosen})
        async with site.living():
            await asyncio.gather(*(site.ask(f"c{number}") for number in range(4)))
            await settle()
            assert await site.makers() == {chosen: 4}

    run_virtually(story())
