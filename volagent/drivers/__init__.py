"""Drivers: one module and one class per kind of volume, behind `contract.py`.

The one place where all of them are listed. No scanning, no registration on import.
"""

from collections.abc import Mapping
from typing import Any

from volagent.drivers.api_backed import make_api_backed_drivers
from volagent.drivers.contract import Driver, DriverName, DriverTable
from volagent.drivers.ebs.driver import EbsDriver
from volagent.drivers.ebs.store import BlockStore
from volagent.drivers.empty_dir import EmptyDirDriver
from volagent.drivers.host_path import HostPathDriver
from volagent.drivers.image import ImageDriver
from volagent.drivers.iscsi.driver import IscsiDriver
from volagent.drivers.layout import Layout
from volagent.drivers.local import LocalDriver
from volagent.drivers.nbd.driver import NbdDriver
from volagent.drivers.nfs import NfsDriver
from volagent.drivers.nfs_attached import AttachedNfsDriver
from volagent.drivers.sub_path import SubPathDriver
from volagent.host.contract import Host
from volagent.host.iscsi.contract import Initiator
from volagent.host.nbd import NbdLinks
from volagent.objects.volumes import POD_SOURCES, PV_SOURCES

_NAMES = {**PV_SOURCES, **POD_SOURCES}


def choose_driver(kind: str, body: Mapping[str, Any]) -> DriverName:
    """The driver of a volume source: `kind` is its field, `body` the JSON under it.

    A CSI volume names its driver itself.
    """
    return DriverName(str(body["driver"]) if kind == "csi" else _NAMES[kind])


def make_drivers(
    host: Host,
    layout: Layout,
    *,
    image_dir: str,
    nfs_mount_timeout_s: float,
    nfs_unmount_timeout_s: float,
    block_store: BlockStore | None = None,
    initiator: Initiator | None = None,
    nbd: NbdLinks | None = None,
) -> DriverTable:
    """Every driver of this node, by name."""
    nfs = NfsDriver(host, nfs_mount_timeout_s, nfs_unmount_timeout_s)
    drivers: tuple[Driver, ...] = (
        EmptyDirDriver(host),
        HostPathDriver(host),
        *make_api_backed_drivers(host),
        SubPathDriver(host),
        ImageDriver(host, image_dir),
        LocalDriver(host),
        nfs,
        AttachedNfsDriver(nfs),
    )
    if nbd is not None:
        drivers += (NbdDriver(host, nbd),)
    if block_store is not None:
        drivers += (EbsDriver(host, block_store.cloud.config.device_links),)
    if initiator is not None:
        drivers += (IscsiDriver(host, initiator),)
    return {driver.name: driver for driver in drivers}
