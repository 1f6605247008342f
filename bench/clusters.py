"""The figures of several VMs: attaching, and a pod's way over HTTPS to another process."""

import asyncio
import random
import socket
import statistics
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.daemon import PROGRAM, SETTINGS, Connection, Daemon
from bench.figures import LATENCY_RUNS, Figure
from bench.pods import FOUR, NAMESPACE, a_pod, declare_sources, is_mounted
from volagent.aio.clock import SystemClock
from volagent.aio.tasks import Supervisor
from volagent.api.admission import Admission
from volagent.api.inprocess import InProcessClient
from volagent.client.contract import CLAIMS, NODES, PERSISTENT_VOLUMES, PODS, VOLUME_ATTACHMENTS
from volagent.client.events import EventRecorder
from volagent.client.shared import SharedCopies
from volagent.control.attach.run import AttachController
from volagent.drivers.attaching.contract import Placed
from volagent.drivers.contract import DriverName, VolumeSource
from volagent.store.sqlite import open_store

DRIVER = DriverName("disk.bench.test")
DISKS = 640
NODES_COUNT = 10
IN_FLIGHT = 64
BACKEND_S = 0.05
"""What a storage's API takes for one call, at least; up to twice that."""
READY_S = 120.0


class SlowBackend:
    """A storage whose calls take their time."""

    def __init__(self) -> None:
        self.calls = 0
        self.at_once = 0
        self.at_once_max = 0

    def identify(self, source: VolumeSource) -> str:
        """The handle."""
        return str(source.body["volumeHandle"])

    async def attach(self, placed: Placed) -> Mapping[str, str]:
        """Wait."""
        self.calls += 1
        self.at_once += 1
        self.at_once_max = max(self.at_once_max, self.at_once)
        await asyncio.sleep(BACKEND_S * (1 + random.random()))
        self.at_once -= 1
        return {}

    async def detach(self, placed: Placed) -> None:
        """Wait."""
        await self.attach(placed)


async def _declare_disks(client: InProcessClient) -> None:
    for number in range(NODES_COUNT):
        await client.create(NODES, {"metadata": {"name": f"n{number}"}})
    for number in range(DISKS):
        name = f"d{number}"
        size = {"storage": "1Gi"}
        claim = await client.create(
            CLAIMS,
            {"metadata": {"name": name}, "spec": {
                "accessModes": ["ReadWriteOnce"], "resources": {"requests": size},
                "volumeName": name, "storageClassName": "",
            }},
            "default",
        )  # fmt: skip
        reference = {
            "kind": "PersistentVolumeClaim", "namespace": "default", "name": name,
            "uid": claim["metadata"]["uid"],
        }  # fmt: skip
        await client.create(
            PERSISTENT_VOLUMES,
            {"metadata": {"name": name}, "spec": {
                "accessModes": ["ReadWriteOnce"], "capacity": size, "claimRef": reference,
                "storageClassName": "", "persistentVolumeReclaimPolicy": "Retain",
                "csi": {"driver": DRIVER, "volumeHandle": name},
            }},
        )  # fmt: skip


