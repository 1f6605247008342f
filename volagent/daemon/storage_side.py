"""What a storage node has beside what every node has: its volumes, and who shows them to others.

Part of `volagent agent` (and `volagent run`) when `[storage]` says so: one daemon per VM.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from volagent.aio.clock import Clock
from volagent.daemon.errors import StartError
from volagent.drivers.contract import DriverName, VolumeSource
from volagent.drivers.errors import DriverError
from volagent.drivers.fencing.contract import FenceTable
from volagent.drivers.fencing.shown import HidingFence
from volagent.drivers.iscsi.driver import ISCSI
from volagent.drivers.nfs_attached import NFS_ATTACHED, read_handle
from volagent.drivers.provisioning.contract import Provisioner
from volagent.drivers.provisioning.disk_content import DiskContent, FileContent
from volagent.drivers.provisioning.export import Export, in_pool
from volagent.drivers.provisioning.image import FILE
from volagent.drivers.provisioning.image_copies import ImageCopies
from volagent.drivers.provisioning.storage_iscsi import IscsiProvisioner
from volagent.drivers.provisioning.storage_nfs import SharedDirectoryProvisioner
from volagent.drivers.provisioning.storage_pool import Room, StoragePool
from volagent.drivers.provisioning.thin_content import ThinContent
from volagent.drivers.showing.contract import Shower
from volagent.drivers.showing.iscsi import IscsiShower
from volagent.drivers.showing.nfs import NfsShower
from volagent.host import thin_links
from volagent.host.contract import Host
from volagent.host.errors import Absent, HostError
from volagent.host.lio.service import TargetService
from volagent.host.nfs_exports import ShownExports
from volagent.host.pool_marker import claim_pool
from volagent.host.process import Helpers
from volagent.host.thin_pool import ThinPool
from volagent.objects.storage_nodes import ISCSI_PROVISIONER, NFS_PROVISIONER, STORAGE_ROLE
from volagent.observe.logs import get_logger
from volagent.settings import Settings

PORT = 3260

_log = get_logger("storage")


@dataclass(frozen=True, slots=True)
class StorageSide:
    """A storage node's volumes."""

    provisioners: dict[str, Provisioner]
    showers: dict[str, Shower]
    pool: StoragePool
    helpers: Helpers
    iqn_base: str
    thin: ThinContent | None = None

    @property
    def labels(self) -> Mapping[str, str]:
        """Of its Node."""
        return {STORAGE_ROLE: ""}

    @property
    def fences(self) -> FenceTable:
        """Who keeps lost nodes from these volumes, by the driver of the nodes' half."""
        readers: dict[str, tuple[DriverName, Callable[[VolumeSource], str]]] = {
            ISCSI_PROVISIONER: (ISCSI, self._read_disk),
            NFS_PROVISIONER: (NFS_ATTACHED, read_handle),
        }
        return {
            readers[name][0]: HidingFence(shower, readers[name][1])
            for name, shower in self.showers.items()
        }

    def _read_disk(self, source: VolumeSource) -> str:
        prefix = f"{self.iqn_base}."
        iqn = str(source.body.get("iqn", ""))
        return iqn.removeprefix(prefix) if iqn.startswith(prefix) else ""

    async def restore(self) -> None:
        """Show what is on record, before any node or server asks; a failure is told."""
        for name, shower in self.showers.items():
            try:
                _log.info("volumes shown again", provisioner=name, result=await shower.restore())
            except DriverError as error:
                _log.error("volumes not shown", provisioner=name, error=str(error),
                           remedy=error.remedy)  # fmt: skip

    async def measure_room(self) -> Mapping[str, int]:
        """What the pool has and has promised, in bytes. Raises `OSError`.

        With a thin pool, that of disks, and how much of it is taken; the directory's own, where
        shared directories are made, beside it.
        """
        room = await self.helpers.run_in_pool(self.pool.measure)
        if self.thin is None:
            return _list_bytes(room)
        try:
            state = await self.thin.fetch_state()
            disks = await self.thin.measure(state)
        except DriverError as error:
            raise OSError(0, str(error)) from error
        shared = _list_bytes(room, "directories_") if NFS_PROVISIONER in self.provisioners else {}
        return {
            **_list_bytes(disks), **shared,
            "data_percent": round(state.data_percent),
            "metadata_percent": round(state.metadata_percent),
        }  # fmt: skip


