"""Directories that are as large as their claims: project quotas of a real ext4 file system.

The kernel that the tests run on has no quota formats; the machines' kernel has.
"""

import json

import pytest

from tests.cluster import manifests
from tests.cluster.lab.machine import Hardware, Lab
from tests.cluster.lab.node import VolagentNode

MIB = 1 << 20
DIRECTORIES = "directory.volagent.dev"
PREPARE = """
mkfs.ext4 -q -O project,quota {disk}
mkdir -p {data}
modprobe quota_v2 || true
mount -o prjquota {disk} {data}
"""
WRITE = (
    "setpriv --bounding-set=-sys_resource dd if=/dev/zero of={file} bs=1M count={mib} conv=fsync"
)


@pytest.fixture(scope="module")
def node(lab: Lab) -> VolagentNode:
    machine = lab.add_machine("node", Hardware(memory_mib=640, disks_mib=(256,)))
    lab.start_all()
    made = VolagentNode(machine)
    machine.run(PREPARE.format(disk=machine.disks[0], data=made.data))
    made.start()
    return made


def a_class():
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": "directories"},
        "provisioner": DIRECTORIES,
        "allowVolumeExpansion": True,
        "parameters": {"volagent.dev/trash-retention": "0"},
    }


def a_claim(name):
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "directories",
            "resources": {"requests": {"storage": "16Mi"}},
        },
    }


def limit_of(node, project):
    """The hard limit of a project, in bytes."""
    program = (
        "import os; from volagent.host import quota; "
        f"print(quota.read_limit(os.open('{node.data}', os.O_RDONLY), {project}).hard_bytes)"
    )
    return int(node.machine.run(f'{node.machine.installation.python} -c "{program}"').out)


def test_directory_holds_what_was_claimed_and_no_more(node):
    pod = manifests.pod("web", [manifests.claim_volume("data", "data")])
    node.declare(a_class(), a_claim("data"))
    node.declare_ready(pod)
    claim = node.call("GET", "/api/v1/namespaces/default/persistentvolumeclaims/data")
    volume = claim["spec"]["volumeName"]
    made = node.call("GET", f"/api/v1/persistentvolumes/{volume}")
    assert made["metadata"]["annotations"]["volagent.dev/capacity-enforced"] == "true"
    directory = node.volume(pod, "kubernetes.io~local-volume", volume)

    assert node.machine.run(f"df --output=size -B1 {directory} | tail -1").out.strip() == str(
        16 * MIB
    )
    refused = node.machine.run(WRITE.format(file=f"{directory}/big", mib=20), check=False)
    assert refused.code != 0
    assert int(node.machine.run(f"stat -c %s {directory}/big").out) <= 16 * MIB
    node.machine.run(f"rm {directory}/big")
    node.machine.run(WRITE.format(file=f"{directory}/small", mib=12))

    growth = {"spec": {"resources": {"requests": {"storage": "32Mi"}}}}
    node.call("PATCH", "/api/v1/namespaces/default/persistentvolumeclaims/data", growth)
    wait = (
        f"until [ $(df --output=size -B1 {directory} | tail -1) = {32 * MIB} ]; do sleep .1; done"
    )
    node.machine.run(wait)
    node.machine.run(WRITE.format(file=f"{directory}/more", mib=16))

    marker = f"{node.data}/volagent/volumes/.volagent/{volume}.json"
    project = json.loads(node.machine.run(f"cat {marker}").out)["project"]
    assert limit_of(node, project) == 32 * MIB
    node.delete_gone(pod)
    node.delete_gone(claim)
    node.wait_gone(made)
    assert limit_of(node, project) == 0
    left = node.machine.run(f"find {node.data}/volagent/volumes -name small").out
    assert left == ""
