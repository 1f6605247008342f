"""A node with an iSCSI disk, its lease and its fence, and a cable to the server that can be cut.

`Patient` is the machine; `Patient.alive` runs an agent until the block ends, it is killed, or the
machine is reset. The oracle is the world: what is mounted or attached here when the server, which
counts from the renewals that it has stored, may give the disk to somebody else.
"""

import asyncio
import contextlib
import itertools

import msgspec

from tests.simulation.fake_initiator import FakeInitiator
from tests.simulation.fake_watchdog import FakeDog, FakeWatchdog
from tests.simulation.harness import NODE, Machine, a_pod, bound_pair
from volagent.client.contract import (
    CLAIMS,
    FENCINGS,
    LEASES,
    NODES,
    PERSISTENT_VOLUMES,
    PODS,
    VOLUME_ATTACHMENTS,
    NotFound,
    Unavailable,
)
from volagent.node.fence import FenceRules
from volagent.node.fence_keeper import FenceKeeper
from volagent.node.fence_keeper import Machine as WholeMachine
from volagent.node.fence_memory import FenceMemory
from volagent.node.fence_word import FenceWord
from volagent.node.kept_out import KeptOutWatch
from volagent.node.lease import LeaseKeeper
from volagent.node.register import read_boot_id
from volagent.node.surrender import Surrender
from volagent.objects.attachments import attachment_name, unique_name
from volagent.objects.fencing import PROVEN, fencing_name, read_self_fencing
from volagent.objects.storage import Node
from volagent.runtime.contract import PodObservation

IQN = "iqn.2026-01.lab:array"
VOLUME = unique_name("kubernetes.io/iscsi", f"{IQN}:lun-1")
DISK = {"iscsi": {"targetPortal": "10.0.0.5", "iqn": IQN, "lun": 1, "fsType": "ext4"}}
DATA = {"name": "data", "persistentVolumeClaim": {"claimName": "data"}}
ANSWER_TIMEOUT_S = 60.0


class Cable:
    """The agent's client: while it is cut, requests and answers are lost and callers wait."""

    def __init__(self, client):
        self._client = client
        self._whole = asyncio.Event()
        self._whole.set()
        self.renewed_s = None
        """When the server stored the last renewal of the lease."""

    def cut(self):
        self._whole.clear()

    def heal(self):
        self._whole.set()

    async def _pass(self):
        if not self._whole.is_set():
            await asyncio.sleep(ANSWER_TIMEOUT_S)
            raise Unavailable("no answer")

    def watch(self, *args, **kwargs):
        return self._watch(self._client.watch(*args, **kwargs))

    async def _watch(self, changes):
        try:
            while True:
                await self._pass()
                batch = await anext(changes)
                await self._pass()
                yield batch
        finally:
            await changes.aclose()

    def __getattr__(self, name):
        method = getattr(self._client, name)

        async def call(*args, **kwargs):
            await self._pass()
            answer = await method(*args, **kwargs)
            if args and args[0] is LEASES:
                self.renewed_s = asyncio.get_running_loop().time()
            await self._pass()
            return answer

        return call


class Containers:
    """A runner whose containers end after `ends_s` when asked, and at once when killed."""

    def __init__(self, clock, ends_s):
        self._clock = clock
        self._ends_s = ends_s
        self._asked_s = {}
        self.running = set()

    async def sync(self, pod, specs, *, deleting):
        uid, now_s = pod.metadata.uid, self._clock.monotonic()
        if not deleting:
            if specs is not None:
                self.running.add(uid)
            return PodObservation({"phase": "Running"})
        grace_s = pod.metadata.deletion_grace_period_seconds
        grace_s = 30 if grace_s is None else grace_s
        asked_s = self._asked_s.setdefault(uid, now_s)
        ends_s = asked_s + min(self._ends_s, grace_s)
        if uid in self.running and now_s < ends_s:
            return PodObservation({"phase": "Running"}, retry_after_s=ends_s - now_s)
        self.running.discard(uid)
        self._asked_s.pop(uid, None)
        return PodObservation(volumes_released=True, finished=True)

    def forget(self, pod):
        self.running.discard(pod)

    async def find_orphans(self, known):
        return ()

    def loops(self, on_change):
        return ()

    async def close(self):
        pass


