"""A world of one pod with a volume of each everyday kind, and what its containers must find."""

from tests.simulation.harness import Machine, a_config_map, a_pod, a_secret, bound_pair
from volagent.client.contract import (
    CLAIMS,
    CONFIG_MAPS,
    PERSISTENT_VOLUMES,
    SECRETS,
)

SCRATCH = {"name": "scratch", "emptyDir": {}}
MEMORY = {"name": "memory", "emptyDir": {"medium": "Memory"}}
SECRET = {"name": "secret", "secret": {"secretName": "s"}}
CONFIG = {"name": "config", "configMap": {"name": "c"}}
DATA = {"name": "data", "persistentVolumeClaim": {"claimName": "data"}}
ALL = (SCRATCH, MEMORY, SECRET, CONFIG, DATA)
SHARED = {"name": "shared", "nfs": {"server": "10.0.0.5", "path": "/data"}}
IMAGE = "/images/data.img"
CSI = {
    "driver": "image.volagent.dev", "volumeHandle": "data", "fsType": "ext4",
    "volumeAttributes": {"path": IMAGE},
}  # fmt: skip


async def declare_world(machine: Machine) -> None:
    await machine.bootstrap()
    await machine.declare(SECRETS, a_secret("s", key="value"))
    await machine.declare(CONFIG_MAPS, a_config_map("c", motd="hello"))
    pv, claim = bound_pair("data", csi=CSI)
    claim = await machine.declare(CLAIMS, claim)
    pv["spec"]["claimRef"]["uid"] = claim["metadata"]["uid"]
    await machine.declare(PERSISTENT_VOLUMES, pv)
    await machine.client.patch(
        CLAIMS, "data", {"status": {"phase": "Bound"}}, "default", subresource="status"
    )


def everyday_pod(name: str) -> dict:
    """A pod with all of these, an export of a server, and a part of each of two."""
    pod = a_pod(name, *ALL, SHARED)
    pod["spec"]["containers"][0]["volumeMounts"] += [
        {"name": "data", "mountPath": "/part", "subPath": "part/deep"},
        {"name": "shared", "mountPath": "/shared-part", "subPath": "part"},
    ]
    return pod


def check_parts(machine: Machine, uid: str) -> None:
    """What a container finds at its sub-paths."""
    kernel, base = machine.kernel, f"/k/pods/{uid}/volume-subpaths"
    of_data, of_shared = kernel.at(f"{base}/pv-data/main/6"), kernel.at(f"{base}/shared/main/7")
    assert of_data is not None
    assert (of_data.tree, of_data.root) == (kernel.disks[IMAGE].tree, "part/deep")
    assert of_shared is not None
    assert (of_shared.tree, of_shared.root) == (kernel.exports["10.0.0.5:/data"], "part")


def check_pod(machine: Machine, uid: str) -> None:
    """What a container of the pod would find."""
    kernel = machine.kernel
    assert kernel.files(machine.volume_path(uid, "kubernetes.io~secret", "secret")) == {
        "key": b"value"
    }
    assert kernel.files(machine.volume_path(uid, "kubernetes.io~configmap", "config")) == {
        "motd": b"hello"
    }
    data = kernel.at(machine.volume_path(uid, "kubernetes.io~csi", "pv-data/mount"))
    assert data is not None, "the image volume is not mounted"
    assert data.tree is kernel.disks[IMAGE].tree, "another file system is mounted"
    memory = kernel.at(machine.volume_path(uid, "kubernetes.io~empty-dir", "memory"))
    assert memory is not None
    assert memory.tree.fs_type == "tmpfs"
    machine.check_no_stacked_mounts()


def data_path(machine: Machine, uid: str) -> str:
    return machine.volume_path(uid, "kubernetes.io~csi", "pv-data/mount") + "/written"
