"""The measurements: each yields figures, a name, values, a unit, and what they are beside."""

import asyncio
import json
import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.daemon import Connection, Daemon, mount_ids, unmount_below
from bench.floor import measure_floor
from bench.pods import FOUR, NAMESPACE, TMPFS_TWICE, a_pod, declare_sources, is_mounted

PODS = 1000
CLIENTS = 16
LATENCY_RUNS = 200
IDLE_S = 60.0
UNMOUNTS = 30


@dataclass
class Figure:
    """One measured figure."""

    name: str
    unit: str
    values: list[float]
    target: str
    note: str = ""
    extra: dict[str, Any] = field(default_factory=dict)

    def line(self) -> str:
        """The JSON line that is printed."""
        ordered = sorted(self.values)
        document = {
            "figure": self.name,
            "unit": self.unit,
            "median": round(statistics.median(ordered), 3),
            "max": round(ordered[-1], 3),
            "min": round(ordered[0], 3),
            "runs": len(ordered),
            "target": self.target,
            **self.extra,
        }
        if len(ordered) >= 100:
            document["p99"] = round(ordered[int(len(ordered) * 0.99) - 1], 3)
        if self.note:
            document["note"] = self.note
        return json.dumps(document)


async def _declare_and_wait(
    connection: Connection, root: Path, name: str, delay_s: float
) -> tuple[float, str]:
    """One pod: milliseconds from the first byte sent to all volumes seen in the file system."""
    document = a_pod(name)
    await asyncio.sleep(delay_s)
    began = time.perf_counter()
    answer = await connection.must("POST", f"{NAMESPACE}/pods", document)
    uid = answer["metadata"]["uid"]
    while not is_mounted(root, uid):
        if time.perf_counter() - began > 10:
            raise TimeoutError(f"{name} was not mounted")
        await asyncio.sleep(0)
    return (time.perf_counter() - began) * 1000, uid


async def measure_latency(daemon: Daemon, prefix: str, runs: int) -> list[float]:
    """`declare_to_mounted_ms`, one pod at a time on an idle daemon; the pods are withdrawn."""
    connection = await Connection.open(daemon.socket)
    values = []
    for number in range(runs):
        took_ms, _ = await _declare_and_wait(connection, daemon.root, f"{prefix}-{number}", 0.01)
        values.append(took_ms)
    for number in range(runs):
        await connection.must("DELETE", f"{NAMESPACE}/pods/{prefix}-{number}?gracePeriodSeconds=0")
    await _wait_gone(daemon)
    connection.close()
    return values


async def _in_parallel(daemon: Daemon, requests: list[tuple[str, str, bytes]]) -> list[bytes]:
    """Send all requests over `CLIENTS` connections; the answers in order."""
    answers: list[bytes] = [b""] * len(requests)
    numbers = iter(range(len(requests)))

    async def client() -> None:
        connection = await Connection.open(daemon.socket)
        for number in numbers:
            status, answer = await connection.ask(*requests[number])
            if status >= 300:
                raise RuntimeError(f"{requests[number][:2]}: {status} {answer[:300]!r}")
            answers[number] = answer
        connection.close()

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return answers


async def declare_many(
    daemon: Daemon, prefix: str, count: int, volumes: Any = FOUR
) -> tuple[float, list[str]]:
    """Declare pods with 16 clients; seconds until all are mounted, and their uids."""
    requests = [
        ("POST", f"{NAMESPACE}/pods", json.dumps(a_pod(f"{prefix}-{n}", volumes)).encode())
        for n in range(count)
    ]
    began = time.perf_counter()
    answers = await _in_parallel(daemon, requests)
    uids = [json.loads(answer)["metadata"]["uid"] for answer in answers]
    waiting = list(uids)
    while waiting:
        waiting = [uid for uid in waiting if not _all_there(daemon.root, uid, volumes)]
        if time.perf_counter() - began > 120:
            raise TimeoutError(f"{len(waiting)} pods were not mounted")
        await asyncio.sleep(0.005)
    return time.perf_counter() - began, uids