class Patient(Machine):
    """The machine with its watchdog, its initiator and its containers."""

    starts_containers = True

    def __init__(self, directory, *, fences_itself=True, ends_s=1.0, reserves=False, **more):
        super().__init__(directory, **more)
        self.rules = FenceRules(
            fences_itself, period_s=3.0, lease_s=10.0, give_up_s=10.0, reset_after_s=20
        )
        self.cable = self.agent_client = Cable(self.client)
        self.dog = FakeDog(self.reset)
        self.resets = 0
        self._reset_at_s = -1.0
        self.luns: dict = {}
        self.offline: set = set()
        self.written_out: list = []
        self.reserves = reserves
        self.fenced: set = set()
        self.containers = Containers(self.clock, ends_s)
        self.uids = itertools.count(1)
        self._agent_task = None
        self.kernel.add_image("/luns/1.img", 64 << 20)

    def make_initiator(self, host):
        return FakeInitiator(
            host, attached=self.luns, offline=self.offline, written_out=self.written_out,
            reserves=self.reserves, fenced=self.fenced, forgives=True,
        )  # fmt: skip

    def make_runner(self):
        return self.containers

    def reset(self):
        """What a watchdog does, and sysrq: everything is gone, nothing is written."""
        if self._reset_at_s == self.clock.monotonic():
            return  # the watchdog and the agent, at the same moment
        self._reset_at_s = self.clock.monotonic()
        self.resets += 1
        self.reboot()
        self.luns.clear()
        self.offline.clear()
        self.containers.running.clear()
        self.dog.stop()
        self.dog.openers = 0
        if self._agent_task is not None:
            self._agent_task.cancel()

    def make_fence(self, agent):
        boot = f"boot-{self.boot}"
        word = FenceWord(self.cable, NODE, agent.gate, agent.node, agent.mark_volumes)
        keeper = FenceKeeper(
            self.rules, body=Surrender(agent), word=word,
            machine=WholeMachine(FakeWatchdog(self.dog), self.reset, read_boot_id()),
            memory=FenceMemory(f"{self.directory}/fence", boot), clock=self.clock,
        )  # fmt: skip
        agent.gate.guard = keeper.may_touch
        lease = LeaseKeeper(
            self.cable, NODE, self.clock,
            period_s=3.0, timeout_s=10.0, on_renewed=keeper.renewed,
        )  # fmt: skip
        return keeper, word, lease

    async def live(self, ends: asyncio.Event, *, orderly: bool = True) -> None:
        """An agent until it is told to end, or dies with the machine."""
        from volagent.aio.tasks import Supervisor

        agent = None
        self._agent_task = asyncio.current_task()
        try:
            async with Supervisor() as tasks:
                agent = self.agent = self.make_agent(tasks.start)
                self.keeper, word, lease = self.make_fence(agent)
                tasks.start_loop("agent", agent.run(tasks.start_loop))
                tasks.start_loop("lease", lease.run())
                tasks.start_loop("fence", self.keeper.run())
                tasks.start_loop("fencings", word.follow())
                kept_out = KeptOutWatch(agent, Surrender(agent), tasks.start)
                tasks.start_loop("kept out", kept_out.run())
                tasks.start("register", self._register(agent))
                await ends.wait()
                if orderly:
                    await self.keeper.leave()
                else:
                    self.dog.openers = 0
                agent.close()
                tasks.stop_loops()
                await tasks.finish_operations(0.0)
        except asyncio.CancelledError:
            pass  # the machine was reset
        finally:
            if agent is not None:
                agent.close()
            self.kernel.watchers.clear()
            self._agent_task = None

    async def _register(self, agent):
        while True:
            try:
                await agent.node.register()
                return
            except Unavailable:
                await asyncio.sleep(1)

    @contextlib.asynccontextmanager
    async def alive(self, *, orderly: bool = True):
        ends = asyncio.Event()
        task = asyncio.ensure_future(self.live(ends, orderly=orderly))
        try:
            yield
        finally:
            ends.set()
            await asyncio.wait([task])
            task.result()

    # -- the cluster --------------------------------------------------------------------------

    async def declare_disk(self):
        pv, claim = bound_pair("data", **DISK)
        made = await self.declare(CLAIMS, claim)
        bound = {"status": {"phase": "Bound"}}
        await self.client.patch(CLAIMS, "data", bound, "default", subresource="status")
        pv["spec"]["claimRef"]["uid"] = made["metadata"]["uid"]
        await self.declare(PERSISTENT_VOLUMES, pv)
        scratch = {"name": "scratch", "emptyDir": {"medium": "Memory"}}
        return await self.declare(PODS, a_pod("web", DATA, scratch, nodeName=NODE))

    async def attach(self) -> str:
        """Give the node the disk; the attachment's uid."""
        name = attachment_name(VOLUME, NODE, exclusive=True)
        made = await self.client.create(VOLUME_ATTACHMENTS, {
            "metadata": {"name": name},
            "spec": {"attacher": "volagent.dev", "nodeName": NODE,
                     "source": {"persistentVolumeName": "pv-data"}},
        })  # fmt: skip
        await self.list_attached([{"name": VOLUME, "devicePath": ""}])
        return made["metadata"]["uid"]

    async def list_attached(self, volumes):
        async with asyncio.timeout(60):
            while True:
                try:
                    await self.client.patch(
                        NODES, NODE, {"status": {"volumesAttached": volumes}}, subresource="status"
                    )
                    return
                except NotFound:
                    await asyncio.sleep(0.1)

    async def take(self, uid: str) -> None:
        """The cluster has proof: the Fencing is Proven, the attachment goes."""
        await self.fence(uid)
        await self.list_attached(None)
        await self.client.delete(VOLUME_ATTACHMENTS, attachment_name(VOLUME, NODE, exclusive=True))

    async def fence(self, uid: str) -> None:
        """There is a proven Fencing of an attachment."""
        name = attachment_name(VOLUME, NODE, exclusive=True)
        await self.client.create(FENCINGS, {
            "metadata": {"name": fencing_name(uid)},
            "spec": {"attachment": {"name": name, "uid": uid}, "volume": VOLUME,
                     "nodeName": NODE, "method": "Storage", "bootID": "x",
                     "source": {"persistentVolumeName": "pv-data"}},
        })  # fmt: skip
        status = {"status": {"phase": PROVEN, "message": "its key is gone"}}
        await self.client.patch(FENCINGS, fencing_name(uid), status, subresource="status")

    async def node(self) -> Node:
        return msgspec.convert(await self.client.get(NODES, NODE), Node)

    async def promise(self):
        node = await self.node()
        return read_self_fencing(node)

    # -- the oracle ---------------------------------------------------------------------------

    @property
    def has_disk(self) -> bool:
        """Whether anything here could write to the disk."""
        mounted = any("/iscsi" in m.entry.mount_point for m in self.kernel.mounts[1:])
        return mounted or bool(self.luns.keys() - self.offline)

    async def wait_for(self, holds, timeout_s=120.0):
        async with asyncio.timeout(timeout_s):
            while not holds():
                await asyncio.sleep(0.05)
