"""What a scrape says about volumes: fresh enough, never late, nothing of what is not there."""

import asyncio

from tests.simulation.harness import Machine, a_pod, bound_pair
from tests.simulation.virtual_time import run_virtually
from volagent.client.contract import CLAIMS, PERSISTENT_VOLUMES, PODS
from volagent.host.contract import Usage
from volagent.node.stats import MEASURE_EVERY_S, MEASURE_TIMEOUT_S, SCRAPE_WAIT_S

SERVER = "nfs:10.0.0.5"
NFS = {"nfs": {"server": "10.0.0.5", "path": "/data"}}
EMPTY = Usage(1000, 900, 100, 50, 40)
FULL = Usage(1000, 0, 1000, 50, 0)


async def bring_up(machine, name, **source):
    """A pod with one claim of its own, ready."""
    pv, claim = bound_pair(name, **source)
    claim = await machine.declare(CLAIMS, claim)
    pv["spec"]["claimRef"]["uid"] = claim["metadata"]["uid"]
    await machine.declare(PERSISTENT_VOLUMES, pv)
    bound = {"status": {"phase": "Bound"}}
    await machine.client.patch(CLAIMS, name, bound, "default", subresource="status")
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": name}}
    await machine.declare(PODS, a_pod(name, volume))
    await machine.wait_ready(name)


def image(machine, name):
    machine.kernel.add_image(f"/images/{name}.img", 64 << 20)
    attributes = {"path": f"/images/{name}.img"}
    return {
        "csi": {
            "driver": "image.volagent.dev", "volumeHandle": name, "volumeAttributes": attributes,
        }
    }  # fmt: skip


async def scrape(machine, claim):
    """What is said about a claim: the values by the metric's short name."""
    found = {}
    for line in (await machine.stats.render()).decode().splitlines():
        name, _, value = line.rpartition(" ")
        metric, _, labels = name.partition("{")
        if labels == f'namespace="default",persistentvolumeclaim="{claim}"}}':
            found[metric.removeprefix("kubelet_volume_stats_")] = float(value)
    return found


async def count(machine):
    """How many emptyDir volumes there are, by state."""
    start = 'volume_manager_total_volumes{plugin_name="kubernetes.io/empty-dir",state="'
    return {
        line.removeprefix(start).partition("_")[0]: float(line.rpartition(" ")[2])
        for line in (await machine.stats.render()).decode().splitlines()
        if line.startswith(start)
    }


def shown(usage):
    return {
        "capacity_bytes": usage.capacity_bytes,
        "available_bytes": usage.available_bytes,
        "used_bytes": usage.used_bytes,
        "inodes": usage.inodes,
        "inodes_free": usage.inodes_free,
        "inodes_used": usage.inodes - usage.inodes_free,
    }


def test_first_scrape_says_how_full_a_claim_is_and_the_next_measures_only_after_a_minute(tmp_path):
    async def main():
        machine = Machine(tmp_path)
        await machine.bootstrap()
        async with machine.run_agent():
            await bring_up(machine, "minute", **image(machine, "minute"))
            machine.kernel.usage = EMPTY
            assert await scrape(machine, "minute") == shown(EMPTY)
            machine.kernel.usage = FULL
            await asyncio.sleep(MEASURE_EVERY_S - 1)
            assert await scrape(machine, "minute") == shown(EMPTY)
            await asyncio.sleep(1)
            assert await scrape(machine, "minute") == shown(FULL)

    run_virtually(main())


def test_claim_is_said_nothing_about_once_its_pod_is_gone(tmp_path):
    async def main():
        machine = Machine(tmp_path)
        await machine.bootstrap()
        async with machine.run_agent():
            await bring_up(machine, "gone", **image(machine, "gone"))
            assert await scrape(machine, "gone")
            await machine.client.delete(PODS, "gone", "default")
            await machine.wait_gone("gone")
            assert await scrape(machine, "gone") == {}

    run_virtually(main())


def test_dead_server_costs_only_its_own_claims_and_no_scrape_its_time(tmp_path):
    async def main():
        machine = Machine(tmp_path)
        await machine.bootstrap()
        async with machine.run_agent():
            await bring_up(machine, "alive", **image(machine, "alive"))
            await bring_up(machine, "dead", **NFS)
            assert await scrape(machine, "dead")
            await asyncio.sleep(MEASURE_EVERY_S)
            machine.kernel.hung.add(SERVER)
            machine.kernel.usage = FULL
            began_s = machine.clock.monotonic()
            assert await scrape(machine, "alive") == shown(FULL)
            assert machine.clock.monotonic() - began_s <= SCRAPE_WAIT_S
            await asyncio.sleep(MEASURE_TIMEOUT_S)
            assert await scrape(machine, "dead") == {}
            assert await scrape(machine, "alive") == shown(FULL)
            machine.kernel.hung.clear()
            await asyncio.sleep(MEASURE_EVERY_S)
            assert await scrape(machine, "dead") == shown(FULL)

    run_virtually(main())


def test_volumes_are_counted_by_driver_as_wanted_and_as_they_are(tmp_path):
    async def main():
        machine = Machine(tmp_path)
        await machine.bootstrap()
        async with machine.run_agent():
            await machine.declare(PODS, a_pod("empty", {"name": "e", "emptyDir": {}}))
            await machine.wait_ready("empty")
            assert await count(machine) == {"desired": 1, "actual": 1}
            await machine.client.delete(PODS, "empty", "default")
            await machine.wait_gone("empty")
            assert await count(machine) == {}

    run_virtually(main())