def _pod(number: int) -> dict[str, Any]:
    use = {"name": "data", "persistentVolumeClaim": {"claimName": f"d{number}"}}
    container = {
        "name": "main", "image": "none", "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }  # fmt: skip
    return {
        "metadata": {"name": f"p{number}"},
        "spec": {
            "nodeName": f"n{number % NODES_COUNT}", "containers": [container], "volumes": [use],
        },
    }  # fmt: skip


async def _attach_all(base: Path) -> tuple[float, SlowBackend]:
    """Seconds from the first pod to the last disk that its node may use."""
    store = open_store(base)
    clock = SystemClock()
    client = InProcessClient(store, Admission(), clock, token_key=b"k" * 32)
    await client.housekeeping.bootstrap()
    await _declare_disks(client)
    backend = SlowBackend()
    copies = SharedCopies(client)
    events = EventRecorder(client, clock, component="bench", host="bench")
    controller = AttachController(copies, client, events, {DRIVER: backend}, clock)
    async with Supervisor() as tasks:
        for part in (copies, events, controller):
            tasks.start_loop(type(part).__name__, part.run())
        await copies.wait_synced()
        began = time.perf_counter()
        for number in range(DISKS):
            await client.create(PODS, _pod(number), "default")
        while sum(len(_attached(node)) for node in (await client.list(NODES)).items) < DISKS:
            await asyncio.sleep(0.01)
        took_s = time.perf_counter() - began
        assert len((await client.list(VOLUME_ATTACHMENTS)).items) == DISKS
        tasks.stop_loops()
        await tasks.finish_operations(1.0)
    await store.close()
    return took_s, backend


def _attached(node: dict[str, Any]) -> list[Any]:
    return list((node.get("status") or {}).get("volumesAttached") or ())


def measure_attaching(base: Path) -> Iterator[Figure]:
    """`attach_per_s`: the controller with a storage that is simulated, 64 disks at once."""
    base.mkdir(parents=True)
    took_s, backend = asyncio.run(_attach_all(base))
    yield Figure(
        "attach_per_s", "1/s", [DISKS / took_s], ">= 200",
        f"{DISKS} disks to {NODES_COUNT} nodes; a call of the storage takes"
        f" {BACKEND_S * 1000:.0f} to {BACKEND_S * 2000:.0f} ms",
        extra={
            "at_once_max": backend.at_once_max,
            "floor_per_s": round(IN_FLIGHT / (BACKEND_S * 1.5)),
        },
    )  # fmt: skip


class Server(Daemon):
    """`volagent server`."""

    verb = "server"

    def __init__(self, base: Path) -> None:
        super().__init__(base)
        self.root_option = ()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"https://127.0.0.1:{port}"
        self.arguments = ("--listen", f"unix://{self.socket}", "--listen", self.url)


class Agent(Daemon):
    """`volagent agent`, of a server."""

    verb = "agent"
    arguments = ()

    def join(self, server: Server) -> None:
        """Make it a node."""
        run = ("--run-dir", str(server.base / "run"))
        said = subprocess.run(
            [PROGRAM, "token", "create", *run], check=True, capture_output=True, text=True
        ).stdout.split()
        state = ("--state-dir", str(self.base / "state"))
        subprocess.run(
            [PROGRAM, *said[1:], "--node-name", "bench", *state], check=True, capture_output=True
        )


async def _measure_remotely(server: Server, agent: Agent, runs: int) -> list[float]:
    connection = await Connection.open(server.socket)
    await declare_sources(connection)
    values = []
    for number in range(-10, runs):
        document = a_pod(f"remote-{number + 10}", FOUR)
        await asyncio.sleep(0.01)
        began = time.perf_counter()
        answer = await connection.must("POST", f"{NAMESPACE}/pods", document)
        uid = answer["metadata"]["uid"]
        while not is_mounted(agent.root, uid):
            if time.perf_counter() - began > 10:
                raise TimeoutError("a pod was not mounted")
            await asyncio.sleep(0)
        if number >= 0:
            values.append((time.perf_counter() - began) * 1000)
    for number in range(runs + 10):
        path = f"{NAMESPACE}/pods/remote-{number}?gracePeriodSeconds=0"
        await connection.must("DELETE", path)
    connection.close()
    return values


def measure_remote(base: Path, runs: int) -> Iterator[Figure]:
    """`remote_declare_to_mounted_ms`: agent and server in two processes, over HTTPS."""
    server, agent = Server(base / "server"), Agent(base / "agent")
    try:
        for one in (server, agent):
            one.base.mkdir(parents=True)
            (one.base / "volagent.toml").write_text(SETTINGS)
        server.start()
        agent.join(server)
        agent.start()
        values = asyncio.run(_measure_remotely(server, agent, runs))
    finally:
        agent.stop()
        server.stop()
    yield Figure(
        "remote_declare_to_mounted_ms", "ms", values, "median <= 10",
        "as declare_to_mounted_ms, with agent and server in two processes over HTTPS",
        extra={"mean": round(statistics.fmean(values), 3)},
    )  # fmt: skip


def run_clusters(base: Path, *, quick: bool = False) -> Iterator[Figure]:
    """The figures of several VMs that one machine can show."""
    yield from measure_attaching(base / "attach")
    yield from measure_remote(base / "remote", 40 if quick else LATENCY_RUNS)
