"""Simulated agents in a process of their own: their leases, watches and answers, over HTTPS.

`python -m bench.scale_agents DIRECTORY URL FIRST COUNT`, with `ca.crt` and `NAME.pem` in the
directory. Real are the client, the lease, the informers of what an agent acts upon, the reporter of
its Node with its gate, and the worker that carries Fencings out; simulated is what the storage
says, and that pods run as soon as their disks may be touched. The other watches of an agent are
there, each on a connection of its own, and only counted: they begin at the present, without a list.
That the watches are those of a real agent, `tests/kernel/daemon/test_agent_watches.py` says.

Told on standard output: `ready WATCHES` when all are there, `stopped NAME SECONDS` (of its last
renewal that was answered, by the machine's monotonic clock) after `stop NAME` on standard input,
and `seen EVENTS BYTES` after `seen`.
"""

import asyncio
import contextlib
import random
import ssl
import sys
from pathlib import Path
from typing import Any, Final

import msgspec

from volagent.aio.clock import SystemClock
from volagent.aio.tasks import Supervisor
from volagent.api.remote import RemoteClient
from volagent.api.tls import keep_connections_small
from volagent.client.contract import (
    FENCINGS,
    LEASES,
    NODES,
    PODS,
    ApiError,
    Selection,
)
from volagent.client.fencings import FencingWorker, Outcome
from volagent.client.http import make_client_context
from volagent.client.informer import Informer, Key
from volagent.drivers.contract import VolumeKey
from volagent.node.attachment import AttachmentGate
from volagent.node.lease import LEASE_NAMESPACE, LeaseKeeper
from volagent.node.register import NodeExtras, NodeReporter
from volagent.objects.fencing import PROVEN, Fencing
from volagent.objects.pod import Pod
from volagent.objects.storage import Node
from volagent.observe.logs import configure_logs
from volagent.settings import LeaseSettings

LEASE: Final = LeaseSettings()
FENCING_S: Final = 0.1
"""What the storage takes to keep a node out."""
STARTING_AT_ONCE: Final = 16
DISK: Final = "volagent.dev/bench-disk"
"""Annotation of a pod: the unique name of its exclusive disk."""
CONDITION: Final = {"type": "volagent.dev/VolumesReady", "status": "True"}
ACTED_UPON: Final = (
    ("/api/v1/pods", "spec.nodeName={node}"),
    ("/api/v1/nodes", "metadata.name={node}"),
    ("/apis/volagent.dev/v1/fencings", "spec.executor={node}"),
)
"""Watches whose events matter here: path and field selector."""
OTHER_WATCHES: Final = (
    ("/api/v1/persistentvolumeclaims", ""),
    ("/api/v1/persistentvolumes", ""),
    ("/apis/storage.k8s.io/v1/storageclasses", ""),
    ("/apis/snapshot.storage.k8s.io/v1/volumesnapshots", ""),
    ("/apis/snapshot.storage.k8s.io/v1/volumesnapshotcontents", ""),
    ("/apis/snapshot.storage.k8s.io/v1/volumesnapshotclasses", ""),
    ("/apis/volagent.dev/v1/fencings", "spec.nodeName={node}"),
)  # fmt: skip
"""Those that are only counted; see `node/world.py`, `client/shared.py`, `fence_word.py`."""


class Counted:
    """What arrived on the watches that are only counted."""

    events = 0
    size_bytes = 0
    again = 0


class _Watch(asyncio.Protocol):
    """One watch that is read and counted."""

    def __init__(self, path: str, counted: Counted) -> None:
        loop = asyncio.get_running_loop()
        self.began: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self._path, self._counted = path, counted

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        transport.write(f"GET {self._path} HTTP/1.1\r\nHost: volagent\r\n\r\n".encode())

    def data_received(self, data: bytes) -> None:
        if not self.began.done():
            good = data.startswith(b"HTTP/1.1 200")
            self.began.set_result(None) if good else self.began.set_exception(
                RuntimeError(f"{self._path}: {data[:400]!r}")
            )
        self._counted.events += data.count(b'{"type":"')
        self._counted.size_bytes += len(data)

    def connection_lost(self, exc: Exception | None) -> None:
        error = exc or ConnectionError("the server ended it")
        for future in (self.began, self.ended):
            if not future.done():
                future.set_exception(error)
                future.exception()


