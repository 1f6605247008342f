"""A claim is made larger while its pod uses it: both halves, on real file systems."""

import os
from pathlib import Path

import pytest

from tests.kernel.daemon.harness import Daemon, Json, until

MIB = 1 << 20


def a_class(fs_type: str = "xfs", **more: object) -> Json:
    return {
        "kind": "StorageClass",
        "apiVersion": "storage.k8s.io/v1",
        "metadata": {"name": "images"},
        "provisioner": "image.volagent.dev",
        "allowVolumeExpansion": True,
        "volumeBindingMode": "WaitForFirstConsumer",
        "parameters": {"csi.storage.k8s.io/fstype": fs_type, "volagent.dev/trash-retention": "0"},
        **more,
    }


def a_claim(size: str, **spec: object) -> Json:
    return {
        "kind": "PersistentVolumeClaim",
        "apiVersion": "v1",
        "metadata": {"name": "data"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "images",
            "resources": {"requests": {"storage": size}},
            **spec,
        },
    }


def a_pod(use: Json) -> Json:
    return {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {"name": "web"},
        "spec": {
            "containers": [{"name": "main", "image": "busybox:stable", **use}],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
        },
    }


MOUNTS: Json = {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}
DEVICES: Json = {"volumeDevices": [{"name": "data", "devicePath": "/dev/data"}]}


def ask_for(daemon: Daemon, size: str) -> None:
    daemon.patch(a_claim("1"), {"spec": {"resources": {"requests": {"storage": size}}}})


def wait_for_size(daemon: Daemon, size: str) -> None:
    claim = a_claim("1")
    until(
        lambda: daemon.get(claim)["status"]["capacity"]["storage"] == size,
        told=lambda: (daemon.get(claim)["status"], daemon.read_log()),
    )


@pytest.mark.parametrize(("fs_type", "size", "larger"), [("xfs", 320, 640), ("btrfs", 128, 256)])
def test_file_system_grows_while_it_is_mounted(
    daemon: Daemon, fs_type: str, size: int, larger: int
) -> None:
    claim, pod = a_claim(f"{size}Mi"), a_pod(MOUNTS)
    daemon.declare(a_class(fs_type), claim)
    (home,) = daemon.declare_ready(pod)
    (point,) = (home / "volumes/kubernetes.io~csi").glob("*/mount")
    (point / "note").write_text("kept")
    ids = {mount: entry[0] for mount, entry in daemon.mounts().items()}

    ask_for(daemon, f"{larger}Mi")
    wait_for_size(daemon, f"{larger}Mi")

    usage = os.statvfs(point)
    assert usage.f_blocks * usage.f_frsize > size * MIB
    assert (point / "note").read_text() == "kept"
    assert {mount: entry[0] for mount, entry in daemon.mounts().items()} == ids
    status = daemon.get(claim)["status"]
    assert "conditions" not in status
    assert "allocatedResourceStatuses" not in status
    daemon.wait_event(claim, "FileSystemResizeSuccessful")
    daemon.delete_gone(pod, claim)


def test_raw_device_grows_while_it_is_used(daemon: Daemon) -> None:
    claim, pod = a_claim("32Mi", volumeMode="Block"), a_pod(DEVICES)
    daemon.declare(a_class(), claim)
    (home,) = daemon.declare_ready(pod)
    (link,) = (home / "volumeDevices").glob("*/*")
    device = os.path.realpath(link)
    ask_for(daemon, "64Mi")
    wait_for_size(daemon, "64Mi")
    with open(device, "rb") as end:
        assert end.seek(0, os.SEEK_END) == 64 * MIB
    daemon.delete_gone(pod, claim)


def test_growth_of_a_claim_without_a_pod_waits_for_one(daemon: Daemon) -> None:
    claim, pod = a_claim("128Mi"), a_pod(MOUNTS)
    daemon.declare(a_class("btrfs"), claim)
    daemon.declare_ready(pod)
    daemon.delete_gone(pod)
    ask_for(daemon, "256Mi")
    until(
        lambda: (
            daemon.get(claim)["status"].get("allocatedResourceStatuses", {}).get("storage")
            == "NodeResizePending"
        ),
        told=lambda: (daemon.get(claim)["status"], daemon.read_log()),
    )
    assert daemon.get(claim)["status"]["capacity"]["storage"] == "128Mi"
    (home,) = daemon.declare_ready(pod)
    wait_for_size(daemon, "256Mi")
    (point,) = (home / "volumes/kubernetes.io~csi").glob("*/mount")
    usage = os.statvfs(point)
    assert usage.f_blocks * usage.f_frsize > 128 * MIB
    daemon.delete_gone(pod, claim)


def test_growth_that_cannot_be_is_told_and_given_up_by_asking_for_less(daemon: Daemon) -> None:
    claim, pod = a_claim("128Mi"), a_pod(MOUNTS)
    daemon.declare(a_class("btrfs"), claim)
    daemon.declare_ready(pod)
    ask_for(daemon, "4Ei")
    daemon.wait_event(claim, "VolumeResizeFailed", "4Ei")
    assert daemon.get(claim)["status"]["capacity"]["storage"] == "128Mi"
    ask_for(daemon, "256Mi")
    wait_for_size(daemon, "256Mi")
    daemon.delete_gone(pod, claim)


def test_claim_of_a_class_that_does_not_grow_is_refused(daemon: Daemon) -> None:
    claim, pod = a_claim("128Mi"), a_pod(MOUNTS)
    daemon.declare(a_class("btrfs", allowVolumeExpansion=False), claim)
    daemon.declare_ready(pod)
    status, answer = daemon._ask(
        "PATCH",
        "/api/v1/namespaces/default/persistentvolumeclaims/data",
        {"spec": {"resources": {"requests": {"storage": "1Gi"}}}},
        {"Content-Type": "application/merge-patch+json"},
    )
    assert status == 403
    assert "storageclass that provisions the pvc must support resize" in answer["message"]
    daemon.delete_gone(pod, claim)
    until(lambda: not list(Path(daemon.images).glob("pvc-*")))