def _all_there(root: Path, uid: str, volumes: Any) -> bool:
    if volumes is FOUR:
        return is_mounted(root, uid)
    base = f"{root}/pods/{uid}/volumes/kubernetes.io~empty-dir"
    return all(os.path.exists(f"{base}/{name}") for name, _, _ in volumes)


async def withdraw_many(daemon: Daemon, prefix: str, count: int) -> float:
    """Delete pods with 16 clients; seconds until nothing of them is left."""
    requests = [
        ("DELETE", f"{NAMESPACE}/pods/{prefix}-{n}?gracePeriodSeconds=0", b"") for n in range(count)
    ]
    before = len(os.listdir(daemon.root / "pods")) - count
    began = time.perf_counter()
    await _in_parallel(daemon, requests)
    while len(os.listdir(daemon.root / "pods")) > before:
        if time.perf_counter() - began > 120:
            raise TimeoutError("pods are left")
        await asyncio.sleep(0.005)
    return time.perf_counter() - began


async def _wait_gone(daemon: Daemon) -> None:
    while (daemon.root / "pods").is_dir() and os.listdir(daemon.root / "pods"):
        await asyncio.sleep(0.01)


def measure_bulk(daemon: Daemon, rounds: int) -> Iterator[Figure]:
    """`bulk_pods_per_s` and `withdraw_pods_per_s`, with the floor of the same run."""
    declared, withdrawn, floors = [], [], []
    for number in range(rounds):
        floors.append(PODS / measure_floor(daemon.base / "floor", PODS))
        took_s, _ = asyncio.run(declare_many(daemon, f"bulk{number}", PODS))
        declared.append(PODS / took_s)
        withdrawn.append(PODS / asyncio.run(withdraw_many(daemon, f"bulk{number}", PODS)))
    floor = statistics.median(floors)
    ratio = round(statistics.median(declared) / floor, 3)
    yield Figure(
        "bulk_pods_per_s", "1/s", declared, ">= 500",
        extra={"floor_pods_per_s": round(floor, 1), "ratio_to_floor": ratio},
    )  # fmt: skip
    yield Figure("withdraw_pods_per_s", "1/s", withdrawn, ">= 500")


def measure_recovery(daemon: Daemon, rounds: int) -> Iterator[Figure]:
    """`recover_s` with what is declared now; fails when a single mount changed."""
    values = []
    before = mount_ids(daemon.root)
    for _ in range(rounds):
        daemon.kill()
        values.append(daemon.start())
        after = mount_ids(daemon.root)
        if after != before:
            raise AssertionError(f"{len(before ^ after)} mounts changed over the restart")
    yield Figure(
        "recover_s", "s", values, "<= 1.0", "process start to /readyz",
        extra={"mounts_unchanged": len(before)},
    )  # fmt: skip


def measure_idle(daemon: Daemon, idle_s: float) -> Iterator[Figure]:
    """`idle_cpu_percent` and `rss_mb` with what is declared now."""
    time.sleep(2)
    before = daemon.ps.cpu_times()
    time.sleep(idle_s)
    after = daemon.ps.cpu_times()
    used_s = after.user + after.system - before.user - before.system
    yield Figure("idle_cpu_percent", "%", [100 * used_s / idle_s], "<= 0.3", f"over {idle_s:g} s")
    yield Figure("rss_mb_1000_pods", "MB", [daemon.ps.memory_info().rss / 1e6], "<= 150")


def measure_one_event(daemon: Daemon, uids: list[str]) -> Iterator[Figure]:
    """`one_event_cost`: unmount one by hand, time until it is mounted again."""
    values = []
    for uid in uids[:UNMOUNTS]:
        target = f"{daemon.root}/pods/{uid}/volumes/kubernetes.io~empty-dir/memory"
        parent = os.stat(os.path.dirname(target)).st_dev
        subprocess.run(["umount", "-n", target], check=True)
        began = time.perf_counter()
        while os.stat(target).st_dev == parent:
            if time.perf_counter() - began > 10:
                raise TimeoutError("the mount did not come back")
        values.append((time.perf_counter() - began) * 1000)
    yield Figure(
        "one_event_cost", "ms", values, "<= 20", "from the end of umount(8)",
        extra={"mounts": len(mount_ids(daemon.root))},
    )  # fmt: skip


