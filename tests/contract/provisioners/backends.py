"""The backends that the suite runs on. Whoever adds a provisioner adds a `Backend` here.

A backend outlives its provisioners: `start` makes a new one, as a daemon does that was killed.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.moto_server import REGION, ZONE, MotoServer
from tests.simulation.fake_provisioner import FakeProvisioner, FakeStorage
from volagent.drivers.ebs.api import Ec2
from volagent.drivers.ebs.cloud import Cloud, EbsConfig
from volagent.drivers.ebs.kept import is_trashed
from volagent.drivers.ebs.provisioner import EbsProvisioner
from volagent.drivers.ebs.volumes import EbsVolumes
from volagent.drivers.provisioning.contract import Provisioner
from volagent.drivers.provisioning.directory import DIRECTORY, DirectoryProvisioner
from volagent.drivers.provisioning.export import Export, in_pool
from volagent.host.process import Helpers


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
