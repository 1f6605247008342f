"""Nodes, disks and the attach/detach controller on virtual time; only storage and kernels are fake.

The nodes use the real gate and the real reporter of the node's status. The oracle is the storage:
it sees every use of a disk, and says when two nodes use an exclusive one, or one uses a disk that
it was never given or that was taken from it.
"""

import asyncio
import contextlib
import random

import msgspec

from tests.contract.client.documents import claim, pod, volume
from tests.simulation.memory_store import MemoryStore
from tests.simulation.provisioning import Life, MortalClient
from tests.simulation.virtual_time import VirtualClock
from volagent.aio.tasks import Supervisor
from volagent.api.admission import Admission
from volagent.api.inprocess import InProcessClient
from volagent.client.contract import (
    CLAIMS,
    EVENTS,
    NODES,
    PERSISTENT_VOLUMES,
    PODS,
    VOLUME_ATTACHMENTS,
    ApiError,
    NotFound,
    Selection,
    Unavailable,
)
from volagent.client.events import EventRecorder
from volagent.client.informer import Informer
from volagent.client.shared import SharedCopies
from volagent.control.attach.run import AttachController
from volagent.drivers.contract import VolumeKey
from volagent.drivers.errors import Transient, Uncertain
from volagent.node.attachment import AttachmentGate
from volagent.node.register import NodeExtras, NodeReporter
from volagent.objects.attachments import unique_name
from volagent.objects.storage import Node

DRIVER = "disk.fake.test"


class FakeStorage:
    """Disks, who may reach them, and who uses them."""

    def __init__(self, chance, rate):
        self.chance = chance
        self.rate = rate
        self.reach = {}
        """Disk → nodes."""
        self.users = {}
        self.violations = []
        self.shared = set()
        self.dead = set()
        """Nodes that are known to be off: what they use counts no more."""

    def identify(self, source):
        return source.body["volumeHandle"]

    async def attach(self, placed):
        await self._mishap()
        self.reach.setdefault(placed.disk, set()).add(placed.node)
        await self._mishap()
        return {"lun": "7"}

    async def detach(self, placed):
        await self._mishap()
        disk = placed.disk
        if placed.node in self.users.get(disk, ()) and placed.node not in self.dead:
            self.violations.append(f"{disk} detached from {placed.node}, which uses it")
        self.reach.get(disk, set()).discard(placed.node)
        await self._mishap()

    async def find_lost(self, held):
        return [each for each in held if each.node not in self.reach.get(each.disk, ())]

    def use(self, disk, node):
        if node not in self.reach.get(disk, ()):
            self.violations.append(f"{node} uses {disk}, which it cannot reach")
        users = self.users.setdefault(disk, set())
        others = users - {node} - self.dead
        if others and disk not in self.shared:
            self.violations.append(f"{node} uses {disk} besides {others}")
        users.add(node)

    def give_up(self, disk, node):
        self.users.get(disk, set()).discard(node)

    async def _mishap(self):
        await asyncio.sleep(self.chance.random() / 10)
        draw = self.chance.random()
        if draw < self.rate:
            raise Transient("the storage is away")
        if draw < 2 * self.rate:
            raise Uncertain("the answer was lost")


class FakeCluster:
    """Which disks the cluster has: CSI volumes of `FakeStorage`."""

    driver = DRIVER

    def make_storage(self, world):
        return FakeStorage(world.chance, world.rate)

    def make_attachers(self, world, _copies):
        return {DRIVER: world.storage}

    def source_of(self, disk):
        return {"csi": {"driver": DRIVER, "volumeHandle": disk}}

    def extras_of(self, _node):
        return NodeExtras()


