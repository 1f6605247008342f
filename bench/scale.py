"""A large cluster on one server over etcd: what it costs, and how fast it reacts to a lost node.

Real are `volagent server` with all its controllers, etcd, and HTTPS between them and the agents;
the agents are simulated (`bench/scale_agents.py`), with every watch that a real one has, and so is
what a storage says that keeps a lost node out. The store begins with pods that were scheduled and
volumes that were bound (`bench/scale_load.py`); attachments are made by the controller while the
agents come up. `VOLAGENT_BENCH_AGENTS` sets another size (1000 is the aim, and takes half an hour):
pods are 30 for each agent, volumes 60.
"""

import asyncio
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from bench.clusters import Server
from bench.daemon import SETTINGS, Connection
from bench.figures import Figure
from bench.scale_load import (
    EXCLUSIVE_EACH,
    NAMESPACE,
    Pattern,
    declare_pattern,
    fill_store,
    node_name,
    read_pattern,
)
from tests import etcd_server
from tests.etcd_server import EtcdCluster
from volagent.aio.clock import SystemClock
from volagent.api.authority import Authority

AGENTS, QUICK_AGENTS, FEW_AGENTS = 250, 100, 10
PODS_EACH = 30
STEADY_S, QUICK_STEADY_S = 60.0, 20.0
FEW_STEADY_S = 5.0
"""Each has renewed its lease by then."""
LOST_NODES = 3
"""Stopped one after the other, for as many values."""
START_S, SETTLE_S, MOVE_S = 1800.0, 1800.0, 120.0
LOOK_AGAIN_S = 1.0
"""Whether the server is still there."""
MEBI = 2**20


