"""All that moves disks of lost nodes, on virtual time: real controllers, fake machines."""

import asyncio
import contextlib
from datetime import timedelta

from tests.contract.client.documents import pod
from tests.simulation.attachments import DRIVER, SlowClient, World
from tests.simulation.failover_machines import LEASE, KeyedStorage, Machine
from tests.simulation.provisioning import Life, MortalClient
from volagent.aio.tasks import Supervisor
from volagent.client.contract import (
    CLAIMS,
    FENCINGS,
    PODS,
    ApiError,
)
from volagent.client.events import EventRecorder
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
from volagent.objects.annotations import BIND_COMPLETED
from volagent.objects.attachments import unique_name
from volagent.objects.fencing import HOOK, PENDING, PROVEN
from volagent.settings_failover import FailoverSettings


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
        self.lost = LostNodes(copies, self.clock, LEASE, share_max=settings.lost_share_max)
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
