"""All provisioners of this process, by name: the one place where they are listed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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
from volagent.drivers.provisioning.nfs_classes import (
    NFS_SUBDIR,
    KnownExports,
    NfsClassProvisioner,
)
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
    state_dir: str,
    mount_timeout_s: float,
) -> ProvisionerTable:
    """The provisioners of directories on NFS exports; their names are the operator's choice.

    `nfs-subdir.volagent.dev` is always among them: its classes name the export.
    """

    def make(server: str, path: str, options: tuple[str, ...]) -> NfsSubdirProvisioner:
        mount = NfsMount(host, helpers, server, path, options, work_dir, mount_timeout_s)
        return NfsSubdirProvisioner(NFS_SUBDIR, mount, clock)

    by_class = NfsClassProvisioner(make, KnownExports(Path(state_dir) / "nfs-exports"))
    by_settings = [
        NfsSubdirProvisioner(
            each.provisioner,
            NfsMount(
                host, helpers, each.server, each.path, each.mount_options, work_dir,
                mount_timeout_s,
            ),
            clock,
        )
        for each in names
    ]  # fmt: skip
    return {by_class.name: by_class, **{each.name: each for each in by_settings}}


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