class Cluster:
    """One server over one etcd, and simulated agents."""

    def __init__(self, base: Path, agents: int) -> None:
        self.agents, self.pods = agents, agents * PODS_EACH
        self.base = base
        self.etcd = EtcdCluster(base / "etcd")
        self.server = Server(base / "server")
        self.server.ready_within_s = START_S
        self.driver: subprocess.Popen[str] | None = None
        self.watches = 0
        self.took_s: dict[str, float] = {}
        """How long each part of the start took."""

    def prepare(self) -> None:
        """Have etcd, and a state directory for the server."""
        self.etcd.start()
        self.server.base.mkdir(parents=True, exist_ok=True)
        store = f'[store]\nkind = "etcd"\nendpoints = ["{self.etcd.endpoints[0]}"]\n'
        (self.server.base / "volagent.toml").write_text(SETTINGS + store)

    def start(self) -> None:
        """Start the server, then the agents, and wait until all of them watch."""
        self.took_s["server"] = self.server.start()
        self._certify()
        began_s = time.monotonic()
        with open(self.base / "agents.log", "ab") as log:
            self.driver = subprocess.Popen(
                [
                    sys.executable, "-m", "bench.scale_agents", str(self.base / "agents"),
                    self.server.url, "0", str(self.agents),
                ],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
        self.watches = int(self._hear("ready")[0])
        self.took_s["agents"] = time.monotonic() - began_s

    def _certify(self) -> None:
        directory = self.base / "agents"
        directory.mkdir(exist_ok=True)
        authority = Authority(self.server.base / "state" / "pki", SystemClock())
        (directory / "ca.crt").write_bytes(authority.certificate)
        for number in range(self.agents):
            name = node_name(number)
            pair = authority.issue_client(f"system:node:{name}", ("system:nodes",))
            (directory / f"{name}.pem").write_bytes(pair.certificate + pair.key)

    def _hear(self, word: str) -> list[str]:
        assert self.driver is not None
        assert self.driver.stdout is not None
        while not select.select([self.driver.stdout], [], [], LOOK_AGAIN_S)[0]:
            if self.server.process is not None and self.server.process.poll() is not None:
                told = (self.server.base / "log").read_text()[-2000:]
                raise RuntimeError(f"the server ended: {told}")
        line = self.driver.stdout.readline().split()
        if not line or line[0] != word:
            told = (self.base / "agents.log").read_text()[-2000:]
            raise RuntimeError(f"the simulated agents say {line}: {told}")
        return line[1:]

    def tell(self, order: str, answer: str) -> list[str]:
        """Give the agents an order; what they answer."""
        assert self.driver is not None
        assert self.driver.stdin is not None
        self.driver.stdin.write(f"{order}\n")
        self.driver.stdin.flush()
        return self._hear(answer)

    def end(self) -> None:
        """End everything."""
        if self.driver is not None:
            self.driver.kill()
            self.driver.wait()
        if self.server.process is not None and self.server.process.poll() is None:
            self.server.kill()
        self.etcd.stop()


def _wait_attached(cluster: Cluster) -> None:
    """Until every exclusive disk is attached and its node says that it uses it."""
    each = -(-PODS_EACH // EXCLUSIVE_EACH)
    began_s = time.monotonic()

    async def wait() -> None:
        connection = await Connection.open(cluster.server.socket)
        async with asyncio.timeout(SETTLE_S):
            while True:
                nodes = await connection.must("GET", "/api/v1/nodes")
                used = [len((node.get("status") or {}).get("volumesInUse") or ())
                        for node in nodes["items"]]  # fmt: skip
                if len(used) == cluster.agents and sum(used) == each * cluster.agents:
                    break
                await asyncio.sleep(1.0)
        connection.close()

    asyncio.run(wait())
    cluster.took_s["disks"] = time.monotonic() - began_s


def _measure_steady(cluster: Cluster, steady_s: float) -> dict[str, float]:
    """Shares of one core and memory, over a time in which agents renew their leases."""
    server = cluster.server.ps
    etcd = psutil.Process(_pid(cluster.etcd.members[0].process))
    agents = psutil.Process(_pid(cluster.driver))
    parts = {"server": server, "etcd": etcd, "agents": agents}
    before = {name: _cpu_s(part) for name, part in parts.items()}
    seen = [int(each) for each in cluster.tell("seen", "seen")]
    began_s = time.monotonic()
    time.sleep(steady_s)
    took_s = time.monotonic() - began_s
    found: dict[str, float] = {}
    for name, part in parts.items():
        found[f"{name}_cpu_percent"] = 100 * (_cpu_s(part) - before[name]) / took_s
        found[f"{name}_rss_mib"] = part.memory_info().rss / MEBI
    after = [int(each) for each in cluster.tell("seen", "seen")]
    found["events_per_s"] = (after[0] - seen[0]) / took_s
    return found


def _pid(process: "subprocess.Popen[Any] | None") -> int:
    assert process is not None
    return process.pid


def _cpu_s(process: psutil.Process) -> float:
    used = process.cpu_times()
    return float(used.user + used.system)


def _lose_one(cluster: Cluster, number: int) -> float:
    """Seconds from a node's last renewal until its pod is declared again on another node."""
    name, node = f"pod-{number:05}", node_name(number)

    async def wait(path: str, before: str) -> float:
        connection = await Connection.open(cluster.server.socket)
        async with asyncio.timeout(MOVE_S):
            while True:
                pod = await connection.must("GET", path)
                now_s = time.monotonic()
                placed = pod["spec"].get("nodeName", "")
                if pod["metadata"]["uid"] != before and placed not in ("", node):
                    break
                await asyncio.sleep(0.05)
        connection.close()
        return now_s

    async def read_uid(path: str) -> str:
        connection = await Connection.open(cluster.server.socket)
        pod = await connection.must("GET", path)
        connection.close()
        return str(pod["metadata"]["uid"])

    path = f"{NAMESPACE}/pods/{name}"
    before = asyncio.run(read_uid(path))
    told = cluster.tell(f"stop {node}", "stopped")
    return asyncio.run(wait(path, before)) - float(told[1])


def _make_pattern(base: Path) -> Pattern:
    cluster = Cluster(base, 1)
    try:
        cluster.prepare()
        cluster.start()
        asyncio.run(declare_pattern(cluster.server))
        cluster.server.stop()
        return asyncio.run(read_pattern(cluster.etcd.endpoints))
    finally:
        cluster.end()


def _say(text: str) -> None:
    print(f"scale: {time.monotonic():.0f} {text}", file=sys.stderr, flush=True)


def _measure(
    base: Path, pattern: Pattern, agents: int, steady_s: float
) -> tuple[Cluster, dict[str, float], list[float]]:
    """One cluster: what it is, what it costs, how long lost nodes took."""
    cluster = Cluster(base, agents)
    try:
        cluster.prepare()
        asyncio.run(fill_store(cluster.etcd.endpoints, pattern, agents, cluster.pods))
        _say(f"{cluster.pods} pods are stored")
        cluster.start()
        _say(f"{agents} agents watch, {cluster.watches} watches")
        _wait_attached(cluster)
        _say(f"all disks are attached; the start took, in s: {cluster.took_s}")
        steady = _measure_steady(cluster, steady_s)
        _say(f"steady: {steady}")
        lost = [_lose_one(cluster, number) for number in range(LOST_NODES)]
        _say(f"lost nodes: {lost}")
    finally:
        cluster.end()
    return cluster, steady, lost


def run_scale(base: Path, *, quick: bool) -> Iterator[Figure]:
    """The figures of a large cluster."""
    if etcd_server.PROGRAM is None:
        print(f"scale is not measured: {etcd_server.MISSING}", file=sys.stderr)
        return
    base.mkdir(parents=True)
    agents = int(os.environ.get("VOLAGENT_BENCH_AGENTS", 0)) or (QUICK_AGENTS if quick else AGENTS)
    steady_s = QUICK_STEADY_S if quick else STEADY_S
    pattern = _make_pattern(base / "pattern")
    _, _, few_s = _measure(base / "few", pattern, FEW_AGENTS, FEW_STEADY_S)
    cluster, steady, many_s = _measure(base / "many", pattern, agents, steady_s)
    size = f"{agents} agents, {cluster.pods} pods, {2 * cluster.pods} volumes"
    rounded = {name: round(value, 1) for name, value in steady.items()}
    started = {f"{part}_start_s": round(took, 1) for part, took in cluster.took_s.items()}
    yield Figure(
        "scale_server_cpu_percent", "%", [steady["server_cpu_percent"]], "<= 100",
        f"of one core, over {steady_s:g} s: {size}, {cluster.watches} watches",
        extra={"etcd_cpu_percent": rounded["etcd_cpu_percent"],
               "watched_events_per_s": rounded["events_per_s"], **started},
    )  # fmt: skip
    yield Figure(
        "scale_server_rss_mib", "MiB", [steady["server_rss_mib"]], "<= 2048", size,
        extra={"etcd_rss_mib": rounded["etcd_rss_mib"]},
    )  # fmt: skip
    yield Figure(
        "scale_lost_node_s", "s", many_s, f"<= {max(few_s) + 2:.1f}: of {FEW_AGENTS} agents, + 2",
        f"a node's last renewal until its pod is declared again elsewhere: {size}",
        extra={"few_agents_s_max": round(max(few_s), 3),
               "few_agents_s_min": round(min(few_s), 3)},
    )  # fmt: skip
