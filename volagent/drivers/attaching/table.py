"""The attachers of a server."""

from volagent.drivers.attaching.contract import AttacherTable
from volagent.drivers.attaching.granted import Granted
from volagent.drivers.iscsi.driver import ISCSI
from volagent.drivers.iscsi.options import read_iscsi_options
from volagent.drivers.nbd.options import NBD, read_nbd_options
from volagent.drivers.nfs_attached import NFS_ATTACHED, read_handle


def make_attachers() -> AttacherTable:
    """Every attacher, by the driver of its disks."""
    return {
        ISCSI: Granted(lambda source: read_iscsi_options(source).identity),
        NFS_ATTACHED: Granted(read_handle, shares_files=True),
        NBD: Granted(lambda source: read_nbd_options(source).identity),
    }
