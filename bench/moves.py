"""`move_s`: a pod's LUN goes from one VM to another; User-Mode-Linux machines, a real target.

Both pods are declared: the second waits for the disk. The clock runs from the deletion of the first
until the second one's volume is mounted. What is not ours is measured apart, on the same machines
at the same moment: the programs alone, as a script that does the same by hand. The share that is
ours is what the agents' own clocks leave when the programs that they started are taken off.
"""

import re
import sys
import time
from collections.abc import Iterator
from typing import Any

from bench.figures import Figure
from tests.cluster import manifests
from tests.cluster.lab.cluster import Agent, Cluster, on
from tests.cluster.lab.iscsi_initiator import IscsiInitiator, source
from tests.cluster.lab.iscsi_target import IscsiTarget
from tests.cluster.lab.lab import UmlLab, find_obstacle

ROUNDS = 5
_PROGRAM_SECONDS = re.compile(r'^volagent_program_seconds_sum\{program="(.*)"\} (.*)$', re.M)
_BY_HAND_AWAY = """
begun=$(date +%s%N)
umount /mnt/by-hand
blockdev --flushbufs $(readlink -f /dev/disk/by-path/*{iqn}*lun-{lun})
iscsiadm -m node -T {iqn} -p {portal} --logout >/dev/null
echo $(( ($(date +%s%N) - begun) / 1000000 ))
"""
_BY_HAND_HERE = """
mkdir -p /mnt/by-hand
iscsiadm -m discovery -t sendtargets -p {portal} >/dev/null
begun=$(date +%s%N)
iscsiadm -m node -T {iqn} -p {portal} --login >/dev/null
until [ -e /dev/disk/by-path/*{iqn}*lun-{lun} ]; do sleep 0.02; done
disk=$(readlink -f /dev/disk/by-path/*{iqn}*lun-{lun})
blkid -p $disk >/dev/null || mkfs.ext4 -q $disk
e2fsck -p $disk >/dev/null
mount $disk /mnt/by-hand
echo $(( ($(date +%s%N) - begun) / 1000000 ))
"""


def measure_moves() -> Iterator[Figure]:
    """`move_s`, and what the programs alone take."""
    obstacle = find_obstacle()
    if obstacle is not None:
        print(f"move_s is not measured: {obstacle}", file=sys.stderr)
        return
    with UmlLab() as lab:
        cluster = Cluster.build(lab)
        target = IscsiTarget(cluster.storage)
        target.serve()
        for node in cluster.nodes:
            IscsiInitiator(node.machine).start()
        moves, ours = _move(cluster, target)
        floors = _by_hand(cluster, target)
    yield Figure(
        "move_s", "s", moves, "<= 3",
        "a pod's iSCSI volume: deleted on node01 to mounted on node02, User-Mode-Linux",
        extra={
            "floor_s": round(sorted(floors)[len(floors) // 2], 3),
            "ours_s": round(sorted(ours)[len(ours) // 2], 3),
        },
    )  # fmt: skip


def _move(cluster: Cluster, target: IscsiTarget) -> tuple[list[float], list[float]]:
    """How long each move took, and how much of it no program of others' ran."""
    target.make_disk("moving", 64)
    target.show(1, "moving")
    iscsi = {"iscsi": source(target, 1, fsType="ext4")}
    cluster.server.declare(*manifests.bound_pair("moving", iscsi, access_mode="ReadWriteOnce"))
    here, there = cluster.nodes
    pod = _pod(0)
    cluster.server.declare_ready(on(pod, here), within_s=60)
    values, ours = [], []
    for number in range(1, ROUNDS + 1):
        following = _pod(number)
        cluster.server.declare(on(following, there))
        time.sleep(1.0)  # it has been refused, and waits
        before = _in_programs(cluster)
        values.append(cluster.server.replace_ready(pod, following, within_s=60).took_ms / 1000)
        ours.append(values[-1] - (_in_programs(cluster) - before))
        pod, here, there = following, there, here
    cluster.server.delete_gone(pod)
    return values, ours


def _in_programs(cluster: Cluster) -> float:
    """How many seconds the agents' programs have run, one after the other as a disk's steps are."""
    return sum(
        float(seconds)
        for node in cluster.nodes
        for program, seconds in _PROGRAM_SECONDS.findall(node.metrics())
        if program != "volagent"
    )


def _pod(number: int) -> dict[str, Any]:
    return manifests.pod(f"moving-{number}", [manifests.claim_volume("data", "moving")])


def _by_hand(cluster: Cluster, target: IscsiTarget) -> list[float]:
    """The same with the programs alone: away from one machine, then on the other."""
    target.make_disk("by-hand", 64)
    target.show(2, "by-hand")
    here, there = cluster.nodes
    _run(here, target, _BY_HAND_HERE)
    values = []
    for _ in range(ROUNDS):
        values.append(
            (_run(here, target, _BY_HAND_AWAY) + _run(there, target, _BY_HAND_HERE)) / 1e3
        )
        here, there = there, here
    _run(here, target, _BY_HAND_AWAY)
    return values


def _run(node: Agent, target: IscsiTarget, script: str) -> float:
    text = script.format(iqn=target.iqn, lun=2, portal=target.portals[0])
    return float(node.machine.run(text).out)
