"""Disks of Amazon's block store: moto is the API, loop devices are the disks."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kernel.daemon.disk_plant import planted
from tests.kernel.daemon.harness import Daemon, Json, unmount, until
from tests.kernel.daemon.test_examples import example, volume_of
from tests.moto_server import ENVIRONMENT, REGION, ZONE, MotoServer
from volagent.drivers.ebs.kept import CLAIM_NAME, CLUSTER, OWNER

GIB = 1 << 30
DRIVER = "kubernetes.io~aws-ebs"


@dataclass
class World:
    """A machine of the cloud, and the daemon on it."""

    moto: MotoServer
    instance: str
    daemon: Daemon
    settings: str
    images: Path

    def start(self, more: str = "") -> None:
        self.daemon.start(settings=self.settings + more)

    def disk_of(self, claim: Json) -> str:
        """The volume that a claim has."""
        source = volume_of(self.daemon, claim)["spec"]["awsElasticBlockStore"]
        return str(source["volumeID"]).removeprefix(f"aws://{ZONE}/")

    def wait_detached(self) -> None:
        until(
            lambda: not self.moto.attachments(self.instance) and not self.plugged(),
            told=self.daemon.read_log,
        )

    def plugged(self) -> list[str]:
        return [path for path in os.listdir(self.images.parent / "links")]


@pytest.fixture
def plant(scratch: Path, no_leaks: None, moto: MotoServer) -> Iterator[tuple[str, Path]]:
    """The machine's id and the directory of its disks' images."""
    instance = moto.start_instance()
    links = scratch / "links"
    links.mkdir()
    with planted(moto, instance, scratch / "plant.log", links) as images:
        yield instance, images
    assert not (images / "torn").exists(), (images / "torn").read_text()


@pytest.fixture
def world(
    plant: tuple[str, Path], stopped: Daemon, moto: MotoServer, monkeypatch: pytest.MonkeyPatch
) -> World:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    instance, images = plant
    settings = f"""
