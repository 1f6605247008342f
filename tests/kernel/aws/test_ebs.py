"""kubernetes.io/aws-ebs on a real daemon: EC2 is moto's server, a loop device is the disk."""

import os
from pathlib import Path

import pytest
import yaml

from tests.kernel.daemon.harness import Daemon, Json, until
from tests.moto_server import ZONE

EXAMPLE = Path(__file__).parents[3] / "config/examples/aws-ebs.yaml"
GIB = 1 << 30


def example() -> tuple[Json, Json, Json]:
    """Class, claim and pod, as users get them."""
    storage_class, claim, pod = yaml.safe_load_all(EXAMPLE.read_text())
    return storage_class, claim, pod


def volume_of(daemon: Daemon, claim: Json) -> Json:
    name = until(lambda: daemon.get(claim)["spec"].get("volumeName"), told=daemon.read_log)
    return daemon.get({"kind": "PersistentVolume", "apiVersion": "v1", "metadata": {"name": name}})


def id_of(volume: Json) -> str:
    return volume["spec"]["awsElasticBlockStore"]["volumeID"].rpartition("/")[2]


def test_example_gets_a_disk_that_is_mounted_grown_and_given_back(daemon, cloud):
    storage_class, claim, pod = example()
    storage_class["parameters"]["volagent.dev/trash-retention"] = "0"
    daemon.declare(storage_class, claim, pod)
    volume = volume_of(daemon, claim)
    id, image = id_of(volume), daemon.base / "disk"
    assert volume["metadata"]["labels"]["topology.kubernetes.io/zone"] == ZONE
    made = until(lambda: _attached(cloud, id), told=daemon.read_log)
    assert made.tags["kubernetes.io/created-for/pvc/name"] == "on-aws"
    assert made.attachments[0].instance == cloud.instance

    cloud.plug(id, image, GIB)
    daemon.wait_ready(pod)
    uid = daemon.get(pod)["metadata"]["uid"]
    (mounted,) = (daemon.pods / uid / "volumes/kubernetes.io~aws-ebs").iterdir()
    (mounted / "note").write_text("kept")
    until(lambda: f"kubernetes.io/aws-ebs/{volume['metadata']['name']}" in in_use(daemon))

    cloud.grow(id, image, 2 * GIB)
    daemon.patch(claim, {"spec": {"resources": {"requests": {"storage": "2Gi"}}}})
    until(lambda: daemon.get(claim)["status"]["capacity"]["storage"] == "2Gi",
          told=daemon.read_log)  # fmt: skip
    usage = os.statvfs(mounted)
    assert usage.f_blocks * usage.f_frsize > 1.5 * GIB
    assert cloud.ask("find_volume", id).size_gib == 2

    daemon.delete_gone(pod)
    until(lambda: not cloud.ask("find_volume", id).attachments, told=daemon.read_log)
    cloud.unplug(id)
    daemon.delete_gone(claim)
    until(lambda: cloud.ask("find_volume", id) is None, told=daemon.read_log)


def in_use(daemon: Daemon) -> list[str]:
    node = daemon.get({"kind": "Node", "apiVersion": "v1", "metadata": {"name": "vm1"}})
    names: list[str] = node["status"].get("volumesInUse", [])
    return names


def _attached(cloud, id: str):
    volume = cloud.ask("find_volume", id)
    return volume if volume is not None and volume.attachments else None


def test_volume_that_another_instance_has_is_waited_for_and_told(daemon, cloud):
    storage_class, claim, pod = example()
    other = cloud.ask("_call", "RunInstances", {
        "ImageId": "ami-12c6146b", "MinCount": "1", "MaxCount": "1",
        "Placement.AvailabilityZone": ZONE,
    }).findtext(".//instanceId")  # fmt: skip
    made = cloud.ask("create", {
        "AvailabilityZone": ZONE, "Size": "1", "VolumeType": "gp3",
    }, {"Name": "by hand"}, "token")  # fmt: skip
    cloud.ask("attach", made.id, other, "/dev/xvdf")
    by_hand = {
        "kind": "PersistentVolume", "apiVersion": "v1", "metadata": {"name": "by-hand"},
        "spec": {
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
            "storageClassName": "aws-gp3", "persistentVolumeReclaimPolicy": "Retain",
            "awsElasticBlockStore": {"volumeID": made.id, "fsType": "ext4"},
        },
    }  # fmt: skip
    del storage_class["volumeBindingMode"]
    daemon.declare(storage_class, by_hand, claim, pod)
    daemon.wait_event(pod, "FailedAttachVolume", "Multi-Attach error", other)
    cloud.ask("detach", made.id, other)
    cloud.plug(made.id, daemon.base / "disk", GIB)
    daemon.wait_ready(pod)
    daemon.delete_gone(pod)
    cloud.unplug(made.id)
    daemon.delete_gone(claim)
    assert cloud.ask("find_volume", made.id) is not None


@pytest.mark.parametrize(
    ("parameters", "words"),
    [({"type": "fast"}, "invalid EBS type 'fast'"), ({"colour": "red"}, "invalid option 'colour'")],
)
def test_class_that_ec2_would_not_take_is_told_by_its_parameter(daemon, parameters, words):
    storage_class, claim, _ = example()
    storage_class.update(parameters=parameters, volumeBindingMode="Immediate")
    daemon.declare(storage_class, claim)
    daemon.wait_event(claim, "ProvisioningFailed", words)
    daemon.delete_gone(claim)