def _list_bytes(room: Room, prefix: str = "") -> dict[str, int]:
    found = msgspec.structs.asdict(room)
    return {prefix + name.removesuffix("_bytes"): value for name, value in found.items()}


def make_storage_side(
    settings: Settings, host: Host, helpers: Helpers, clock: Clock, address: str
) -> StorageSide | None:
    """Build it, if this machine is a storage node. Raises `StartError`."""
    storage = settings.storage
    if not storage.enabled:
        return None
    directory, identity = _claim_directory(settings)
    address = storage.address or address
    if not address:
        raise StartError("no address for nodes to reach the volumes at", "set storage.address")
    pool = StoragePool(directory, FILE, storage.overcommit)
    iqn = storage.iqn or f"iqn.2026-01.dev.volagent:{settings.node_name}"
    copies = ImageCopies(host, helpers)
    files = FileContent(directory, pool, host, copies)
    content: DiskContent = files
    thin: ThinContent | None = None
    _check_groups(directory, storage.thin_pool)
    if storage.thin_pool:
        lvm = ThinPool(helpers, storage.thin_pool, identity)
        content = thin = ThinContent(directory, lvm, storage.overcommit, copies, files)

    def make_export(provisioner: str) -> Export:
        # Each deletes what has expired in the directory, whoever has made it.
        return Export(
            in_pool(helpers), clock, directory, provisioner,
            remove_outside=thin.remove if thin is not None else None,
        )  # fmt: skip

    made = StorageSide({}, {}, pool, helpers, iqn, thin)
    if "iscsi" in storage.kinds:
        portals = storage.portals or (f"{address}:{PORT}",)
        disks = IscsiShower(TargetService(helpers, directory, iqn, portals), content.activate)
        made.showers[ISCSI_PROVISIONER] = disks
        made.provisioners[ISCSI_PROVISIONER] = IscsiProvisioner(
            make_export(ISCSI_PROVISIONER), content, host, disks, settings.node_name, iqn, portals
        )
    if "nfs" in storage.kinds:
        shares = NfsShower(helpers, ShownExports(directory))
        made.showers[NFS_PROVISIONER] = shares
        made.provisioners[NFS_PROVISIONER] = SharedDirectoryProvisioner(
            make_export(NFS_PROVISIONER), pool, shares, settings.node_name, address
        )
    return made


def _check_groups(directory: str, thin_pool: str) -> None:
    """Disks that lie elsewhere would be neither shown nor ever removed. Raises `StartError`."""
    wanted = thin_pool.partition("/")[0]
    try:
        found = thin_links.find_groups(directory, ISCSI_PROVISIONER, FILE)
    except OSError as error:
        raise StartError(f"{error.filename}: {error.strerror}", "run as root") from error
    for group, volume in found.items():
        if group != wanted:
            raise StartError(
                f"the content of disks in {directory} is in the volume group {group} ({volume})",
                f'set storage.thin_pool to "{group}/POOL" again',
            )


def _claim_directory(settings: Settings) -> tuple[str, str]:
    """Where the volumes are, which are those that were there; its identity. Raises `StartError`."""
    named = settings.storage.directory
    directory = named or f"{settings.state_dir}/storage"
    if named and not os.path.isdir(named):
        raise StartError(f"{named}: no such directory", "is its disk mounted?")
    try:
        os.makedirs(directory, mode=0o711, exist_ok=True)
        state_file = f"{settings.state_dir}/node/storage-pools.json"
        identity = claim_pool(directory, settings.node_name, state_file)
    except Absent as error:
        raise StartError(str(error), "is its disk mounted? It is looked for at the next start"
                         ) from error  # fmt: skip
    except HostError as error:
        raise StartError(
            str(error),
            "volumes are a storage node's by its name: mount its own disk, or join this machine"
            " under that name",
        ) from error
    except OSError as error:
        raise StartError(f"{directory}: {error.strerror}", "run as root") from error
    return directory, identity
