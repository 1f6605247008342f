"""The backends that the suite runs on. Whoever adds a provisioner adds a `Backend` here.

A backend outlives its provisioners: `start` makes a new one, as a daemon does that was killed.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.moto_server import REGION, ZONE, MotoServer
from tests.simulation.fake_configfs import FakeTarget
from tests.simulation.fake_lvm import FakeLvm
from tests.simulation.fake_provisioner import FakeProvisioner, FakeStorage
from volagent.drivers.ebs.api import Ec2
from volagent.drivers.ebs.cloud import Cloud, EbsConfig
from volagent.drivers.ebs.kept import is_trashed
from volagent.drivers.ebs.provisioner import EbsProvisioner
from volagent.drivers.ebs.volumes import EbsVolumes
from volagent.drivers.image import IMAGE
from volagent.drivers.provisioning.contract import Provisioner
from volagent.drivers.provisioning.directory import DIRECTORY, DirectoryProvisioner
from volagent.drivers.provisioning.disk_content import FileContent
from volagent.drivers.provisioning.export import Export, in_pool
from volagent.drivers.provisioning.image import ImageProvisioner
from volagent.drivers.provisioning.image_copies import ImageCopies
from volagent.drivers.provisioning.nfs import NfsSubdirProvisioner
from volagent.drivers.provisioning.nfs_classes import (
    NFS_SUBDIR,
    KnownExports,
    NfsClassProvisioner,
)
from volagent.drivers.provisioning.storage_iscsi import IscsiProvisioner
from volagent.drivers.provisioning.storage_pool import StoragePool
from volagent.drivers.provisioning.thin_content import ThinContent
from volagent.drivers.showing.iscsi import IscsiShower
from volagent.host.process import Helpers
from volagent.host.real import make_host
from volagent.host.thin_pool import ThinPool
from volagent.objects.storage_nodes import ISCSI_PROVISIONER


class ManualClock:
    """Time that moves when a test says so."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s

    def wall(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.now_s)


@dataclass
class Backend:
    """One kind of storage, with nothing in it."""

    start: Callable[[], Provisioner]
    holds: Callable[[dict], bool]
    """Whether the data behind a PersistentVolume's source is there."""
    clock: ManualClock
    parameters: dict[str, str] = field(default_factory=dict)


def fake_backend(clock: ManualClock) -> Backend:
    storage = FakeStorage()
    return Backend(
        lambda: FakeProvisioner("fake.test", storage, clock),
        lambda source: source["nfs"]["path"].removeprefix("/") in storage.volumes,
        clock,
    )


def image_backend(clock: ManualClock, helpers: Helpers, path: Path) -> Backend:
    export = str(path / "images")
    host = make_host(helpers=helpers)

    def start() -> Provisioner:
        local = Export(in_pool(helpers), clock, export, IMAGE)
        return ImageProvisioner(local, host, ImageCopies(host, helpers), "vm1", "vm1")

    def holds(source: dict) -> bool:
        return Path(export, source["csi"]["volumeAttributes"]["path"]).is_file()

    return Backend(start, holds, clock)


def iscsi_backend(clock: ManualClock, helpers: Helpers, path: Path) -> Backend:
    """Its content: files."""
    return _make_storage_node(clock, helpers, path, lambda files: files)


def iscsi_thin_backend(clock: ManualClock, helpers: Helpers, path: Path) -> Backend:
    """Its content: thin volumes, of an LVM that remembers."""
    lvm = FakeLvm("vg0", "pool")

    def make_content(files: FileContent) -> ThinContent:
        pool = ThinPool(lvm, "vg0/pool", "store-1")
        return ThinContent(files.directory, pool, 1.0, files.copies, files)

    backend = _make_storage_node(clock, helpers, path, make_content)
    has_directory = backend.holds
    backend.holds = lambda source: (
        has_directory(source)
        and f"volagent-{source['iscsi']['iqn'].rpartition('.')[2]}" in lvm.volumes
    )
    return backend


def _make_storage_node(
    clock: ManualClock, helpers: Helpers, path: Path,
    make_content: Callable[[FileContent], FileContent | ThinContent],
) -> Backend:  # fmt: skip
    pool, host = str(path / "pool"), make_host(helpers=helpers)
    iqn = "iqn.2026-01.dev.volagent:vm1"
    Path(pool).mkdir()
    files = FileContent(pool, StoragePool(pool, "disk.img", 1.0), host, ImageCopies(host, helpers))

    def start() -> Provisioner:
        content = make_content(files)
        export = Export(
            in_pool(helpers), clock, pool, ISCSI_PROVISIONER, remove_outside=content.remove
        )
        shower = IscsiShower(FakeTarget(path / "configfs", pool, iqn))
        return IscsiProvisioner(export, content, host, shower, "vm1", iqn, ("192.0.2.1:3260",))

    def holds(source: dict) -> bool:
        file = Path(pool, source["iscsi"]["iqn"].removeprefix(f"{iqn}."), "disk.img")
        return file.is_file() or file.is_symlink()

    return Backend(start, holds, clock)


class LocalMount:
    """An export that is a directory here: `NfsMount` to the provisioner, less the network."""

    def __init__(self, helpers: Helpers, server: str, path: str, base: Path) -> None:
        self.server = server
        self.path = path
        self.target = f"{base}{path}"
        self.source = f"{server}:{path}"
        self._perform = in_pool(helpers)

    async def perform(self, request: dict) -> dict:
        return await self._perform({**request, "path": self.target})


def nfs_backend(clock: ManualClock, helpers: Helpers, path: Path) -> Backend:
    def make(server: str, export: str, _options: tuple[str, ...]) -> NfsSubdirProvisioner:
        return NfsSubdirProvisioner(NFS_SUBDIR, LocalMount(helpers, server, export, path), clock)

    def holds(source: dict) -> bool:
        return Path(f"{path}{source['nfs']['path']}").is_dir()

    parameters = {"server": "10.0.0.5", "path": "/srv/nfs", "archiveOnDelete": "false"}
    known = KnownExports(path / "known")
    return Backend(lambda: NfsClassProvisioner(make, known), holds, clock, parameters)


def directory_backend(clock: ManualClock, helpers: Helpers, path: Path) -> Backend:
    export = str(path / "volumes")

    def start() -> Provisioner:
        local = Export(in_pool(helpers), clock, export, DIRECTORY)
        return DirectoryProvisioner(local, "vm1", "vm1")

    return Backend(start, lambda source: Path(source["local"]["path"]).is_dir(), clock)


def ebs_backend(clock: ManualClock, moto: MotoServer) -> Backend:
    config = EbsConfig(
        cluster="vm1", region=REGION, zone=ZONE, instance_id="i-0", endpoint=moto.endpoint
    )

    def start() -> Provisioner:
        cloud = Cloud(config, clock)
        return EbsProvisioner(cloud, EbsVolumes(Ec2(cloud)), poll_s=0.01)

    def holds(source: dict) -> bool:
        name = source["awsElasticBlockStore"]["volumeID"]
        tags = moto.tags_of(name.rpartition("/")[2])
        return tags is not None and not is_trashed(tags)

    return Backend(start, holds, clock, {"type": "gp2"})
