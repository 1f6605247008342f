"""The figures of the control plane: creating, binding, watching, provisioning.

What they are measured against is in README: kube-apiserver, etcd and kube-controller-manager 1.20
on a machine of this size.
"""

import asyncio
import json
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.daemon import Connection, Daemon
from bench.figures import Figure
from bench.load import Request, send_all
from bench.pods import NAMESPACE

CLIENTS = 32
CREATES = 20_000
WATCHERS = 100
WATCHED = 6_000
CLAIMS_FEW, CLAIMS_MANY = 2_000, 20_000
PROVISIONED = 100
_SEED = 7
VOLUMES = "/api/v1/persistentvolumes"
CLASSES = "/apis/storage.k8s.io/v1/storageclasses"


def _post(path: str, document: Any) -> Request:
    return "POST", path, json.dumps(document).encode()


def measure_commits(base: Path, count: int) -> float:
    """The floor: rows per second that bare SQLite commits durably, `CLIENTS` rows at a time."""
    base.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(base / "floor.db", isolation_level=None)
    database.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;")
    database.execute("CREATE TABLE t (k TEXT PRIMARY KEY, v BLOB)")
    value = b"v" * 600
    began = time.perf_counter()
    for start in range(0, count, CLIENTS):
        rows = [(f"k{number}", value) for number in range(start, start + CLIENTS)]
        database.execute("BEGIN")
        database.executemany("INSERT INTO t VALUES (?, ?)", rows)
        database.execute("COMMIT")
    took_s = time.perf_counter() - began
    database.close()
    shutil.rmtree(base)
    return count / took_s


def measure_creates(daemon: Daemon, rounds: int) -> Iterator[Figure]:
    """`creates_per_s`: ConfigMaps by 32 clients, each answered when it is durable."""
    rates, floors = [], []
    for number in range(rounds):
        floors.append(measure_commits(daemon.base / "commits", CREATES))
        requests = [
            _post(
                f"{NAMESPACE}/configmaps",
                {"metadata": {"name": f"c{number}-{n}"}, "data": {"key": "v" * 100}},
            )
            for n in range(CREATES)
        ]
        began = time.perf_counter()
        asyncio.run(send_all(daemon.socket, requests, CLIENTS))
        rates.append(CREATES / (time.perf_counter() - began))
    yield Figure(
        "creates_per_s", "1/s", rates, ">= 4000", "ConfigMaps by 32 clients, durable",
        extra={"floor_rows_per_s": round(max(floors)), "ratio_to_floor": _ratio(rates, floors)},
    )  # fmt: skip


def _ratio(rates: list[float], floors: list[float]) -> float:
    return round(max(rates) / max(floors), 3)


def measure_watch_lag(daemon: Daemon) -> Iterator[Figure]:
    """`watch_lag_ms`: from sending an object to its event at a watcher, 100 of them watching."""
    command = [
        sys.executable, "-m", "bench.watchers", str(daemon.socket), str(WATCHERS), str(WATCHED),
        asyncio.run(_find_version(daemon)),
    ]  # fmt: skip
    requests: list[Request] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watchers:
        assert watchers.stdout is not None
        try:
            # Something has to happen before a watch answers at all.
            asyncio.run(_announce(daemon, watchers))
            began = time.perf_counter()
            requests = [
                ("POST", f"{NAMESPACE}/configmaps", b"%d" % number) for number in range(WATCHED)
            ]
            asyncio.run(send_all(daemon.socket, requests, CLIENTS, stamp=_stamped))
            rate = WATCHED / (time.perf_counter() - began)
            lags: list[float] = json.loads(watchers.stdout.readline())
        finally:
            watchers.kill()
    yield Figure(
        "watch_lag_ms", "ms", lags, "p99 <= 100", "from sending the request to seeing its event",
        extra={"watchers": WATCHERS, "creates_per_s_meanwhile": round(rate)},
    )  # fmt: skip


async def _find_version(daemon: Daemon) -> str:
    """From which the watchers watch: what was before may be compacted."""
    connection = await Connection.open(daemon.socket)
    answer = await connection.must("GET", f"{NAMESPACE}/configmaps?limit=1")
    connection.close()
    version: str = answer["metadata"]["resourceVersion"]
    return version


async def _announce(daemon: Daemon, watchers: "subprocess.Popen[str]") -> None:
    assert watchers.stdout is not None
    connection = await Connection.open(daemon.socket)
    await asyncio.sleep(1.0)
    await connection.must(
        "POST", f"{NAMESPACE}/configmaps", {"metadata": {"generateName": "watched-"}}
    )
    connection.close()
    line = await asyncio.to_thread(watchers.stdout.readline)
    if line.strip() != "ready":
        raise RuntimeError(f"the watchers do not watch: {line!r}")


def _stamped(request: Request) -> Request:
    method, path, number = request
    metadata = {
        "name": f"watched-{number.decode()}", "labels": {"sent": str(time.monotonic_ns())},
    }  # fmt: skip
    return method, path, json.dumps({"metadata": metadata}, separators=(",", ":")).encode()


def _a_volume(name: str, gib: int) -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": f"{gib}Gi"},
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "bench",
            "nfs": {"server": "192.0.2.1", "path": f"/{name}"},
        },
    }