class LossyClient:
    """The API over a bad network: answers are lost, and requests arrive late."""

    def __init__(self, client, chance, rate):
        self._client = client
        self._chance = chance
        self._rate = rate
        self._late = set()

    def __getattr__(self, name):
        return getattr(self._client, name)

    async def get(self, *arguments):
        await asyncio.sleep(self._chance.random() / 50)
        return await self._client.get(*arguments)

    async def patch(self, *arguments, **options):
        await asyncio.sleep(self._chance.random() / 50)
        draw = self._chance.random()
        if draw < self._rate:
            raise Unavailable("not sent")
        if draw < 2 * self._rate:
            # Outlives the agent that sent it.
            self._late.add(asyncio.ensure_future(self._arrive_late(arguments, options)))
            raise Unavailable("sent, and no answer")
        answer = await self._client.patch(*arguments, **options)
        if draw < 3 * self._rate:
            raise Unavailable("the answer was lost")
        await asyncio.sleep(self._chance.random() / 50)
        return answer

    async def _arrive_late(self, arguments, options):
        await asyncio.sleep(self._chance.random() * 20)
        with contextlib.suppress(ApiError):
            await self._client.patch(*arguments, **options)


class SlowClient:
    """The API as a server's controller has it: what it has read is old when it writes."""

    def __init__(self, client, chance, rate):
        self._client = client
        self._chance = chance
        self._longest_s = 1.0 if rate else 0.0

    def __getattr__(self, name):
        return getattr(self._client, name)

    async def get(self, *arguments):
        answer = await self._client.get(*arguments)
        await asyncio.sleep(self._chance.random() * self._longest_s)
        return answer

    async def patch(self, *arguments, **options):
        await asyncio.sleep(self._chance.random() * self._longest_s)
        return await self._client.patch(*arguments, **options)

    async def watch(self, *arguments, **options):
        async for batch in self._client.watch(*arguments, **options):
            await asyncio.sleep(self._chance.random() * self._longest_s)
            yield batch


class FakeNode:
    """An agent as far as attachments go; what it holds outlives it, as a kernel's mounts do."""

    def __init__(self, world, name):
        self.world = world
        self.name = name
        self.held = set()
        self.wanted = set()

    async def run(self, tasks, *, rate):
        """The life of one agent."""
        world = self.world
        client = LossyClient(world.client, world.chance, rate)
        gate = AttachmentGate()
        reporter = NodeReporter(
            client, self.name, world.clock, gate, lambda: self._find_in_use(gate), self._go_on
        )
        self.wanted = set()
        await reporter.register()
        await self._look_at_pods(gate, reporter)
        me = Selection(field_selector=f"metadata.name={self.name}")
        informer = Informer(
            world.client, NODES, me, lambda each: msgspec.convert(each, Node), reporter.saw
        )
        tasks.start_loop("informer", informer.run())
        tasks.start_loop("reporter", reporter.run(tasks.start, world.cluster.extras_of(self.name)))
        while True:
            await asyncio.sleep(world.chance.random() * (1 if world.rate else 4))
            await self._look_at_pods(gate, reporter)

    def _go_on(self, keys):
        """The next look at the pods will do."""

    def _find_in_use(self, gate):
        wanted = {disk for disk in self.wanted if gate.is_attached(self.world.name_of(disk))}
        return sorted(self.world.name_of(disk) for disk in wanted | self.held)

    async def _look_at_pods(self, gate, reporter):
        own = Selection(field_selector=f"spec.nodeName={self.name}")
        pods = (await self.world.client.list(PODS, own)).items
        leaving = [each for each in pods if each["metadata"].get("deletionTimestamp")]
        wanted = {_disk_of(each) for each in pods if each not in leaving}
        self.wanted = wanted | (self.held & {_disk_of(each) for each in leaving})
        reporter.hurry()
        for disk in sorted(wanted - self.held):
            name = self.world.name_of(disk)
            if gate.is_granted(name):
                self.held.add(disk)
                self.world.storage.use(disk, self.name)
            else:
                gate.await_grant(name, VolumeKey(disk))
        for disk in sorted(self.held - wanted):
            await asyncio.sleep(self.world.chance.random() * (6 if self.world.rate else 0.2))
            self.held.discard(disk)
            self.wanted.discard(disk)
            self.world.storage.give_up(disk, self.name)
            reporter.touch()
        for each in leaving:
            with contextlib.suppress(NotFound):
                await self.world.client.delete(
                    PODS, each["metadata"]["name"], "default", grace_period_seconds=0
                )


