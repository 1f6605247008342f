"""The attachers of a server."""

from collections.abc import Callable

from volagent.drivers.attaching.contract import Attacher, AttacherTable
from volagent.drivers.attaching.granted import Granted
from volagent.drivers.contract import DriverName
from volagent.drivers.ebs.attacher import EbsAttacher
from volagent.drivers.ebs.calls import AttachCalls
from volagent.drivers.ebs.provisioner import EBS
from volagent.drivers.ebs.store import BlockStore
from volagent.drivers.iscsi.driver import ISCSI
from volagent.drivers.iscsi.options import read_iscsi_options
from volagent.drivers.nbd.options import NBD, read_nbd_options
from volagent.drivers.nfs_attached import NFS_ATTACHED, read_handle


def make_attachers(
    block_store: BlockStore | None, find_provider_id: Callable[[str], str]
) -> AttacherTable:
    """Every attacher, by the driver of its disks; `find_provider_id` knows what nodes say."""
    attachers: dict[DriverName, Attacher] = {
        ISCSI: Granted(lambda source: read_iscsi_options(source).identity),
        NFS_ATTACHED: Granted(read_handle, shares_files=True),
        NBD: Granted(lambda source: read_nbd_options(source).identity),
    }
    if block_store is not None:
        volumes = block_store.volumes
        attachers[EBS] = EbsAttacher(volumes, AttachCalls(volumes), find_provider_id)
    return attachers
