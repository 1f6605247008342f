"""All provisioners of this process, by name: the one place where they are listed."""

from collections.abc import Sequence
from dataclasses import dataclass

from volagent.aio.clock import Clock
from volagent.drivers.ebs.provisioner import EbsProvisioner
from volagent.drivers.ebs.store import BlockStore
from volagent.drivers.image import IMAGE
from volagent.drivers.provisioning.contract import Provisioner, ProvisionerTable
from volagent.drivers.provisioning.directory import DIRECTORY, DirectoryProvisioner
from volagent.drivers.provisioning.export import Export, in_pool
from volagent.drivers.provisioning.image import ImageProvisioner
from volagent.drivers.provisioning.image_copies import ImageCopies
from volagent.drivers.provisioning.nfs import NfsSubdirProvisioner
from volagent.drivers.provisioning.nfs_mount import NfsMount
from volagent.host.contract import Host
from volagent.host.process import Helpers


@dataclass(frozen=True, slots=True)
class NfsName:
    """A provisioner's name and the export that it stands for."""

    provisioner: str
    server: str
    path: str
    mount_options: tuple[str, ...] = ()


def make_nfs_provisioners(
    host: Host,
    helpers: Helpers,
    clock: Clock,
    names: Sequence[NfsName],
    *,
    work_dir: str,
    mount_timeout_s: float,
) -> ProvisionerTable:
    """The provisioners of directories on NFS exports; their names are the operator's choice."""
    return {
        each.provisioner: NfsSubdirProvisioner(
            each.provisioner,
            NfsMount(
                host, helpers, each.server, each.path, each.mount_options, work_dir,
                mount_timeout_s,
            ),
            clock,
        )
        for each in names
    }  # fmt: skip


def make_cloud_provisioners(block_store: BlockStore | None) -> ProvisionerTable:
    """The provisioners of disks elsewhere."""
    if block_store is None:
        return {}
    provisioner = EbsProvisioner(block_store.cloud, block_store.volumes)
    return {provisioner.name: provisioner}


def make_local_provisioners(
    host: Host,
    helpers: Helpers,
    clock: Clock,
    *,
    node_name: str,
    image_dir: str,
    directory_dir: str,
) -> ProvisionerTable:
    """The provisioners of volumes on this VM."""
    provisioners: tuple[Provisioner, ...] = (
        DirectoryProvisioner(
            Export(in_pool(helpers), clock, directory_dir, DIRECTORY), node_name, node_name
        ),
        ImageProvisioner(
            Export(in_pool(helpers), clock, image_dir, IMAGE),
            host, ImageCopies(host, helpers), node_name, node_name,
        ),
    )  # fmt: skip
    return {provisioner.name: provisioner for provisioner in provisioners}