def _disk_of(document):
    return document["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"]


class World:
    """The cluster: everything that the death of a process leaves alone."""

    def __init__(self, chance, *, rate=0.0, nodes=3, cluster=None):
        self.cluster = cluster or FakeCluster()
        self.chance = chance
        self.rate = rate
        self.clock = VirtualClock()
        self.store = MemoryStore()
        self.client = InProcessClient(
            self.store, Admission(), self.clock, token_key=b"k" * 32, entropy=random.randbytes
        )  # fmt: skip
        self.storage = self.cluster.make_storage(self)
        self.nodes = [FakeNode(self, f"node{number:02}") for number in range(1, nodes + 1)]
        self.serial = 0
        self.controller = None

    async def bootstrap(self, disks, *, modes=("ReadWriteOnce",)):
        await self.client.housekeeping.bootstrap()
        for disk in disks:
            if tuple(modes) == ("ReadOnlyMany",):
                self.storage.shared.add(disk)
            made = await self.client.create(
                CLAIMS, claim(disk, volumeName=f"pv-{disk}", accessModes=[*modes]), "default"
            )
            reference = {
                "kind": "PersistentVolumeClaim", "namespace": "default", "name": disk,
                "uid": made["metadata"]["uid"],
            }  # fmt: skip
            source = self.cluster.source_of(disk)
            spec = {**source, "claimRef": reference, "nfs": None, "accessModes": [*modes]}
            await self.client.create(PERSISTENT_VOLUMES, volume(f"pv-{disk}", **spec))

    async def declare(self, name, node, disk):
        use = [{"name": "data", "persistentVolumeClaim": {"claimName": disk}}]
        mounts = [{"name": "data", "mountPath": "/data"}]
        document = pod(name, nodeName=node, volumes=use)
        document["spec"]["containers"][0]["volumeMounts"] = mounts
        return await self.client.create(PODS, document, "default")

    async def run_controller(self, life):
        """The controller until its life ends."""
        client = MortalClient(SlowClient(self.client, self.chance, self.rate), life)
        copies = SharedCopies(client)
        events = EventRecorder(client, self.clock, component="volagent", host="server")
        async with Supervisor() as tasks:
            self.controller = AttachController(
                copies, client, events, self.cluster.make_attachers(self, copies), self.clock
            )
            for part in (copies, events, self.controller):
                tasks.start_loop(type(part).__name__, part.run())
            await life.dead.wait()
            tasks.stop_loops()
            await tasks.finish_operations(0)

    @contextlib.asynccontextmanager
    async def living(self, *, writes=None):
        """Controller and agents, started again whenever they die, until the block ends.

        `writes` is how many writes each life of the controller may do at most; None: any number.
        """

        async def control():
            while True:
                life = Life(self.chance.randrange(writes) if writes else None)
                await self.run_controller(life)
                await asyncio.sleep(0.2)

        async def work(node):
            while True:
                lifetime_s = self.chance.random() * 60 if self.rate else 1e9
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(lifetime_s), Supervisor() as tasks:
                        await node.run(tasks, rate=self.rate)
                await asyncio.sleep(0.1)

        tasks = [asyncio.ensure_future(control()), *(
            asyncio.ensure_future(work(node)) for node in self.nodes
        )]  # fmt: skip
        try:
            yield
            for task in tasks:
                assert not task.done(), task
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    def name_of(self, disk):
        return unique_name(self.cluster.driver, disk)

    async def attachments(self):
        found = (await self.client.list(VOLUME_ATTACHMENTS)).items
        return {each["metadata"]["annotations"]["volagent.dev/volume"]: each for each in found}

    async def told(self, name):
        found = (await self.client.list(EVENTS, Selection(namespace="default"))).items
        return [
            (each["reason"], each["message"])
            for each in found
            if each["involvedObject"]["name"] == name
        ]

    def holders(self, disk):
        return {node.name for node in self.nodes if disk in node.held}
