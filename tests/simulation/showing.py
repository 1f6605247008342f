"""The cluster of `attachments.py` with its disks on a storage node: the server asks by objects.

Two processes that die, the server's controller and the storage node's, over one fake kernel: it is
told to show and to hide, and is the oracle of who reaches what.
"""

import asyncio
import contextlib

from tests.simulation.attachments import (
    DRIVER,
    FakeCluster,
    FakeStorage,
    SlowClient,
    World,
)
from tests.simulation.provisioning import Life, MortalClient
from volagent.aio.tasks import Supervisor
from volagent.client.contract import PERSISTENT_VOLUMES, SECRETS, Selection
from volagent.client.shared import SharedCopies
from volagent.control.show.run import ShowController
from volagent.drivers.attaching.granted import Granted
from volagent.objects.annotations import PROVISIONED_BY
from volagent.objects.storage_nodes import CHAP_NAMESPACE, STORAGE_NODE

STORAGE = "storage01"


class FakeShower(FakeStorage):
    """The kernel of a storage node: it outlives the daemon."""

    async def restore(self):
        return "restored"

    async def show(self, name, peer):
        disk = name.removeprefix("pv-")
        await self._mishap()
        self.reach.setdefault(disk, set()).add(peer.name)
        await self._mishap()
        return f"{disk} for all"

    async def hide(self, name, node):
        disk = name.removeprefix("pv-")
        await self._mishap()
        if node in self.users.get(disk, ()) and node not in self.dead:
            self.violations.append(f"{disk} hidden from {node}, which uses it")
        self.reach.get(disk, set()).discard(node)
        await self._mishap()
        return f"{node} is out"

    async def list_shown(self):
        await asyncio.sleep(self.chance.random() / 10)
        return {f"pv-{disk}": sorted(nodes) for disk, nodes in self.reach.items() if nodes}

    async def fetch_credentials(self, name):
        return {"password": f"of {name}"}


class ShowCluster(FakeCluster):
    """Whose disks a storage node shows."""

    def make_storage(self, world):
        return FakeShower(world.chance, world.rate)

    def make_attachers(self, world, copies):
        return {DRIVER: Granted(lambda source: source.body["volumeHandle"])}


class ShowWorld(World):
    """A server, a storage node and nodes."""

    def __init__(self, chance, **options):
        super().__init__(chance, cluster=ShowCluster(), **options)
        self.storage_is_on = True

    async def bootstrap(self, disks, **options):
        await super().bootstrap(disks, **options)
        marks = {STORAGE_NODE: STORAGE, PROVISIONED_BY: DRIVER}
        for disk in disks:
            change = {"metadata": {"annotations": marks}}
            await self.client.patch(PERSISTENT_VOLUMES, f"pv-{disk}", change)

    async def run_storage_node(self, life):
        client = MortalClient(SlowClient(self.client, self.chance, self.rate), life)
        copies = SharedCopies(client)
        async with Supervisor() as tasks:
            controller = ShowController(copies, client, {DRIVER: self.storage}, STORAGE)
            for part in (copies, controller):
                tasks.start_loop(type(part).__name__, part.run())
            await life.dead.wait()
            tasks.stop_loops()
            await tasks.finish_operations(0)

    @contextlib.asynccontextmanager
    async def living(self, *, writes=None):
        async def store():
            while True:
                if self.storage_is_on:
                    await self.run_storage_node(
                        Life(self.chance.randrange(writes) if writes else None)
                    )
                await asyncio.sleep(0.2)

        task = asyncio.ensure_future(store())
        try:
            async with super().living(writes=writes):
                yield
                assert not task.done(), task
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def secrets(self):
        found = (await self.client.list(SECRETS, Selection(namespace=CHAP_NAMESPACE))).items
        names = [each["metadata"]["name"] for each in found]
        return [name for name in names if name.endswith(f".{STORAGE}")]