def measure_hung(daemon: Daemon, baseline: list[float]) -> Iterator[Figure]:
    """`hung_backend`: 20 volumes on a server whose mount never returns, beside other pods."""
    asyncio.run(_declare_hung(daemon))
    values = asyncio.run(measure_beside(daemon))
    yield Figure(
        "hung_backend", "ms", values, "unchanged within noise",
        "declare_to_mounted_ms of other pods while mount.nfs hangs for 20 volumes",
        extra={"without_hung_backend_median": round(statistics.median(baseline), 3)},
    )  # fmt: skip


async def measure_beside(daemon: Daemon) -> list[float]:
    """`declare_to_mounted_ms` while other volumes hang."""
    connection = await Connection.open(daemon.socket)
    values = []
    for number in range(100):
        took_ms, _ = await _declare_and_wait(connection, daemon.root, f"beside-{number}", 0.01)
        values.append(took_ms)
    connection.close()
    return values


async def _declare_hung(daemon: Daemon) -> None:
    connection = await Connection.open(daemon.socket)
    for number in range(20):
        volume = ("data", "nfs", {"nfs": {"server": "192.0.2.1", "path": f"/v{number}"}})
        await connection.must("POST", f"{NAMESPACE}/pods", a_pod(f"hung-{number}", (volume,)))
    await asyncio.sleep(1.0)
    connection.close()


def hang_nfs_mounts(directory: Path) -> None:
    """In this mount namespace, let `mount.nfs` be a program that never returns."""
    fake = directory / "mount.nfs"
    fake.write_text("#!/bin/sh\nexec sleep 1000000\n")
    fake.chmod(0o755)
    for name in ("/sbin/mount.nfs", "/sbin/mount.nfs4"):
        if os.path.exists(name):
            subprocess.run(["mount", "--bind", str(fake), os.path.realpath(name)], check=True)


def run_all(base: Path, *, quick: bool) -> Iterator[Figure]:
    """Every figure, in an order in which one prepares the next."""
    rounds = 1 if quick else 3
    hang_nfs_mounts(base)
    daemon = Daemon(base)
    (base / "volagent.toml").write_text(
        '[log]\nlevel = "warning"\n[runtime]\ncdi_dir = ""\n[auth]\n'
        "mount_service_account_token = false\n"
    )
    daemon.start()
    try:
        time.sleep(1)
        yield Figure("rss_mb_idle", "MB", [daemon.ps.memory_info().rss / 1e6], "<= 70")
        asyncio.run(_prepare(daemon))
        latency = asyncio.run(measure_latency(daemon, "one", 50 if quick else LATENCY_RUNS))
        yield Figure("declare_to_mounted_ms", "ms", latency, "median <= 4, p99 <= 15")
        yield from measure_bulk(daemon, rounds)
        _, uids = asyncio.run(declare_many(daemon, "stay", PODS))
        yield from measure_recovery(daemon, 3 * rounds)
        yield from measure_idle(daemon, 10.0 if quick else IDLE_S)
        asyncio.run(declare_many(daemon, "more", PODS, TMPFS_TWICE))
        yield from measure_one_event(daemon, uids)
        asyncio.run(withdraw_many(daemon, "more", PODS))
        asyncio.run(withdraw_many(daemon, "stay", PODS))
        asyncio.run(_wait_gone(daemon))
        yield from measure_hung(daemon, latency)
    finally:
        daemon.stop()
        unmount_below(base)
        shutil.rmtree(base, ignore_errors=True)


async def _prepare(daemon: Daemon) -> None:
    connection = await Connection.open(daemon.socket)
    await declare_sources(connection)
    for number in range(20):  # warm up: imports, page cache, SQLite's WAL
        await _declare_and_wait(connection, daemon.root, f"warm-{number}", 0.0)
    await withdraw_many(daemon, "warm", 20)
    connection.close()
