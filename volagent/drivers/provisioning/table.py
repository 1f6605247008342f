"""All provisioners of this process, by name: the one place where they are listed."""

from volagent.aio.clock import Clock
from volagent.drivers.image import IMAGE
from volagent.drivers.provisioning.contract import Provisioner, ProvisionerTable
from volagent.drivers.provisioning.directory import DIRECTORY, DirectoryProvisioner
from volagent.drivers.provisioning.image import ImageProvisioner
from volagent.drivers.provisioning.image_copies import ImageCopies
from volagent.drivers.provisioning.local_export import LocalExport
from volagent.host.contract import Host
from volagent.host.process import Helpers


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
            LocalExport(helpers, clock, directory_dir, DIRECTORY), node_name, node_name
        ),
        ImageProvisioner(
            LocalExport(helpers, clock, image_dir, IMAGE),
            host, ImageCopies(host, helpers), node_name, node_name,
        ),
    )  # fmt: skip
    return {provisioner.name: provisioner for provisioner in provisioners}
