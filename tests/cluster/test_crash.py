"""A daemon that is killed and a machine that loses its power: nothing is lost, nothing done twice.

The machine's kernel is 6.1: without `statmount` and without mount events from fanotify, so
recovery and drift repair stand on `/proc/self/mountinfo` here.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.cluster import manifests
from tests.cluster.lab.machine import Hardware, Lab
from tests.cluster.lab.nfs_server import NfsServer
from tests.cluster.lab.node import Json, VolagentNode

NFS = "kubernetes.io~nfs"
EMPTY_DIR = "kubernetes.io~empty-dir"
SECRET = "kubernetes.io~secret"
CSI = "kubernetes.io~csi"
IMAGE_MIB = 64


@dataclass(frozen=True)
class World:
    """A pod with a volume of every sort, ready, with a file in each that can be written."""

    node: VolagentNode
    pod: Json
    volumes: str
    """The pod's directory of volumes."""
    written: tuple[str, ...]
    """The files below it that outlive the daemon; each holds its own name."""

    def read(self, *files: str) -> list[str]:
        paths = " ".join(f"{self.volumes}/{file}" for file in files)
        return self.node.machine.run(f"cat {paths}").out.splitlines()


@pytest.fixture(scope="module")
def machines(lab: Lab) -> tuple[NfsServer, VolagentNode]:
    export = lab.add_machine("nfs", Hardware(disks_mib=(64,)))
    node = VolagentNode(lab.add_machine("node", Hardware(memory_mib=640, disks_mib=(384,))))
    lab.start_all()
    server = NfsServer(export, export.disks[0])
    server.serve()
    server.make_directory("shared")
    node.start()
    volume, claim = manifests.bound_pair(
        "image",
        manifests.image_source("image", f"{node.data}/image.img"),
        access_mode="ReadWriteOnce",
        capacity=f"{IMAGE_MIB}Mi",
    )
    token = manifests.secret("token", key="secret value")
    node.declare(volume, claim, token)
    return server, node


@pytest.fixture
def world(machines: tuple[NfsServer, VolagentNode]) -> Iterator[World]:
    server, node = machines
    pod = manifests.pod(
        "whole",
        [
            manifests.claim_volume("image", "image"),
            manifests.nfs("shared", server.address, server.path("shared")),
            {"name": "token", "secret": {"secretName": "token"}},
            manifests.scratch("memory", "Memory"),
            manifests.scratch("disk"),
        ],
    )
    node.declare_ready(pod)
    written = (
        f"{CSI}/pv-image/mount/note",
        f"{NFS}/shared/note",
        f"{EMPTY_DIR}/memory/note",
        f"{EMPTY_DIR}/disk/note",
    )
    volumes = f"{node.pod_directory(pod)}/volumes"
    for file in written:
        node.machine.run(f"echo {file} >{volumes}/{file}; sync {volumes}/{file}")
    yield World(node, pod, volumes, written)
    if not node.is_running():
        node.start()
    node.delete_gone(pod)
    node.wait_clean()
    node.machine.run('until [ -z "$(losetup --list --noheadings)" ]; do sleep 0.1; done')


def describe_image(node: VolagentNode) -> str:
    """What changes when the image is formatted or mounted once more."""
    return node.machine.run(
        f"dumpe2fs -h {node.data}/image.img 2>/dev/null | grep -E 'UUID|created|Mount count'"
    ).out


def test_killed_daemon_remounts_nothing_and_loses_nothing(
    world: World, figure: Callable[[str, float], None]
):
    node = world.node
    mounts, image, loops = node.mounts(), describe_image(node), list_loops(node)
    node.kill()
    figure("daemon ready after kill -9, 5 volumes", node.start().took_ms)
    node.wait_ready(world.pod)
    assert node.mounts() == mounts
    assert describe_image(node) == image
    assert list_loops(node) == loops
    assert world.read(*world.written) == list(world.written)


def test_stopped_daemon_leaves_the_volumes_to_their_pods(world: World):
    node = world.node
    mounts = node.mounts()
    node.stop()
    assert node.mounts() == mounts
    assert world.read(*world.written) == list(world.written)
    node.start()
    node.wait_ready(world.pod)
    assert node.mounts() == mounts


def test_pod_deleted_while_the_daemon_is_dead_is_taken_down_after_its_return(world: World):
    node = world.node
    node.delete(world.pod)
    node.kill()
    node.start()
    node.wait_gone(world.pod)
    assert node.mounts() == []
    assert node.leftovers() == []
    node.declare_ready(world.pod)
    note = f"{node.volume(world.pod, CSI, 'pv-image')}/mount/note"
    assert node.machine.run(f"cat {note}").out == f"{world.written[0]}\n"


def test_power_cut_loses_no_synced_data_and_formats_nothing_twice(
    world: World, figure: Callable[[str, float], None]
):
    node = world.node
    uid = node.uid(world.pod)
    identity = describe_image(node).splitlines()[0]
    node.machine.power_cut()
    node.machine.start()
    figure("daemon ready after a power cut", node.start().took_ms)
    node.wait_ready(world.pod)
    assert node.uid(world.pod) == uid
    assert describe_image(node).splitlines()[0] == identity
    assert len(list_loops(node)) == 1
    on_disk = [file for file in world.written if "memory" not in file]
    assert world.read(*on_disk, f"{SECRET}/token/key") == [*on_disk, "secret value"]


@pytest.mark.parametrize("volume", [f"{EMPTY_DIR}/memory", f"{SECRET}/token", f"{NFS}/shared"])
def test_volume_is_mounted_again_when_somebody_unmounts_it(
    world: World, volume: str, figure: Callable[[str, float], None]
):
    node = world.node
    point = f"{world.volumes}/{volume}"
    took_ms = node.unmount_by_hand(point)
    figure(f"{volume} mounted again after a hand-made unmount, Linux 6.1", took_ms)
    node.wait_ready(world.pod)
    assert [mount.point for mount in node.mounts()].count(point) == 1


def list_loops(node: VolagentNode) -> list[str]:
    return node.machine.run("losetup --list --noheadings --output NAME,BACK-FILE").out.splitlines()