class SimulatedAgent:
    """One node's agent."""

    def __init__(self, name: str, url: str, directory: Path, counted: Counted) -> None:
        self.name = name
        self._url = url
        self._tls: ssl.SSLContext = make_client_context(str(directory / "ca.crt"))
        self._tls.load_cert_chain(directory / f"{name}.pem")
        self._counted = counted
        self._clock = SystemClock()
        self._gate = AttachmentGate()
        self._wanted: dict[Key, Pod] = {}
        self._tasks: Supervisor | None = None
        self.renewed_s = 0.0
        self.ready = asyncio.Event()
        self.stopping = asyncio.Event()

    async def run(self) -> None:
        """Be an agent until `stopping`."""
        async with (
            Supervisor() as tasks,
            RemoteClient((self._url,), self.name, self._tls) as client,
        ):
            self._tasks, self._client = tasks, client
            reporter = self._reporter = NodeReporter(
                client, self.name, self._clock, self._gate, self._find_in_use, self._go_on,
                boot_id=f"boot-of-{self.name}",
            )  # fmt: skip
            await self._insist(reporter.register)
            lease = LeaseKeeper(
                client, self.name, self._clock, on_renewed=self._renewed,
                period_s=LEASE.period_s, timeout_s=LEASE.timeout_s,
            )  # fmt: skip
            worker = FencingWorker(client, self._clock, self.name, _fence, tasks.start)
            informers = self._make_informers(worker)
            for number, informer in enumerate(informers):
                tasks.start_loop(f"informer {number}", informer.run())
            for informer in informers:
                await informer.synced.wait()
            tasks.start_loop("reporter", reporter.run(tasks.start, NodeExtras()))
            version = await self._insist(self._read_version)
            await asyncio.gather(*(
                self._watch(tasks, path, selector.format(node=self.name), version)
                for path, selector in OTHER_WATCHES
            ))  # fmt: skip
            tasks.start_loop("lease", self._renew(lease))
            self.ready.set()
            await self.stopping.wait()
            tasks.stop_loops()
            await tasks.finish_operations(0)

    def _make_informers(self, worker: FencingWorker) -> list[Informer[Any]]:
        own = [selector.format(node=self.name) for _, selector in ACTED_UPON]
        parts: list[tuple[Any, Any, Any]] = [
            (PODS, Pod, self._pod_changed), (NODES, Node, self._reporter.saw),
            (FENCINGS, Fencing, worker.saw),
        ]  # fmt: skip
        return [
            Informer(
                self._client, resource, Selection(field_selector=selector),
                lambda document, view=view: msgspec.convert(document, view), listener,
            )
            for (resource, view, listener), selector in zip(parts, own, strict=True)
        ]  # fmt: skip

    async def _insist(self, call: Any) -> Any:
        while True:
            try:
                return await call()
            except ApiError as error:
                print(f"{self.name}: {error.message}", file=sys.stderr)
                await asyncio.sleep(1 + random.random())

    async def _renew(self, lease: LeaseKeeper) -> None:
        await asyncio.sleep(random.random() * LEASE.period_s)
        await lease.run()

    def _renewed(self, _sent_s: float) -> None:
        self.renewed_s = self._clock.monotonic()

    async def _read_version(self) -> str:
        """A version that is not too old for any kind's watch."""
        spec = {"holderIdentity": self.name, "leaseDurationSeconds": round(LEASE.timeout_s)}
        metadata = {"name": self.name, "namespace": LEASE_NAMESPACE}
        with contextlib.suppress(ApiError):  # it is there already
            await self._client.create(LEASES, {"metadata": metadata, "spec": spec}, LEASE_NAMESPACE)
        lease = await self._client.get(LEASES, self.name, LEASE_NAMESPACE)
        return str(lease["metadata"]["resourceVersion"])

    # -- watches that are only counted -------------------------------------------------------

    async def _watch(self, tasks: Supervisor, path: str, selector: str, version: str) -> None:
        query = f"?watch=true&allowWatchBookmarks=true&resourceVersion={version}"
        query += f"&fieldSelector={selector.replace('=', '%3D')}" if selector else ""
        began: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        tasks.start_loop(path, self._keep_watch(path + query, began))
        await began

    async def _keep_watch(self, path: str, began: "asyncio.Future[None]") -> None:
        host, port = self._url.removeprefix("https://").split(":")
        loop = asyncio.get_running_loop()
        while True:
            try:
                _, watch = await loop.create_connection(
                    lambda: _Watch(path, self._counted), host, int(port), ssl=self._tls
                )
                await watch.began
                if not began.done():
                    began.set_result(None)
                await watch.ended
            except (OSError, RuntimeError) as error:
                print(f"{self.name}: {path}: {error}", file=sys.stderr)
            self._counted.again += 1
            await asyncio.sleep(1 + random.random())

    # -- pods and their disks ----------------------------------------------------------------

    def _pod_changed(self, key: Key, _old: Pod | None, new: Pod | None) -> None:
        if new is None:
            self._wanted.pop(key, None)
        else:
            self._wanted[key] = new
            disk = _disk_of(new)
            if not disk or self._gate.is_granted(disk):
                self._go_on({VolumeKey(f"{key[0]}/{key[1]}")})
            else:
                self._gate.await_grant(disk, VolumeKey(f"{key[0]}/{key[1]}"))
        self._reporter.hurry()

    def _find_in_use(self) -> list[str]:
        disks = {_disk_of(pod) for pod in self._wanted.values()}
        return sorted(disk for disk in disks if disk and self._gate.is_attached(disk))

    def _go_on(self, keys: set[VolumeKey]) -> None:
        for key in keys:
            namespace, _, name = key.partition("/")
            pod = self._wanted.get((namespace, name))
            if pod is not None and pod.status.phase != "Running" and self._tasks is not None:
                self._tasks.start("status", self._tell_running(namespace, name))

    async def _tell_running(self, namespace: str, name: str) -> None:
        status = {"phase": "Running", "conditions": [CONDITION]}
        with contextlib.suppress(ApiError):  # it is gone, or another's by now
            await self._client.patch(
                PODS, name, {"status": status}, namespace,
                content_type="application/strategic-merge-patch+json", subresource="status",
            )  # fmt: skip