[aws]
enabled = true
region = "{REGION}"
zone = "{ZONE}"
endpoint = "{moto.endpoint}"
instance_id = "{instance}"
device_links = "{images.parent / "links"}"
"""
    world = World(moto, instance, stopped, settings, images)
    world.start()
    return world


def a_disk(moto: MotoServer) -> str:
    answer = moto.call("CreateVolume", AvailabilityZone=ZONE, Size="1", VolumeType="gp2")
    found = answer.findtext("volumeId")
    assert found is not None
    return found


def an_inline_pod(name: str, disk: str, **source: object) -> Json:
    pod = example("aws-ebs-inline")["Pod/ebs-inline"]
    pod["metadata"]["name"] = name
    pod["spec"]["volumes"][0]["awsElasticBlockStore"] |= {"volumeID": disk, **source}
    return pod


def test_claim_gets_a_disk_that_is_mounted_grown_and_deleted(world: World) -> None:
    daemon, moto = world.daemon, world.moto
    objects = example("aws-ebs")
    storage_class, claim, pod = (
        objects[name]
        for name in ("StorageClass/ebs", "PersistentVolumeClaim/ebs-data", "Pod/ebs-writer")
    )
    # ext4 grows online only with a capability that not every machine of tests has.
    storage_class["parameters"] |= {"fsType": "xfs", "volagent.dev/trash-retention": "0"}
    daemon.declare(storage_class, claim)
    (home,) = daemon.declare_ready(pod)

    volume, disk = volume_of(daemon, claim), world.disk_of(claim)
    uid = daemon.get(claim)["metadata"]["uid"]
    tags = moto.tags_of(disk) or {}
    assert (tags[OWNER], tags[CLUSTER], tags[CLAIM_NAME]) == (uid, "vm1", "ebs-data")
    assert volume["metadata"]["labels"]["topology.kubernetes.io/zone"] == ZONE
    assert volume["spec"]["awsElasticBlockStore"]["fsType"] == "xfs"
    point = home / "volumes" / DRIVER / volume["metadata"]["name"]
    assert daemon.mounts()[str(point)][1] == "xfs"
    (point / "note").write_text("kept")
    assert moto.attachments(world.instance) == {disk: 1}

    daemon.patch(claim, {"spec": {"resources": {"requests": {"storage": "2Gi"}}}})
    until(
        lambda: daemon.get(claim)["status"]["capacity"]["storage"] == "2Gi",
        told=lambda: (daemon.get(claim)["status"], daemon.read_log()),
    )
    usage = os.statvfs(point)
    assert usage.f_blocks * usage.f_frsize > 1.5 * GIB
    assert moto.attachments(world.instance) == {disk: 2}

    daemon.delete_gone(pod)
    world.wait_detached()
    (home,) = daemon.declare_ready(pod)
    point = home / "volumes" / DRIVER / volume["metadata"]["name"]
    assert (point / "note").read_text() == "kept"

    daemon.delete_gone(pod, claim)
    until(lambda: not daemon.exists(volume), told=daemon.read_log)
    world.wait_detached()
    assert moto.tags_of(disk) is None


def test_deleted_disk_waits_in_the_trash_and_comes_back(world: World) -> None:
    daemon, moto = world.daemon, world.moto
    objects = example("aws-ebs")
    claim, pod = objects["PersistentVolumeClaim/ebs-data"], objects["Pod/ebs-writer"]
    daemon.declare(objects["StorageClass/ebs"], claim)
    (home,) = daemon.declare_ready(pod)
    volume, disk = volume_of(daemon, claim), world.disk_of(claim)
    (home / "volumes" / DRIVER / volume["metadata"]["name"] / "note").write_text("kept")
    daemon.delete_gone(pod, claim)
    until(lambda: not daemon.exists(volume), told=daemon.read_log)
    (entry,) = daemon.call("GET", "/apis/node.volagent.dev/v1/trash")["items"]
    assert entry["claim"] == "default/ebs-data"
    assert entry["id"].endswith(disk)

    daemon.call("POST", "/apis/node.volagent.dev/v1/trash/restore", {"ids": [entry["id"]]})
    daemon.declare(claim)
    (home,) = daemon.declare_ready(pod)
    point = home / "volumes" / DRIVER / volume["metadata"]["name"]
    assert (point / "note").read_text() == "kept"
    assert world.disk_of(claim) == disk
    daemon.delete_gone(pod)
    world.wait_detached()
    assert moto.tags_of(disk) is not None


def test_killed_daemon_finds_its_disks_again_and_gives_them_back(world: World) -> None:
    daemon = world.daemon
    disk = a_disk(world.moto)
    pod = an_inline_pod("web", disk)
    (home,) = daemon.declare_ready(pod)
    before = daemon.mounts()
    daemon.kill()
    world.start()
    daemon.wait_ready(pod)
    assert daemon.mounts() == before
    assert (home / "volumes" / DRIVER / "data").is_mount()
    daemon.kill()
    world.start()
    daemon.delete_gone(pod)
    world.wait_detached()


def test_disk_of_a_pod_that_was_going_when_the_power_went_is_given_back(world: World) -> None:
    daemon = world.daemon
    pod = an_inline_pod("web", a_disk(world.moto))
    (home,) = daemon.declare_ready(pod)
    with (home / "volumes" / DRIVER / "data" / "busy").open("w"):
        daemon.delete(pod)
        daemon.wait_event(pod, "", "EBUSY")
        daemon.kill()
    for point in reversed(daemon.mounts()):
        unmount(Path(point))
    (daemon.run / "records").unlink()
    world.start()
    until(lambda: not daemon.exists(pod), told=daemon.read_log)
    world.wait_detached()


def test_disks_of_two_pods_with_one_name_for_both_are_apart(world: World) -> None:
    daemon = world.daemon
    disks = [a_disk(world.moto), a_disk(world.moto)]
    pods = [an_inline_pod(f"web-{n}", disk) for n, disk in enumerate(disks)]
    homes = daemon.declare_ready(*pods)
    for home, disk in zip(homes, disks, strict=True):
        (home / "volumes" / DRIVER / "data" / "disk").write_text(disk)
    assert set(world.moto.attachments(world.instance)) == set(disks)
    for home, disk in zip(homes, disks, strict=True):
        assert (home / "volumes" / DRIVER / "data" / "disk").read_text() == disk
    daemon.delete_gone(*pods)
    world.wait_detached()


def test_disk_stays_attached_as_long_as_another_pod_uses_it(world: World) -> None:
    daemon = world.daemon
    disk = a_disk(world.moto)
    first, second = an_inline_pod("first", disk), an_inline_pod("second", disk)
    daemon.declare_ready(first)
    (home,) = daemon.declare_ready(second)
    daemon.delete_gone(first)
    (home / "volumes" / DRIVER / "data" / "note").write_text("here")
    assert set(world.moto.attachments(world.instance)) == {disk}
    daemon.delete_gone(second)
    world.wait_detached()


def test_disk_that_another_machine_has_is_not_taken(world: World) -> None:
    daemon, moto = world.daemon, world.moto
    disk, other = a_disk(moto), moto.start_instance()
    moto.call("AttachVolume", VolumeId=disk, InstanceId=other, Device="/dev/sdf")
    pod = an_inline_pod("web", disk)
    daemon.declare(pod)
    daemon.wait_event(pod, "FailedAttachVolume", "Multi-Attach error", disk, other)
    daemon.wait_blocked(pod, disk, "is not attached to this node yet")
    (step,) = [s for s in daemon.ask_node("explain", pod)["steps"] if s["step"] == "attach"]
    assert "Multi-Attach error" in step["error"]
    moto.call("DetachVolume", VolumeId=disk, InstanceId=other)
    daemon.wait_ready(pod)
    daemon.delete_gone(pod)
    world.wait_detached()


def test_disk_that_is_not_there_is_named(world: World) -> None:
    pod = an_inline_pod("web", "vol-0123456789abcdef0")
    world.daemon.declare(pod)
    world.daemon.wait_event(pod, "FailedAttachVolume", "vol-0123456789abcdef0 does not exist")
    world.daemon.delete_gone(pod)


def test_raw_disk_is_linked_and_given_back(world: World) -> None:
    daemon = world.daemon
    objects = example("aws-ebs")
    claim, pod = objects["PersistentVolumeClaim/ebs-data"], objects["Pod/ebs-writer"]
    claim["spec"]["volumeMode"] = "Block"
    (container,) = pod["spec"]["containers"]
    del container["volumeMounts"]
    container["volumeDevices"] = [{"name": "data", "devicePath": "/dev/data"}]
    daemon.declare(objects["StorageClass/ebs"], claim)
    (home,) = daemon.declare_ready(pod)
    name = volume_of(daemon, claim)["metadata"]["name"]
    link = home / "volumeDevices" / DRIVER / name
    with link.open("rb") as device:
        assert device.seek(0, os.SEEK_END) == GIB
    daemon.delete_gone(pod)
    world.wait_detached()


def test_node_says_where_it_is_and_how_many_disks_it_takes(world: World) -> None:
    node = {"kind": "Node", "metadata": {"name": "vm1"}}
    labels = until(
        lambda: {
            name: value
            for name, value in world.daemon.get(node)["metadata"]["labels"].items()
            if name.startswith("topology")
        },
        told=world.daemon.read_log,
    )
    assert labels == {
        "topology.kubernetes.io/zone": ZONE, "topology.kubernetes.io/region": REGION,
    }  # fmt: skip
    assert world.daemon.get(node)["spec"]["providerID"] == f"aws:///{ZONE}/{world.instance}"
    until(
        lambda: "attachable-volumes-aws-ebs" in str(world.daemon.get(node).get("status")),
        told=world.daemon.read_log,
    )


def test_secrets_are_in_no_log(world: World) -> None:
    pod = an_inline_pod("web", a_disk(world.moto))
    world.daemon.declare_ready(pod)
    world.daemon.delete_gone(pod)
    world.wait_detached()
    assert ENVIRONMENT["AWS_SECRET_ACCESS_KEY"] not in world.daemon.log.read_text()
