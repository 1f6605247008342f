"""The examples of `config/examples`, applied unchanged to a real daemon, and what they come to.

What needs a server is in `tests/cluster` (NFS) and `test_ebs.py` (a cloud).
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.daemon.harness import Daemon, Json, until
from volagent.cli.manifests import read_manifests

EXAMPLES = Path(__file__).parents[3] / "config" / "examples"
MIB = 1 << 20


def example(name: str) -> dict[str, Json]:
    """The objects of an example by `Kind/name`."""
    return {
        f"{one.resource.kind}/{one.name}": {
            "kind": one.resource.kind, "apiVersion": one.resource.api_version, **one.document,
        }
        for one in read_manifests((str(EXAMPLES / f"{name}.yaml"),), "")
    }  # fmt: skip


def apply(daemon: Daemon, name: str) -> dict[str, Json]:
    objects = example(name)
    daemon.declare(*objects.values())
    return objects


def volume_of(daemon: Daemon, claim: Json) -> Json:
    daemon.wait_bound(claim)
    name = daemon.get(claim)["spec"]["volumeName"]
    return daemon.get({"kind": "PersistentVolume", "metadata": {"name": name}})


def mounted(daemon: Daemon, pod: Json) -> list[str]:
    """Mount points below the pod's directory."""
    uid = daemon.get(pod)["metadata"]["uid"]
    return [point for point in daemon.mounts() if f"/pods/{uid}/" in point]


@pytest.fixture
def data_directory(no_leaks: None) -> Iterator[Path]:
    """`/data` as the example names it, on a tmpfs in this test run's private mount namespace."""
    data = Path("/data")
    made = not data.exists()
    if made:
        data.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/data"], check=True)
    try:
        (data / "vol1").mkdir()
        yield data
    finally:
        subprocess.run(["umount", "/data"], check=True)
        if made:
            data.rmdir()


def another_node(name: str) -> Json:
    return {
        "kind": "Node",
        "apiVersion": "v1",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {
            "conditions": [{"type": "Ready", "status": "True"}],
            "allocatable": {"cpu": "64", "memory": "256Gi", "pods": "100"},
            "capacity": {"cpu": "64", "memory": "256Gi", "pods": "100"},
        },
    }


def test_pod_goes_to_its_local_volume_and_comes_back_to_it(
    stopped: Daemon, data_directory: Path
) -> None:
    stopped.start("--node-name", "node01")
    stopped.declare(another_node("node02"))
    objects = example("local-wait-for-consumer")
    pod, claim = objects["Pod/local-writer"], objects["PersistentVolumeClaim/local-data"]
    stopped.declare(*(each for each in objects.values() if each["kind"] != "Pod"))
    stopped.wait_event(claim, "WaitForFirstConsumer", "waiting for first consumer")
    assert stopped.get(claim)["status"]["phase"] == "Pending"

    (home,) = stopped.declare_ready(pod)

    assert stopped.get(pod)["spec"]["nodeName"] == "node01"
    assert volume_of(stopped, claim)["metadata"]["name"] == "node01-vol1"
    target = home / "volumes/kubernetes.io~local-volume/node01-vol1"
    (target / "visits").write_text("first")
    stopped.delete_gone(pod)
    (home,) = stopped.declare_ready(pod)
    assert stopped.get(pod)["spec"]["nodeName"] == "node01"
    target = home / "volumes/kubernetes.io~local-volume/node01-vol1"
    assert (target / "visits").read_text() == "first"
    assert (data_directory / "vol1" / "visits").exists()


def test_claim_without_a_class_gets_the_default_one(daemon: Daemon) -> None:
    objects = apply(daemon, "default-class")
    pod, claim = objects["Pod/notes"], objects["PersistentVolumeClaim/notes"]
    daemon.wait_ready(pod)
    assert daemon.get(claim)["spec"]["storageClassName"] == "standard"
    volume = volume_of(daemon, claim)
    assert volume["metadata"]["name"] == f"pvc-{daemon.get(claim)['metadata']['uid']}"
    path = Path(volume["spec"]["local"]["path"])
    assert path.is_relative_to(daemon.state)
    (point,) = [each for each in mounted(daemon, pod) if "local-volume" in each]
    Path(point, "note").write_text("kept")
    assert (path / "note").read_text() == "kept"

    daemon.delete_gone(pod, claim)

    until(lambda: not daemon.exists(volume), told=daemon.read_log)
    assert not path.exists()
    (entry,) = daemon.call("GET", "/apis/node.volagent.dev/v1/trash")["items"]
    assert entry["claim"] == "default/notes"


