"""Nodes that are lost and write on, and everything that moves their disks, on virtual time.

Real are the API and all controllers, the leases, the reporter of a node's status and its gate; fake
are kernels, the network, and the storage with its registrations. The oracle is the storage: it sees
every write with the attachment that it was made under, and nothing else is believed. A disk has one
writer: after the first write under a new attachment none may arrive under an older one.
"""

import asyncio
import contextlib
import json
from datetime import timedelta

import msgspec

from tests.contract.client.documents import pod
from tests.simulation.attachments import DRIVER, FakeStorage, LossyClient, SlowClient, World
from tests.simulation.provisioning import Life, MortalClient
from tests.simulation.virtual_time import VirtualClock
from volagent.aio.tasks import Supervisor
from volagent.client.contract import (
    CLAIMS,
    FENCINGS,
    NODES,
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
from volagent.control.failover.lost import LostNodes
from volagent.control.failover.means import Fencers
from volagent.control.failover.pods import PodMover
from volagent.control.failover.run import FailoverController
from volagent.control.failover.steady import SteadinessController
from volagent.control.nodes.off import OutOfService
from volagent.control.nodes.run import NodeLife
from volagent.control.schedule.run import Scheduler
from volagent.drivers.contract import VolumeKey
from volagent.node.attachment import AttachmentGate
from volagent.node.lease import LeaseKeeper
from volagent.node.register import NodeExtras, NodeReporter
from volagent.objects.annotations import BIND_COMPLETED
from volagent.objects.attachments import attachment_name, unique_name
from volagent.objects.fencing import FENCES_ITSELF, HOOK, PENDING, PROVEN, STORAGE
from volagent.objects.storage import Node
from volagent.settings import FailoverSettings, LeaseSettings

LEASE = LeaseSettings(period_s=3.0, timeout_s=10.0)
WATCHDOG_S = 20.0


class KeyedStorage(FakeStorage):
    """Disks with registrations and a reservation for registrants only."""

    def __init__(self, chance, rate):
        super().__init__(chance, rate)
        self.keys = {}
        self.reserved = set()
        self.writes = []
        """Moment, disk, node and attachment of every write that was accepted."""
        self.past = {}
        """Disk → attachments under which nobody may write any more."""
        self.writer = {}
        self.refuses_to_fence = False
        self.forgets_to_fence = False
        """A PREEMPT that is answered and not done: reading back shows it."""
        self.slow_s = 0.0

    async def attach(self, placed):
        await self._mishap()
        return {}

    async def detach(self, placed):
        await self._mishap()

    async def find_lost(self, held):
        return []

    def write(self, now_s, disk, node, attachment):
        """Whether the storage takes a write."""
        if disk in self.reserved and attachment not in self.keys.get(disk, ()):
            return False
        past = self.past.setdefault(disk, set())
        if attachment in past:
            self.violations.append(f"{now_s:.2f}: {node} writes to {disk} after another writer")
        writer = self.writer.get(disk)
        if writer != attachment:
            past.add(writer)
            self.writer[disk] = attachment
        self.writes.append((now_s, disk, node, attachment))
        return True

    async def register(self, disk, attachment):
        await self._mishap()
        self.keys.setdefault(disk, set()).add(attachment)

    def unregister(self, disk, attachment):
        self.keys.get(disk, set()).discard(attachment)

    async def fence(self, disk, attachment):
        """The evidence; None when there is none."""
        await asyncio.sleep(self.slow_s * self.chance.random())
        await self._mishap()
        if not self.forgets_to_fence:
            self.keys.setdefault(disk, set()).discard(attachment)
            self.reserved.add(disk)
        await self._mishap()
        if disk not in self.reserved or attachment in self.keys.get(disk, ()):
            return None
        return "its key is gone"


class SkewedClock(VirtualClock):
    """A node's clocks: its time of day is anything."""

    def __init__(self, skew):
        self.skew = skew

    def wall(self):
        return super().wall() + self.skew


class NodesClient:
    """The API as a node has it: over a cable that may be cut, in a machine that may be frozen."""

    def __init__(self, client, node):
        self._client = client
        self._node = node

    def __getattr__(self, name):
        method = getattr(self._client, name)

        async def call(*arguments, **options):
            await self._node.check_network()
            answer = await method(*arguments, **options)
            await self._node.check_network()
            return answer

        return call

    async def watch(self, *arguments, **options):
        async for batch in self._client.watch(*arguments, **options):
            await self._node.check_network()
            yield batch


class Machine:
    """A VM: its kernel, which writes on whatever its agent does, and its agent."""

    def __init__(self, world, name, *, watchdog=False):
        self.world = world
        self.name = name
        self.watchdog = watchdog
        self.boot = 1
        self.held = {}
        """Disk → the attachment it is written under."""
        self.cut = False
        self.off = False
        self.running = asyncio.Event()
        self.running.set()
        self.wanted = set()
        self.renewed_s = 0.0
        self._agent = None
        self._keeper = None

    @property
    def boot_id(self):
        return f"{self.name}-{self.boot}"

    async def check_network(self):
        await self.running.wait()
        if self.cut:
            await asyncio.sleep(self.world.chance.random() * 2)
            await self.running.wait()
            raise Unavailable("the network is cut")

    def lose_power(self):
        self.off = True
        self.held.clear()
        if self._agent is not None:
            self._agent.cancel()

    def boot_anew(self):
        self.boot += 1
        self.off = False

    async def live(self):
        """The machine: kernel, watchdog and one agent after the other."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._write_on())
            if self.watchdog:
                tasks.create_task(self._watch())
            while True:
                if not self.off:
                    self._agent = tasks.create_task(self._live_as_agent())
                    await asyncio.wait([self._agent])
                await asyncio.sleep(0.5)

    async def _write_on(self):
        while True:
            await asyncio.sleep(0.2 + self.world.chance.random() * 0.6)
            await self.running.wait()
            for disk, attachment in tuple(self.held.items()):
                asyncio.get_running_loop().call_later(
                    self.world.chance.random() * 0.3, self._arrive, disk, attachment
                )

    def _arrive(self, disk, attachment):
        now_s = self.world.clock.monotonic()
        taken = self.world.storage.write(now_s, disk, self.name, attachment)
        if not taken and self.held.get(disk) == attachment:
            self.held.pop(disk)  # it was fenced: nothing more is written

    async def _watch(self):
        while True:
            await asyncio.sleep(0.5)
            keeper = self._keeper
            if keeper is not None and keeper.renewed_s is not None:
                self.renewed_s = max(self.renewed_s, keeper.renewed_s)
            armed = self.renewed_s and not self.off
            if armed and self.world.clock.monotonic() - self.renewed_s > WATCHDOG_S - 1:
                self.lose_power()
                self.renewed_s = 0.0
                await asyncio.sleep(2 + self.world.chance.random() * 10)
                self.boot_anew()

    async def _live_as_agent(self):
        lifetime_s = self.world.chance.random() * 60 if self.world.rate else 1e9
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(lifetime_s), Supervisor() as tasks:
                await Agent(self, tasks.start_loop).run()


class Agent:
    """One process of a machine's agent."""

    def __init__(self, machine, start):
        self.machine = machine
        self.world = machine.world
        self.start = start
        self.name = machine.name
        lossy = LossyClient(self.world.client, self.world.chance, self.world.rate)
        self.client = NodesClient(lossy, machine)
        self.gate = AttachmentGate()
        self.reporter = NodeReporter(
            self.client, self.name, SkewedClock(self.world.skew()), self.gate,
            lambda: self._find_in_use(), lambda keys: None, boot_id=machine.boot_id,
        )  # fmt: skip

    async def run(self):
        machine, start = self.machine, self.start
        machine.wanted = set()
        await self._again_and_again(self.reporter.register)
        keeper = machine._keeper = LeaseKeeper(
            self.client, self.name, self.reporter._clock,
            period_s=LEASE.period_s, timeout_s=LEASE.timeout_s,
        )  # fmt: skip
        start("lease", keeper.run())
        me = Selection(field_selector=f"metadata.name={self.name}")
        informer = Informer(
            self.client, NODES, me, lambda each: msgspec.convert(each, Node), self.reporter.saw
        )
        start("informer", informer.run())
        start("reporter", self.reporter.run(start, NodeExtras()))
        start("executor", self._execute())
        if machine.watchdog:
            start("annotation", self._again_and_again(self._announce))
        while True:
            await asyncio.sleep(0.2 + self.world.chance.random())
            with contextlib.suppress(ApiError):
                await self._look_at_pods()

    async def _again_and_again(self, call):
        while True:
            try:
                return await call()
            except ApiError:
                await asyncio.sleep(1)

    async def _announce(self):
        while self.machine._keeper.renewed_s is None:
            await asyncio.sleep(0.1)
        promise = {"withinSeconds": WATCHDOG_S, "by": "dog", "bootID": self.machine.boot_id}
        change = {"metadata": {"annotations": {FENCES_ITSELF: json.dumps(promise)}}}
        await self.client.patch(NODES, self.name, change)
        await asyncio.Event().wait()

    def _find_in_use(self):
        wanted = {
            disk for disk in self.machine.wanted if self.gate.is_attached(unique_name(DRIVER, disk))
        }
        return sorted(unique_name(DRIVER, disk) for disk in wanted | set(self.machine.held))

    async def _look_at_pods(self):
        machine = self.machine
        own = Selection(field_selector=f"spec.nodeName={self.name}")
        fenced = {
            each["spec"]["attachment"]["uid"]
            for each in (await self.client.list(FENCINGS, own)).items
            if each["status"]["phase"] == PROVEN
        }
        pods = (await self.client.list(PODS, own)).items
        leaving = [each for each in pods if each["metadata"].get("deletionTimestamp")]
        machine.wanted = {_disk_of(each) for each in pods if each not in leaving}
        self.reporter.hurry()
        for disk, attachment in tuple(machine.held.items()):
            if disk not in machine.wanted or attachment in fenced:
                await asyncio.sleep(self.world.chance.random())
                await machine.running.wait()
                machine.held.pop(disk, None)
                self.world.storage.unregister(disk, attachment)
                self.reporter.touch()
        for disk in sorted(machine.wanted - set(machine.held)):
            name = unique_name(DRIVER, disk)
            if self.gate.is_granted(name):
                await self._attach(disk, name)
            else:
                self.gate.await_grant(name, VolumeKey(disk))
        for each in leaving:
            with contextlib.suppress(NotFound):
                await self.client.delete(
                    PODS, each["metadata"]["name"], "default", grace_period_seconds=0
                )

    async def _attach(self, disk, name):
        """Register, and look at the permission again before the first write."""
        held = attachment_name(name, self.name, exclusive=True)
        try:
            found = await self.client.get(VOLUME_ATTACHMENTS, held)
        except NotFound:
            return
        if found["spec"]["nodeName"] != self.name:
            return
        attachment = found["metadata"]["uid"]
        if disk in self.world.keyed:
            with contextlib.suppress(Exception):
                await self.world.storage.register(disk, attachment)
            await self.machine.running.wait()
        status = (await self.client.get(NODES, self.name))["status"]
        told = name in [each["name"] for each in status.get("volumesAttached") or ()]
        in_use = name in (status.get("volumesInUse") or ())
        if told and in_use and status["nodeInfo"]["bootID"] == self.machine.boot_id:
            if disk not in self.world.keyed or attachment in self.world.storage.keys[disk]:
                self.machine.held[disk] = attachment
        else:
            self.world.storage.unregister(disk, attachment)

    async def _execute(self):
        mine = Selection(field_selector=f"spec.executor={self.name}")
        while True:
            await asyncio.sleep(0.2 + self.world.chance.random() * 0.5)
            with contextlib.suppress(ApiError):
                for each in (await self.client.list(FENCINGS, mine)).items:
                    if each["status"]["phase"] == PENDING and each["spec"]["method"] == STORAGE:
                        await self._fence(each)

    async def _fence(self, fencing):
        disk, storage = _disk_named(fencing), self.world.storage
        status = {"attempts": fencing["status"].get("attempts", 0) + 1}
        if disk not in self.world.keyed or storage.refuses_to_fence:
            status |= {"phase": "Impossible", "message": "no reservations"}
        else:
            try:
                evidence = await storage.fence(disk, fencing["spec"]["attachment"]["uid"])
                status |= {"phase": PROVEN, "message": evidence} if evidence else {}
            except Exception as error:  # noqa: BLE001  # whatever the storage says
                status |= {"message": str(error)}
        await self.machine.running.wait()
        change = {"metadata": {"uid": fencing["metadata"]["uid"]}, "status": status}
        await self.client.patch(FENCINGS, fencing["metadata"]["name"], change, subresource="status")


def _disk_named(fencing):
    return fencing["spec"]["volume"].partition("^")[2]


def _disk_of(document):
    return document["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"]


class FailoverWorld(World):
    """A cluster whose disks move by themselves."""

    settings = FailoverSettings()

    def __init__(self, chance, *, rate=0.0, nodes=3, watchdog=False, hooks=False, keyed=True):
        super().__init__(chance, rate=rate, nodes=0)
        self.storage = KeyedStorage(chance, rate)
        self.hooks = hooks
        self.keyed = {"d1", "d2", "d3"} if keyed else set()
        self.fences_at_storage = keyed
        self.machines = [
            Machine(self, f"node{n:02}", watchdog=watchdog) for n in range(1, nodes + 1)
        ]
        self.lost = self.failover = None
        self.servers = 1

    async def bootstrap(self, disks, **options):
        await super().bootstrap(disks, **options)
        for disk in disks:
            change = {"metadata": {"annotations": {BIND_COMPLETED: "yes"}}}
            await self.client.patch(CLAIMS, disk, change, "default")

    def skew(self):
        return timedelta(seconds=(self.chance.random() - 0.5) * 1e7)

    def machine(self, name):
        return next(each for each in self.machines if each.name == name)

    async def declare(self, name, node="", disk="d1", **metadata):
        use = [{"name": "data", "persistentVolumeClaim": {"claimName": disk}}]
        document = pod(name, volumes=use, **({"nodeName": node} if node else {}))
        mounts = [{"name": "data", "mountPath": "/data"}]
        document["spec"]["containers"][0]["volumeMounts"] = mounts
        document["metadata"] |= metadata
        return await self.client.create(PODS, document, "default")

    def make_controllers(self, copies, client, events):
        attachers, settings = {DRIVER: self.storage}, self.settings
        self.client.leave_to_scheduler(lambda: None)
        self.controller = AttachController(copies, client, events, attachers, self.clock)
        self.lost = LostNodes(copies, self.clock, LEASE)
        fencers = Fencers(
            drivers={DRIVER} if self.fences_at_storage else (),
            has_hooks=lambda: self.hooks,
            methods=settings.methods,
            watchdog_margin_s=settings.watchdog_margin_s,
        )
        self.failover = FailoverController(
            copies, client, events, self.clock,
            lost=self.lost, settings=settings, fencers=fencers,
        )  # fmt: skip
        mover = PodMover(
            copies, client, events, self.lost,
            attachers=attachers, shared_after_s=settings.shared_after_s,
        )  # fmt: skip
        return (
            self.controller, self.failover, mover,
            NodeLife(copies, client, events, self.clock, LEASE.timeout_s),
            OutOfService(copies, client, events),
            Scheduler(copies, client, events, self.clock),
            SteadinessController(copies, client, events, self.clock, settings),
        )  # fmt: skip

    async def run_controller(self, life):
        client = MortalClient(SlowClient(self.client, self.chance, self.rate), life)
        copies = SharedCopies(client)
        events = EventRecorder(client, self.clock, component="volagent", host="server")
        async with Supervisor() as tasks:
            parts = self.make_controllers(copies, client, events)
            for part in (copies, events, *parts):
                tasks.start_loop(type(part).__name__, part.run())
            await life.dead.wait()
            tasks.stop_loops()
            await tasks.finish_operations(0)

    async def run_hooks(self):
        """The operator's programs: they cut a machine's power and say so."""
        while True:
            await asyncio.sleep(0.5)
            for each in (await self.client.list(FENCINGS)).items:
                if each["spec"]["method"] != HOOK or each["status"]["phase"] != PENDING:
                    continue
                self.machine(each["spec"]["nodeName"]).lose_power()
                await asyncio.sleep(1)
                change = {
                    "metadata": {"uid": each["metadata"]["uid"]},
                    "status": {"phase": PROVEN, "message": "it is off"},
                }
                with contextlib.suppress(ApiError):
                    await self.client.patch(
                        FENCINGS, each["metadata"]["name"], change, subresource="status"
                    )

    @contextlib.asynccontextmanager
    async def living(self, *, writes=None):
        async def control():
            while True:
                await self.run_controller(Life(self.chance.randrange(writes) if writes else None))
                await asyncio.sleep(0.2)

        lives = [control() for _ in range(self.servers)]
        lives += [machine.live() for machine in self.machines]
        lives += [self.run_hooks()] if self.hooks else []
        tasks = [asyncio.ensure_future(each) for each in lives]
        try:
            yield
            for task in tasks:
                assert not task.done(), task
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    # -- what the tests look at --------------------------------------------------------------

    def writers(self, disk, since_s):
        """The nodes whose writes arrived since a moment."""
        return {
            node for at_s, name, node, _ in self.storage.writes if name == disk and at_s >= since_s
        }

    def disk(self, disk):
        return unique_name(DRIVER, disk)

    def now(self):
        return self.clock.monotonic()

    async def node_of(self, name):
        return (await self.client.get(PODS, name, "default"))["spec"].get("nodeName", "")

    async def fencings(self):
        return (await self.client.list(FENCINGS)).items
