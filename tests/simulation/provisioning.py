"""The provisioning of one cluster on virtual time: the real API and controllers, fake storage.

`World` outlives the controllers of a `life`, which ends when a test says so, when so many writes
are done, or when the storage's mishaps kill it. The oracle looks at the storage and at the stored
objects only.
"""

import asyncio
import contextlib
import random
import sys

from tests.contract.client.documents import claim
from tests.simulation.fake_provisioner import FakeProvisioner, FakeStorage, Mishaps, hang
from tests.simulation.memory_store import MemoryStore
from tests.simulation.virtual_time import VirtualClock
from volagent.api.admission import Admission
from volagent.api.inprocess import InProcessClient
from volagent.client.contract import (
    CLAIMS,
    EVENTS,
    NODES,
    PERSISTENT_VOLUMES,
    STORAGE_CLASSES,
    ApiError,
    NotFound,
    Selection,
)
from volagent.client.events import EventRecorder
from volagent.client.shared import SharedCopies
from volagent.control.bind.run import Binder
from volagent.control.protect.run import ProtectionController
from volagent.control.provision.run import ProvisionController
from volagent.drivers.errors import Transient, Uncertain
from volagent.objects.annotations import SELECTED_NODE

SHARED, LOCAL, NODE = "shared.fake.test", "local.fake.test", "vm1"
KEEP_S = 3600
CLASSES = {
    "shared": {"provisioner": SHARED},
    "local": {"provisioner": LOCAL, "volumeBindingMode": "WaitForFirstConsumer"},
    "local-now": {"provisioner": LOCAL},
    "odd": {"provisioner": SHARED, "parameters": {"colour": "red"}},
}


class Life:
    """One process: it ends when it is killed."""

    def __init__(self, writes=None):
        self.writes = writes
        """How many writes it lives to see done; None: any number."""
        self.dead = asyncio.Event()

    async def die(self):
        self.dead.set()
        await hang()

    async def count_write(self):
        if self.dead.is_set():
            await hang()
        if self.writes is not None:
            self.writes -= 1
            if self.writes < 0:
                await self.die()


class MortalClient:
    """The API as a process sees it that may die as soon as a write is done."""

    def __init__(self, client, life):
        self._client = client
        self._life = life

    def __getattr__(self, name):
        return getattr(self._client, name)

    async def _write(self, method, resource, *arguments, **options):
        if self._life.dead.is_set():
            await hang()
        try:
            return await getattr(self._client, method)(resource, *arguments, **options)
        finally:
            cancelled = isinstance(sys.exception(), asyncio.CancelledError)
            if resource is not EVENTS and not cancelled:
                await self._life.count_write()

    async def create(self, *arguments, **options):
        return await self._write("create", *arguments, **options)

    async def patch(self, *arguments, **options):
        return await self._write("patch", *arguments, **options)

    async def delete(self, *arguments, **options):
        return await self._write("delete", *arguments, **options)


class SeededMishaps(Mishaps):
    """Everything goes wrong now and then."""

    def __init__(self, world, rate):
        self.world = world
        self.rate = rate

    def _happens(self, weight=1.0):
        return self.world.chance.random() < self.rate * weight

    async def before(self, call, name):
        await asyncio.sleep(self.world.chance.random() / 10)
        if self._happens():
            raise Transient("the storage is away")
        if self._happens(0.5):
            raise RuntimeError("a bug of the backend")
        if self._happens(0.2):
            await asyncio.sleep(100_000)

    async def between(self, call, name):
        await self._strike()

    async def after(self, call, name):
        await self._strike()

    async def _strike(self):
        if self._happens():
            raise Uncertain("the answer was lost")
        if self._happens():
            await self.world.life.die()
        if self._happens(0.2):
            await asyncio.sleep(100_000)

    def lies(self, name):
        return self._happens(0.3)