def _a_claim(name: str, gib: int, storage_class: str = "bench") -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": storage_class,
            "resources": {"requests": {"storage": f"{gib}Gi"}},
        },
    }


def measure_binds(daemon: Daemon, figure: str, count: int) -> Iterator[Figure]:
    """`binds_per_s`: claims of random sizes to as many volumes, first POST to last one Bound."""
    name = f"bind{count}"
    sizes = random.Random(_SEED)
    volumes = [
        _post(VOLUMES, _a_volume(f"{name}-{number}", sizes.randint(50, 100)))
        for number in range(count)
    ]
    asyncio.run(send_all(daemon.socket, volumes, CLIENTS))
    asyncio.run(_wait_for_phase(daemon, VOLUMES, name, "Available", count))
    claims = [
        _post(f"{NAMESPACE}/persistentvolumeclaims", _a_claim(f"{name}-{n}", sizes.randint(1, 50)))
        for n in range(count)
    ]
    began = time.perf_counter()
    asyncio.run(_bind(daemon, claims, name, count))
    took_s = time.perf_counter() - began
    yield Figure(figure, "1/s", [count / took_s], ">= 1200" if count < 10_000 else ">= 1000",
                 f"{count} claims, {count} volumes of the same class, 32 clients")  # fmt: skip
    asyncio.run(_clear(daemon, name, count))


async def _bind(daemon: Daemon, claims: list[Request], name: str, count: int) -> None:
    path = f"{NAMESPACE}/persistentvolumeclaims"
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_wait_for_phase(daemon, path, name, "Bound", count))
        await send_all(daemon.socket, claims, CLIENTS)


async def _wait_for_phase(daemon: Daemon, path: str, name: str, phase: str, count: int) -> None:
    """Watch until so many objects of that name have been in the phase."""
    reader, writer = await asyncio.open_unix_connection(str(daemon.socket), limit=2**24)
    writer.write(f"GET {path}?watch=1 HTTP/1.1\r\nHost: v\r\n\r\n".encode())
    wanted, named = f'"phase":"{phase}"'.encode(), f'"name":"{name}-'.encode()
    reached: set[bytes] = set()
    rest = b""
    while len(reached) < count:
        data = await reader.read(2**18)
        if not data:
            raise ConnectionError("the watch ended")
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            at = line.find(named)
            if at >= 0 and wanted in line:
                reached.add(line[at : line.index(b'"', at + 8)])
    writer.close()


async def _clear(daemon: Daemon, name: str, count: int) -> None:
    """Delete the claims and volumes of a round and wait until they are gone."""
    claims = f"{NAMESPACE}/persistentvolumeclaims"
    for path in (claims, VOLUMES):
        gone = [("DELETE", f"{path}/{name}-{number}", b"") for number in range(count)]
        await send_all(daemon.socket, gone, CLIENTS)
        connection = await Connection.open(daemon.socket)
        while (await connection.must("GET", f"{path}?limit=1"))["items"]:
            await asyncio.sleep(0.1)
        connection.close()


def measure_provisioning(daemon: Daemon) -> Iterator[Figure]:
    """`provision_ms`: a claim posted to its dynamic directory volume Bound, one at a time."""
    values = asyncio.run(_provision(daemon))
    yield Figure("provision_ms", "ms", values, "median <= 8", "directory.volagent.dev")


async def _provision(daemon: Daemon) -> list[float]:
    connection = await Connection.open(daemon.socket)
    await connection.must("POST", CLASSES, {
        "metadata": {"name": "directories"}, "provisioner": "directory.volagent.dev",
        "parameters": {"volagent.dev/trash-retention": "0"},
    })  # fmt: skip
    path = f"{NAMESPACE}/persistentvolumeclaims"
    values = []
    for number in range(PROVISIONED):
        name = f"dynamic{number}"
        async with asyncio.TaskGroup() as tasks:
            seen = tasks.create_task(_wait_for_phase(daemon, path, name, "Bound", 1))
            await asyncio.sleep(0.01)
            began = time.perf_counter()
            await connection.must("POST", path, _a_claim(f"{name}-0", 1, "directories"))
            await seen
        values.append((time.perf_counter() - began) * 1000)
    # Not in between: the reclaim of one volume would be measured with the making of the next.
    for number in range(PROVISIONED):
        await connection.must("DELETE", f"{path}/dynamic{number}-0")
    connection.close()
    return values


def run_claims(base: Path, *, quick: bool) -> Iterator[Figure]:
    """Every figure of the control plane, on a daemon of its own."""
    daemon = Daemon(base)
    base.mkdir(parents=True, exist_ok=True)
    (base / "volagent.toml").write_text(
        '[log]\nlevel = "warning"\n[runtime]\ncdi_dir = ""\n[auth]\n'
        "mount_service_account_token = false\n"
    )
    daemon.start()
    try:
        yield from measure_provisioning(daemon)
        yield from measure_creates(daemon, 1 if quick else 3)
        yield from measure_watch_lag(daemon)
        yield from measure_binds(daemon, "binds_per_s", CLAIMS_FEW)
        if not quick:
            yield from measure_binds(daemon, "binds_per_s_20000", CLAIMS_MANY)
        yield Figure("rss_mb_after", "MB", [daemon.ps.memory_info().rss / 1e6], "", "whole daemon")
    finally:
        daemon.stop()
        shutil.rmtree(base, ignore_errors=True)
