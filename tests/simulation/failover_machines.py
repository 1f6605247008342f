"""Machines of a simulated cluster that are lost and write on, and the storage that they write to.

Real are the leases, the reporter of a node's status and its gate; fake are kernel, network,
watchdog and storage. The storage is the oracle: it sees every write with the attachment that it was
made under. After the first write under a new one none may arrive under an older one.
"""

import asyncio
import contextlib
import json

import msgspec

from tests.simulation.attachments import DRIVER, FakeStorage, LossyClient
from tests.simulation.virtual_time import VirtualClock
from volagent.aio.tasks import Supervisor
from volagent.client.contract import (
    FENCINGS,
    LEASES,
    NODES,
    PODS,
    VOLUME_ATTACHMENTS,
    ApiError,
    NotFound,
    Selection,
    Unavailable,
)
from volagent.client.informer import Informer
from volagent.drivers.contract import VolumeKey
from volagent.node.attachment import AttachmentGate
from volagent.node.lease import LeaseKeeper
from volagent.node.register import NodeExtras, NodeReporter
from volagent.objects.attachments import attachment_name, unique_name
from volagent.objects.fencing import FENCES_ITSELF, PENDING, PROVEN, STORAGE
from volagent.objects.storage import Node
from volagent.settings import LeaseSettings

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
            if self._node.mute and LEASES in arguments:
                raise Unavailable("no leases today")
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
        self.hangs = False
        """Its agent alone stands still."""
        self.mute = False
        """Its agent does all but renew its lease."""
        self.running = asyncio.Event()
        self.running.set()
        self.wanted = set()
        self.renewed_s = 0.0
        self._agent = None

    @property
    def boot_id(self):
        return f"{self.name}-{self.boot}"

    async def check_network(self):
        await self.running.wait()
        while self.hangs:
            await asyncio.sleep(0.5)
        if self.cut:
            await asyncio.sleep(self.world.chance.random() * 2)
            await self.running.wait()
            raise Unavailable("the network is cut")

    def lose_power(self):
        self.off = True
        self.held.clear()
        if self._agent is not None:
            self._agent.cancel()

    def note_renewal(self, sent_s):
        self.renewed_s = max(self.renewed_s, sent_s)

    def boot_anew(self):
        if not self.off:
            return  # somebody else has switched it on
        self.boot += 1
        self.renewed_s = 0.0
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
        keeper = LeaseKeeper(
            self.client, self.name, self.reporter._clock,
            period_s=LEASE.period_s, timeout_s=LEASE.timeout_s, on_renewed=machine.note_renewal,
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
        while not self.machine.renewed_s:
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
            if disk not in self.world.keyed or attachment in self.world.storage.keys.get(disk, ()):
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
