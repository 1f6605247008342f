"""What a storage node has beside what every node has: its volumes, and who shows them to others.

Part of `volagent agent` (and `volagent run`) when `[storage]` says so: one daemon per VM.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from volagent.aio.clock import Clock
from volagent.daemon.errors import StartError
from volagent.drivers.errors import DriverError
from volagent.drivers.provisioning.contract import ProvisionerTable
from volagent.drivers.provisioning.export import Export, in_pool
from volagent.drivers.provisioning.image import FILE
from volagent.drivers.provisioning.image_copies import ImageCopies
from volagent.drivers.provisioning.storage_iscsi import IscsiProvisioner
from volagent.drivers.provisioning.storage_pool import StoragePool
from volagent.drivers.showing.contract import ShowerTable
from volagent.drivers.showing.iscsi import IscsiShower
from volagent.host.contract import Host
from volagent.host.lio.service import TargetService
from volagent.host.process import Helpers
from volagent.objects.storage_nodes import ISCSI_PROVISIONER, STORAGE_ROLE
from volagent.observe.logs import get_logger
from volagent.settings import Settings

PORT = 3260

_log = get_logger("storage")


@dataclass(frozen=True, slots=True)
class StorageSide:
    """A storage node's volumes."""

    provisioners: ProvisionerTable
    showers: ShowerTable
    pool: StoragePool
    helpers: Helpers

    @property
    def labels(self) -> Mapping[str, str]:
        """Of its Node."""
        return {STORAGE_ROLE: ""}

    async def restore(self) -> None:
        """Show what is on record, before any node or server asks; a failure is told."""
        for name, shower in self.showers.items():
            try:
                _log.info("volumes shown again", provisioner=name, result=await shower.restore())
            except DriverError as error:
                _log.error("volumes not shown", provisioner=name, error=str(error),
                           remedy=error.remedy)  # fmt: skip

    async def measure_room(self) -> Mapping[str, int]:
        """What the pool has and has promised, in bytes."""
        room = await self.helpers.run_in_pool(self.pool.measure)
        return {
            name.removesuffix("_bytes"): value
            for name, value in msgspec.structs.asdict(room).items()
        }


def make_storage_side(
    settings: Settings, host: Host, helpers: Helpers, clock: Clock, address: str
) -> StorageSide | None:
    """Build it, if this machine is a storage node. Raises `StartError`."""
    storage = settings.storage
    if not storage.enabled:
        return None
    directory = storage.directory or f"{settings.state_dir}/storage"
    if storage.directory and not os.path.isdir(directory):
        raise StartError(f"{directory}: no such directory", "is its disk mounted?")
    portals = storage.portals or ((f"{address}:{PORT}",) if address else ())
    if not portals:
        raise StartError("no address for nodes to reach the disks at", "set storage.portals")
    iqn = storage.iqn or f"iqn.2026-01.dev.volagent:{settings.node_name}"
    shower = IscsiShower(TargetService(helpers, directory, iqn, portals))
    pool = StoragePool(directory, FILE, storage.overcommit)
    provisioner = IscsiProvisioner(
        Export(in_pool(helpers), clock, directory, ISCSI_PROVISIONER),
        pool, host, ImageCopies(host, helpers), shower, settings.node_name, iqn, portals,
    )  # fmt: skip
    return StorageSide({provisioner.name: provisioner}, {provisioner.name: shower}, pool, helpers)
