"""What a large cluster's store holds: copies of objects that the real parts have made.

One pod with two volumes is declared to a real server and goes all its way: scheduled, bound,
protected. Its objects, as the store has them then, are the pattern of all others, which are written
into another etcd by what restores a backup (`store/etcd_fill.py`). Nodes, leases and attachments
are not copied: simulated agents and the controllers make them.
"""

import asyncio
import copy
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from bench.daemon import Connection, Daemon
from bench.scale_agents import DISK
from volagent.api.resources import TRAITS
from volagent.objects.annotations import PLACED_ON
from volagent.objects.backup import Snapshot
from volagent.store.etcd import open_etcd_store
from volagent.store.etcd_client import EtcdClient
from volagent.store.etcd_fill import fill
from volagent.store.etcd_layout import Layout

Json = dict[str, Any]

PREFIX: Final = "volagent"
TARGET: Final = "iqn.2026-01.test.bench:disks-{}"
LUNS: Final = 200
"""Of one target."""
NAMESPACE: Final = "/api/v1/namespaces/default"
EXCLUSIVE_EACH: Final = 10
"""Every tenth pod's first volume is an exclusive disk; all else are shared files."""
WITHIN_S: Final = 60.0
_LEFT_OUT: Final = frozenset({
    "pods", "persistentvolumes", "persistentvolumeclaims", "nodes", "leases", "csinodes", "events",
    "volumeattachments", "fencings",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Pattern:
    """The pattern's objects by kind, and everything else that a cluster has from its first day."""

    others: list[tuple[str, bytes]]
    pod: Json
    claim: Json
    volume: Json


def node_name(number: int) -> str:
    """Of a simulated agent."""
    return f"node-{number:04}"


def disk_name(number: int) -> str:
    """The unique name of the disk of a volume."""
    return f"kubernetes.io/iscsi/{TARGET.format(number // LUNS)}:lun-{number % LUNS}"


def _source(number: int, *, exclusive: bool) -> Json:
    if exclusive:
        target = TARGET.format(number // LUNS)
        return {"iscsi": {"targetPortal": "192.0.2.1:3260", "iqn": target, "lun": number % LUNS,
                          "fsType": "ext4"}}  # fmt: skip
    return {"nfs": {"server": "192.0.2.2", "path": f"/exports/{number:06}"}}


def _declared() -> Iterator[tuple[str, Json]]:
    size = {"storage": "1Gi"}
    for number in range(2):
        name = f"pattern-{number}"
        spec = {"accessModes": ["ReadWriteOnce"], "storageClassName": ""}
        yield (
            f"{NAMESPACE}/persistentvolumeclaims",
            {
                "metadata": {"name": name},
                "spec": {**spec, "volumeName": name, "resources": {"requests": size}},
            },
        )
        reference = {"kind": "PersistentVolumeClaim", "namespace": "default", "name": name}
        yield "/api/v1/persistentvolumes", {
            "metadata": {"name": name},
            "spec": {**spec, "capacity": size, "claimRef": reference,
                     "persistentVolumeReclaimPolicy": "Retain", **_source(0, exclusive=False)},
        }  # fmt: skip
    uses = [{"name": f"v{number}", "persistentVolumeClaim": {"claimName": f"pattern-{number}"}}
            for number in range(2)]  # fmt: skip
    mounts = [{"name": f"v{number}", "mountPath": f"/v{number}"} for number in range(2)]
    container = {"name": "main", "image": "none", "volumeMounts": mounts}
    yield (
        f"{NAMESPACE}/pods",
        {
            "metadata": {
                "name": "pattern",
                "annotations": {DISK: ""},
                "labels": {"app": "pattern"},
            },
            "spec": {"containers": [container], "volumes": uses},
        },
    )


async def declare_pattern(server: Daemon) -> None:
    """Declare it, and wait until it has gone all its way."""
    connection = await Connection.open(server.socket)
    for path, document in _declared():
        await connection.must("POST", path, document)
    async with asyncio.timeout(WITHIN_S):
        while not await _is_complete(connection):
            await asyncio.sleep(0.2)
    await asyncio.sleep(1.0)  # who writes last is not known
    connection.close()


async def _is_complete(connection: Connection) -> bool:
    pod = await connection.must("GET", f"{NAMESPACE}/pods/pattern")
    claims = await connection.must("GET", f"{NAMESPACE}/persistentvolumeclaims")
    volumes = await connection.must("GET", "/api/v1/persistentvolumes")
    bound = [each["status"].get("phase") == "Bound" and bool(each["metadata"].get("finalizers"))
             for each in (*claims["items"], *volumes["items"])]  # fmt: skip
    return all(bound) and bool(pod["status"].get("conditions")) and (
        pod["status"].get("phase") == "Running"
    )  # fmt: skip


async def read_pattern(endpoints: Sequence[str]) -> Pattern:
    """What the store holds once the server has ended."""
    store = await open_etcd_store(endpoints, PREFIX)
    try:
        kept: dict[str, list[tuple[str, bytes]]] = {}
        for traits in TRAITS:
            found, _ = await store.list(traits.prefix)
            kept.setdefault(traits.resource.plural, []).extend(
                (each.key, each.value) for each in found
            )
    finally:
        await store.close()
    others = [each for plural, all_of_it in kept.items() if plural not in _LEFT_OUT
              for each in all_of_it]  # fmt: skip
    first = [msgspec.json.decode(kept[plural][0][1])
             for plural in ("pods", "persistentvolumeclaims", "persistentvolumes")]  # fmt: skip
    return Pattern(others, *first)


def make_objects(pattern: Pattern, agents: int, pods: int) -> Iterator[tuple[str, bytes]]:
    """The store's content: `pods` pods, evenly on `agents` nodes, each with two volumes."""
    yield from pattern.others
    for number in range(pods):
        exclusive = number // agents % EXCLUSIVE_EACH == 0
        names = [f"volume-{number:05}-{each}" for each in range(2)]
        for each, name in enumerate(names):
            yield from _make_volume(pattern, name, 2 * number + each,
                                    exclusive=exclusive and each == 0)  # fmt: skip
        pod = copy.deepcopy(pattern.pod)
        metadata, spec = pod["metadata"], pod["spec"]
        name, node = f"pod-{number:05}", node_name(number % agents)
        metadata |= {"name": name, "uid": str(uuid.uuid4())}
        metadata["annotations"][DISK] = disk_name(2 * number) if exclusive else ""
        metadata["annotations"][PLACED_ON] = node
        spec["nodeName"] = node
        for each, claim in enumerate(names):
            spec["volumes"][each]["persistentVolumeClaim"]["claimName"] = claim
        yield f"/pods/default/{name}", msgspec.json.encode(pod)


def _make_volume(
    pattern: Pattern, name: str, number: int, *, exclusive: bool
) -> Iterator[tuple[str, bytes]]:
    claim, volume = copy.deepcopy(pattern.claim), copy.deepcopy(pattern.volume)
    claim["metadata"] |= {"name": name, "uid": str(uuid.uuid4())}
    claim["spec"]["volumeName"] = name
    volume["metadata"] |= {"name": name, "uid": str(uuid.uuid4())}
    volume["spec"]["claimRef"] |= {"name": name, "uid": claim["metadata"]["uid"]}
    volume["spec"].pop("nfs")
    volume["spec"] |= _source(number, exclusive=exclusive)
    yield f"/persistentvolumeclaims/default/{name}", msgspec.json.encode(claim)
    yield f"/persistentvolumes/{name}", msgspec.json.encode(volume)


async def fill_store(endpoints: Sequence[str], pattern: Pattern, agents: int, pods: int) -> None:
    """Write everything into an empty etcd."""
    client = EtcdClient(endpoints, None)
    try:
        objects = list(make_objects(pattern, agents, pods))
        await fill(client, Layout(PREFIX), Snapshot(0, objects, {}), replace=False)
    finally:
        await client.close()