class World:
    """Everything that a crash leaves alone."""

    def __init__(self, chance, *, rate=0.0):
        self.chance = chance
        self.clock = VirtualClock()
        self.client = InProcessClient(
            MemoryStore(), Admission(), self.clock, token_key=b"k" * 32, entropy=random.randbytes
        )  # fmt: skip
        self.mishaps = SeededMishaps(self, rate)
        self.storages = {SHARED: FakeStorage(), LOCAL: FakeStorage()}
        self.life = Life()
        self.violations = []
        self.kept = set()
        """Volumes whose data somebody wanted kept: nobody looks after it any more."""

    @property
    def stored(self):
        """The names of all volumes in the storage."""
        return {name for storage in self.storages.values() for name in storage.volumes}

    @property
    def trashed(self):
        return {id for storage in self.storages.values() for id in storage.trash}

    async def bootstrap(self):
        await self.client.housekeeping.bootstrap()
        labels = {"kubernetes.io/hostname": NODE}
        await self.client.create(NODES, {"metadata": {"name": NODE, "labels": labels}})
        for name in CLASSES:
            await self.make_class(name)

    async def make_class(self, name):
        document = {"metadata": {"name": name}, **CLASSES[name]}
        with contextlib.suppress(ApiError):
            await self.client.create(STORAGE_CLASSES, document)

    def provisioners(self):
        return {
            name: FakeProvisioner(
                name, storage, self.clock, node=NODE if name == LOCAL else "",
                mishaps=self.mishaps, on_reclaim=self._judge_reclaim,
            )
            for name, storage in self.storages.items()
        }  # fmt: skip

    async def run_life(self, life):
        """Run the controllers until the life ends."""
        self.life = life
        client = MortalClient(self.client, life)
        copies = SharedCopies(client)
        events = EventRecorder(client, self.clock, component="volagent", host=NODE)
        table = self.provisioners()
        parts = (
            copies,
            events,
            Binder(copies, client, events, frozenset(table)),
            ProvisionController(copies, client, events, table, self.clock, default_keep_s=KEEP_S),
            ProtectionController(copies, client),
        )
        tasks = [asyncio.ensure_future(part.run()) for part in parts]
        dying = asyncio.ensure_future(life.dead.wait())
        try:
            done, _ = await asyncio.wait([dying, *tasks], return_when=asyncio.FIRST_COMPLETED)
            assert done == {dying}, done
        finally:
            for task in (dying, *tasks):
                task.cancel()
            await asyncio.wait([dying, *tasks])

    @contextlib.asynccontextmanager
    async def living(self):
        """Controllers that are started again whenever they die, until the block ends."""

        async def go_on():
            while True:
                await self.run_life(Life())
                await asyncio.sleep(0.5)

        tasks = [asyncio.ensure_future(go_on()), asyncio.ensure_future(self.schedule())]
        try:
            yield
            for task in tasks:
                assert not task.done(), task
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def schedule(self):
        """A scheduler that always finds the one node there is."""
        while True:
            await asyncio.sleep(2.0)
            for each in (await self.client.list(CLAIMS)).items:
                annotations = each["metadata"].get("annotations") or {}
                if each["spec"]["storageClassName"] == "local" and SELECTED_NODE not in annotations:
                    await self.annotate(each, {SELECTED_NODE: NODE})

    async def annotate(self, document, annotations):
        name, namespace = document["metadata"]["name"], document["metadata"]["namespace"]
        change = {"metadata": {"annotations": annotations}}
        with contextlib.suppress(NotFound):
            await self.client.patch(CLAIMS, name, change, namespace)

    async def ask(self, name, class_name, size="1Gi", **spec):
        """Declare a claim."""
        resources = {"requests": {"storage": size}}
        document = claim(name, storageClassName=class_name, resources=resources, **spec)
        return await self.client.create(CLAIMS, document, "default")

    async def find(self, resource, name, namespace=""):
        try:
            return await self.client.get(resource, name, namespace)
        except NotFound:
            return None

    async def told(self, uid):
        """(reason, message) of the events about an object."""
        found = (await self.client.list(EVENTS, Selection(namespace="default"))).items
        return [
            (each["reason"], each["message"])
            for each in found
            if each["involvedObject"].get("uid") == uid
        ]

    # -- the oracle --------------------------------------------------------------------------

    async def _judge_reclaim(self, request):
        volume = await self.find(PERSISTENT_VOLUMES, request.name)
        if volume is None:
            self.violations.append(f"{request.name} reclaimed without an object")
            return
        reference = volume["spec"].get("claimRef") or {}
        holder = await self.find(CLAIMS, reference["name"], reference["namespace"])
        if (
            holder is not None
            and holder["metadata"]["uid"] == reference.get("uid")
            and holder["spec"].get("volumeName") == request.name
        ):
            self.violations.append(f"{request.name} reclaimed under its claim")
        if (volume.get("status") or {}).get("phase") == "Bound":
            self.violations.append(f"{request.name} reclaimed while Bound")
        # As it was when the backend was asked: who wants it kept after that comes too late, and
        # finds it in the trash.
        if request.manifest["spec"]["persistentVolumeReclaimPolicy"] != "Delete":
            self.violations.append(f"{request.name} reclaimed though to be kept")

    async def check(self):
        """What must hold when everything has settled."""
        assert self.violations == []
        volumes = (await self.client.list(PERSISTENT_VOLUMES)).items
        claims = (await self.client.list(CLAIMS)).items
        recorded = {each["spec"]["nfs"]["path"].removeprefix("/") for each in volumes}
        assert self.stored - recorded - self.kept == set(), "orphans in the storage"
        for storage in self.storages.values():
            owners = [each.owner for each in storage.volumes.values()]
            assert len(owners) == len(set(owners)), "two volumes for one claim"
        for each in volumes:
            bound = each["status"]["phase"] == "Bound"
            assert bound or "deletionTimestamp" not in each["metadata"], each
        for each in claims:
            assert "deletionTimestamp" not in each["metadata"], each
            if each["status"]["phase"] != "Bound":
                assert await self.told(each["metadata"]["uid"]), each