def test_classes_are_named_by_the_kind_of_storage(daemon: Daemon) -> None:
    objects = apply(daemon, "storage-kinds")
    pod = objects["Pod/storage-kinds"]
    daemon.wait_ready(pod)
    fast = volume_of(daemon, objects["PersistentVolumeClaim/fast"])
    raw = volume_of(daemon, objects["PersistentVolumeClaim/raw-disk"])
    (point,) = [each for each in mounted(daemon, pod) if each.endswith("/mount")]
    _, fs_type, options = daemon.mounts()[point]
    assert fs_type == "ext4"
    assert "noatime" in options
    usage = os.statvfs(point)
    assert usage.f_blocks * usage.f_frsize <= 64 * MIB
    assert raw["spec"]["volumeMode"] == "Block"
    assert len(daemon.loop_files()) == 2
    assert fast["spec"]["csi"]["driver"] == "image.volagent.dev"

    claims = [objects[f"PersistentVolumeClaim/{name}"] for name in ("fast", "raw-disk")]
    daemon.delete_gone(pod, *claims)
    until(lambda: not daemon.exists(fast) and not daemon.exists(raw), told=daemon.read_log)


def test_ephemeral_volume_comes_and_goes_with_its_pod(daemon: Daemon) -> None:
    ssd = example("storage-kinds")["StorageClass/ssd"]
    daemon.declare(ssd)
    pod = example("ephemeral")["Pod/cruncher"]
    daemon.declare_ready(pod)
    claim = {"kind": "PersistentVolumeClaim", "metadata": {"name": "cruncher-scratch"}}
    volume = volume_of(daemon, claim)
    assert daemon.get(claim)["metadata"]["labels"] == {"app": "cruncher"}
    daemon.delete_gone(pod)
    until(lambda: not daemon.exists(claim) and not daemon.exists(volume), told=daemon.read_log)


def test_claim_is_filled_from_a_snapshot(daemon: Daemon) -> None:
    kinds = example("storage-kinds")
    ssd, fast = kinds["StorageClass/ssd"], kinds["PersistentVolumeClaim/fast"]
    writer: Json = {
        "kind": "Pod", "apiVersion": "v1", "metadata": {"name": "writer"},
        "spec": {
            "containers": [{
                "name": "main", "image": "busybox:stable",
                "volumeMounts": [{"name": "fast", "mountPath": "/fast"}],
            }],
            "volumes": [{"name": "fast", "persistentVolumeClaim": {"claimName": "fast"}}],
        },
    }  # fmt: skip
    daemon.declare(ssd, fast)
    daemon.declare_ready(writer)
    (point,) = [each for each in mounted(daemon, writer) if each.endswith("/mount")]
    Path(point, "note").write_text("before")
    daemon.delete_gone(writer)

    objects = example("snapshot")
    images = objects["VolumeSnapshotClass/images"]
    snapshot = objects["VolumeSnapshot/fast-before-upgrade"]
    daemon.declare(images, snapshot)
    until(
        lambda: daemon.get(snapshot).get("status", {}).get("readyToUse"),
        told=lambda: (daemon.get(snapshot), daemon.read_log()),
    )
    daemon.declare_ready(writer)
    (point,) = [each for each in mounted(daemon, writer) if each.endswith("/mount")]
    Path(point, "note").write_text("after")
    copy, pod = objects["PersistentVolumeClaim/fast-copy"], objects["Pod/from-snapshot"]
    daemon.declare(copy)
    daemon.declare_ready(pod)
    (point,) = [each for each in mounted(daemon, pod) if each.endswith("/mount")]
    assert Path(point, "note").read_text() == "before"

    daemon.delete_gone(pod, writer, copy, fast, snapshot)


def test_service_account_token_is_mounted_unless_it_is_declined(stopped: Daemon) -> None:
    stopped.start(settings="[auth]\nmount_service_account_token = true\n")
    objects = apply(stopped, "service-account-token")
    given, declined = objects["Pod/with-token"], objects["Pod/without-token"]
    stopped.wait_ready(given)
    stopped.wait_ready(declined)
    (point,) = mounted(stopped, given)
    token = Path(point, "token").read_text()
    assert token.count(".") == 2
    assert Path(point, "namespace").read_text() == "default"
    assert "kubernetes.io~projected/kube-api-access-" in point
    mounts = stopped.get(given)["spec"]["containers"][0]["volumeMounts"]
    assert [m["mountPath"] for m in mounts] == ["/var/run/secrets/kubernetes.io/serviceaccount"]
    assert mounted(stopped, declined) == []