def _disk_of(pod: Pod) -> str:
    return (pod.metadata.annotations or {}).get(DISK, "")


async def _fence(_fencing: Fencing) -> Outcome:
    await asyncio.sleep(FENCING_S)
    return Outcome(PROVEN, "the simulated storage has dropped its key")


async def _run(directory: Path, url: str, first: int, count: int) -> None:
    counted = Counted()
    agents = {
        (name := f"node-{number:04}"): SimulatedAgent(name, url, directory, counted)
        for number in range(first, first + count)
    }
    starting = asyncio.Semaphore(STARTING_AT_ONCE)
    running: set[asyncio.Task[None]] = set()

    async def start(agent: SimulatedAgent) -> None:
        async with starting:
            task = asyncio.ensure_future(agent.run())
            running.add(task)
            ready = asyncio.ensure_future(agent.ready.wait())
            done, _ = await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
            if task in done:
                await task

    await asyncio.gather(*(start(agent) for agent in agents.values()))
    print(f"ready {count * (len(OTHER_WATCHES + ACTED_UPON))}", flush=True)
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(lines), sys.stdin
    )
    while line := (await lines.readline()).decode().split():
        if line[0] == "stop":
            agents[line[1]].stopping.set()
            print(f"stopped {line[1]} {agents[line[1]].renewed_s}", flush=True)
        else:
            print(f"seen {counted.events} {counted.size_bytes} {counted.again}", flush=True)
    for task in running:
        task.cancel()


if __name__ == "__main__":
    configure_logs("warning", "json")
    keep_connections_small()
    asyncio.run(_run(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
