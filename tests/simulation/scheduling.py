"""A control plane on virtual time: API, binder and scheduler, cut off wherever a test likes.

`Plane` outlives its controllers, as a server's disk outlives the server. `run_until` starts them
and ends them when a condition holds, when nothing more can happen, or when the client under them
dies after so many writes.
"""

import asyncio
import contextlib
import random

from tests.simulation.memory_store import MemoryStore
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
    STORAGE_CLASSES,
    AlreadyExists,
)
from volagent.client.events import EventRecorder
from volagent.client.shared import SharedCopies
from volagent.control.bind.run import Binder
from volagent.control.schedule.run import Scheduler
from volagent.objects.annotations import PROVISIONED_BY, SELECTED_NODE

SETTLED_S = 30.0
RESOURCES = {
    "Pod": PODS, "PersistentVolume": PERSISTENT_VOLUMES, "StorageClass": STORAGE_CLASSES,
    "PersistentVolumeClaim": CLAIMS, "Node": NODES,
}  # fmt: skip


class MortalClient:
    """Lets a number of writes through; the next one never returns, and `died` is set."""

    def __init__(self, client, writes):
        self._client = client
        self._left = writes
        self.died = asyncio.Event()

    def __getattr__(self, name):
        return getattr(self._client, name)

    async def patch(self, *arguments, **options):
        await self._spend()
        return await self._client.patch(*arguments, **options)

    async def bind_pod(self, *arguments, **options):
        await self._spend()
        return await self._client.bind_pod(*arguments, **options)

    async def _spend(self):
        if self._left <= 0:
            self.died.set()
            await asyncio.Event().wait()
        self._left -= 1


class Plane:
    def __init__(self):
        self.client = InProcessClient(
            MemoryStore(), Admission(), VirtualClock(),
            token_key=b"k" * 32, entropy=random.randbytes,
        )  # fmt: skip
        self.scheduler = None

    async def start(self, *nodes):
        await self.client.housekeeping.bootstrap()
        for node in nodes:
            await self.client.create(NODES, node)

    @contextlib.asynccontextmanager
    async def running(self, *, writes=10**9, binds=True, backend=None):
        """The controllers, from their start to the end of the block; their client is yielded."""
        mortal = MortalClient(self.client, writes)
        clock = VirtualClock()
        copies = SharedCopies(mortal)
        events = EventRecorder(self.client, clock, component="default-scheduler", host="vm")
        self.scheduler = Scheduler(copies, mortal, events, clock)
        async with Supervisor() as tasks:
            if binds:
                recorder = EventRecorder(self.client, clock, component="binder", host="vm")
                tasks.start_loop("binder", Binder(copies, mortal, recorder).run())
            if backend is not None:
                tasks.start_loop("backend", backend.run(self.client))
            tasks.start_loop("events", events.run())
            tasks.start_loop("scheduler", self.scheduler.run())
            tasks.start_loop("copies", copies.run())
            yield mortal
            tasks.stop_loops()
            await tasks.finish_operations(0)

    async def settle(self, *, writes=10**9, **options):
        """Run the controllers until they have long been quiet, or are killed."""
        async with self.running(writes=writes, **options) as mortal:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SETTLED_S):
                    await mortal.died.wait()
        return mortal.died.is_set()

    async def declare(self, *documents):
        for document in documents:
            resource = RESOURCES[document["kind"]]
            await self.client.create(resource, document, "default" if resource.namespaced else "")

    async def node_of(self, pod):
        found = await self.client.get(PODS, pod, "default")
        return found["spec"].get("nodeName", "")

    async def volume_of(self, claim):
        found = await self.client.get(CLAIMS, claim, "default")
        return found["spec"].get("volumeName", "") if found["status"]["phase"] == "Bound" else ""

    async def condition(self, pod):
        found = await self.client.get(PODS, pod, "default")
        conditions = found["status"].get("conditions") or []
        return next((c for c in conditions if c["type"] == "PodScheduled"), {})

    async def events(self, reason):
        found = await self.client.list(EVENTS)
        return [event["message"] for event in found.items if event["reason"] == reason]

    async def cordon(self, node, *, on=True):
        await self.client.patch(NODES, node, {"spec": {"unschedulable": on}})


class Backend:
    """A provisioner of node-local volumes; `full` nodes have no room, `asked` is what it did."""

    def __init__(self, *full):
        self.full = set(full)
        self.asked = []

    async def run(self, client):
        listing = await client.list(CLAIMS)
        for claim in listing.items:
            await self._serve(client, claim)
        async for batch in client.watch(CLAIMS, resource_version=listing.resource_version):
            for event in batch:
                if event.type != "DELETED":
                    await self._serve(client, event.object)

    async def _serve(self, client, claim):
        claim = await client.get(CLAIMS, claim["metadata"]["name"], "default")
        metadata = claim["metadata"]
        node = (metadata.get("annotations") or {}).get(SELECTED_NODE)
        if not node or claim["spec"].get("volumeName"):
            return
        self.asked.append((metadata["name"], node))
        await asyncio.sleep(0.05)
        if node in self.full:
            body = {"metadata": {"annotations": {SELECTED_NODE: None}}}
            await client.patch(CLAIMS, metadata["name"], body, "default")
            return
        made = a_volume(f"pvc-{metadata['uid']}", node, cls=claim["spec"]["storageClassName"])
        made["metadata"]["annotations"] = {PROVISIONED_BY: "test/backend"}
        made["spec"]["claimRef"] = {
            "kind": "PersistentVolumeClaim", "namespace": "default", "name": metadata["name"],
            "uid": metadata["uid"],
        }  # fmt: skip
        with contextlib.suppress(AlreadyExists):
            await client.create(PERSISTENT_VOLUMES, made)


def a_node(name, *, taints=(), unschedulable=False, cpu="4", **labels):
    return {
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **labels}},
        "spec": {"taints": list(taints), "unschedulable": unschedulable},
        "status": {
            "capacity": {"cpu": cpu, "memory": "8Gi", "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }  # fmt: skip


def a_class(name="local", provisioner="kubernetes.io/no-provisioner", **fields):
    return {
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name},
        "provisioner": provisioner, "volumeBindingMode": "WaitForFirstConsumer", **fields,
    }  # fmt: skip


def a_volume(name, node, size="1Gi", *, cls="local"):
    expression = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
    affinity = {"required": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}}
    return {
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"],
            "storageClassName": cls, "local": {"path": f"/mnt/{name}"},
            "nodeAffinity": affinity,
        },
    }  # fmt: skip


def a_claim(name, size="1Gi", *, cls="local", **spec):
    return {
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": cls,
            "resources": {"requests": {"storage": size}}, **spec,
        },
    }  # fmt: skip


def a_pod(name, *claims, labels=None, requests=None, **spec):
    container = {"name": "main", "image": "x"}
    if requests:
        container["resources"] = {"requests": requests}
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels or {}},
        "spec": {
            "containers": [container],
            "volumes": [
                {"name": f"v-{claim}", "persistentVolumeClaim": {"claimName": claim}}
                for claim in claims
            ],
            **spec,
        },
    }  # fmt: skip
