"""A world of one pod with a volume of each everyday kind, and what its containers must find."""

from tests.simulation.harness import Machine, a_config_map, a_secret, bound_pair
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


ALL = (SCRATCH, MEMORY, SECRET, CONFIG, DATA)
