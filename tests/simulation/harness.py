"""One node on virtual time: the real API, agent and drivers over a fake kernel and a fake disk.

`Machine` outlives its agents. `run_agent` starts one; it ends when the test leaves the block, or
when the kernel's fault injection kills it (`Crash`). The oracle (`check_*`) looks only at the fake
kernel and at what was declared.
"""

import asyncio
import contextlib
import random
from base64 import b64encode

from tests.simulation.fake_host import make_fake_host
from tests.simulation.fake_kernel import Crash, FakeKernel
from tests.simulation.memory_store import MemoryStore
from tests.simulation.virtual_time import VirtualClock
from volagent.aio.backoff import BackOff
from volagent.aio.tasks import Supervisor
from volagent.api.admission import Admission
from volagent.api.inprocess import InProcessClient
from volagent.client.contract import PODS, NotFound
from volagent.client.shared import SharedCopies
from volagent.drivers import make_drivers
from volagent.drivers.layout import Layout
from volagent.drivers.payload import NodeFacts
from volagent.node.agent import NodeAgent
from volagent.node.config import AgentConfig
from volagent.node.hand_over import RuntimeHandOver
from volagent.node.records import RecordBook
from volagent.node.stats import VolumeStats
from volagent.runtime import contract as runtime_contract
from volagent.runtime.none import NoRunner

ROOT = "/k"
NODE = "node01"


class Machine:
    """Everything that a crash of the agent leaves alone."""

    starts_containers = False

    def __init__(self, directory, *, seed: int = 0, delay_s: float = 0.0):
        self.kernel = FakeKernel()
        self.store = MemoryStore()
        self.clock = VirtualClock()
        self.directory = directory
        self.chance = random.Random(seed)
        self.delay_s = delay_s
        self.boot = 0
        self.client = InProcessClient(
            self.store, Admission(), self.clock, token_key=b"k" * 32, default_node_name=NODE,
            entropy=random.randbytes,
        )  # fmt: skip
        self.agent_client = self.client
        self.agent: NodeAgent | None = None

    def make_initiator(self, host):
        """This machine's iSCSI initiator, for those that have one."""
        return

    def make_runner(self):
        """Who starts containers."""
        return NoRunner()

    def make_agent(self, start) -> NodeAgent:
        host = make_fake_host(self.kernel, chance=self.chance, delay_s=self.delay_s)
        layout = Layout(ROOT)
        drivers = make_drivers(
            host, layout, image_dir="/images", nfs_mount_timeout_s=30, nfs_unmount_timeout_s=30,
            initiator=self.make_initiator(host),
        )  # fmt: skip
        config = AgentConfig(NODE, layout, NodeFacts(NODE), BackOff(), resync_s=600)
        hand_over = RuntimeHandOver(
            self.make_runner(), layout, runtime_contract.NodeFacts(NODE),
            starts_containers=self.starts_containers,
            recursive_read_only=False, cdi=None, clock=self.clock,
        )  # fmt: skip
        book = RecordBook(f"{self.directory}/records", boot_id=f"boot-{self.boot}")
        return NodeAgent(
            config, copies=SharedCopies(self.agent_client), host=host, drivers=drivers,
            book=book, hand_over=hand_over, clock=self.clock, start=start,
        )  # fmt: skip

    @contextlib.asynccontextmanager
    async def run_agent(self):
        """An agent from its start until the block ends or it is killed; yields when recovered.

        A kill inside the block ends the block too: `Crash` is swallowed here.
        """
        agent = None
        try:
            async with Supervisor() as tasks:
                agent = self.agent = self.make_agent(tasks.start)
                self.stats = VolumeStats(agent, tasks.start)
                await agent.node.register()
                tasks.start_loop("agent", agent.run(tasks.start_loop))
                await agent.recovered.wait()
                yield agent
                agent.close()
                tasks.stop_loops()
        except BaseExceptionGroup as group:
            if group.split(Crash)[1] is not None:
                raise
        except Crash:
            pass
        finally:
            if agent is not None:
                agent.close()
            self.kernel.watchers.clear()

    def reboot(self) -> None:
        self.kernel.reboot()
        self.boot += 1

    # -- wishes -----------------------------------------------------------------------------

    async def bootstrap(self) -> None:
        await self.client.housekeeping.bootstrap()

    async def declare(self, resource, document):
        namespace = document["metadata"].get("namespace", "default" if resource.namespaced else "")
        return await self.client.create(resource, document, namespace)

    async def wait_ready(self, name: str, timeout_s: float = 600.0) -> None:
        async with asyncio.timeout(timeout_s):
            while not await self.is_ready(name):
                await asyncio.sleep(0.05)

    async def is_ready(self, name: str) -> bool:
        pod = await self.client.get(PODS, name, "default")
        conditions = {c["type"]: c for c in pod.get("status", {}).get("conditions", ())}
        return conditions.get("volagent.dev/VolumesReady", {}).get("status") == "True"

    async def wait_gone(self, name: str, timeout_s: float = 600.0) -> None:
        async with asyncio.timeout(timeout_s):
            while await self.exists(name):
                await asyncio.sleep(0.05)

    async def exists(self, name: str) -> bool:
        try:
            await self.client.get(PODS, name, "default")
        except NotFound:
            return False
        return True

    # -- the oracle -------------------------------------------------------------------------

    def volume_path(self, uid: str, plugin: str, name: str) -> str:
        return f"{ROOT}/pods/{uid}/volumes/{plugin}/{name}"

    def check_nothing_left(self) -> None:
        left = [m.entry.mount_point for m in self.kernel.mounts[1:]]
        assert left == [], f"mounts are left: {left}"
        assert self.kernel.loops == {}, "loop devices are left"
        tree = self.kernel.mounts[0].tree
        under = [p for p in tree.inodes if p.startswith("k/pods/")]
        assert under == [], f"files are left: {under}"

    def check_no_stacked_mounts(self) -> None:
        points = [m.entry.mount_point for m in self.kernel.mounts[1:]]
        assert len(points) == len(set(points)), f"mounted twice: {sorted(points)}"


def a_secret(name: str, **data: str) -> dict:
    encoded = {key: b64encode(value.encode()).decode() for key, value in data.items()}
    return {
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "default"},
        "data": encoded,
    }  # fmt: skip


def a_config_map(name: str, **data: str) -> dict:
    return {
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default"}, "data": data,
    }  # fmt: skip


def a_pod(name: str, *volumes: dict, **spec) -> dict:
    mounts = [{"name": v["name"], "mountPath": f"/{v['name']}"} for v in volumes]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "containers": [{"name": "main", "image": "x", "volumeMounts": mounts}],
            "volumes": list(volumes),
            "terminationGracePeriodSeconds": 30,
            **spec,
        },
    }


def bound_pair(name: str, capacity: str = "64Mi", mode: str = "Filesystem", **source) -> list[dict]:
    """A PersistentVolume and its claim, bound as the binder leaves them."""
    return [
        {
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": f"pv-{name}"},
            "spec": {
                "capacity": {"storage": capacity}, "accessModes": ["ReadWriteOnce"],
                "volumeMode": mode, "storageClassName": "",
                "claimRef": {"namespace": "default", "name": name}, **source,
            },
        },
        {
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {
                "accessModes": ["ReadWriteOnce"], "volumeName": f"pv-{name}", "volumeMode": mode,
                "storageClassName": "", "resources": {"requests": {"storage": capacity}},
            },
        },
    ]  # fmt: skip
