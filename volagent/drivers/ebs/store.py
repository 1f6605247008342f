"""The block store as the driver and the provisioner share it, put together."""

from dataclasses import dataclass

from volagent.aio.clock import Clock
from volagent.drivers.ebs.api import Ec2
from volagent.drivers.ebs.cloud import Cloud, EbsConfig
from volagent.drivers.ebs.names import format_provider_id
from volagent.drivers.ebs.volumes import EbsVolumes
from volagent.drivers.ebs.zones import REGION, ZONE, region_of


@dataclass(frozen=True, slots=True)
class BlockStore:
    """Where we are, and what can be asked there."""

    cloud: Cloud
    volumes: EbsVolumes

    async def fetch_labels(self) -> dict[str, str]:
        """The labels of this machine's Node, by which volumes say where they are.

        Raises `Transient` while the metadata service does not answer.
        """
        place = await self.cloud.fetch_place()
        region = region_of(place.zone) or await self.cloud.fetch_region()
        return {ZONE: place.zone, REGION: region}

    async def fetch_provider_id(self) -> str:
        """What this machine's Node says that it is. Raises `Transient` likewise."""
        place = await self.cloud.fetch_place()
        return format_provider_id(place.instance_id, place.zone)


def make_block_store(config: EbsConfig, clock: Clock) -> BlockStore:
    """Nothing is asked yet."""
    cloud = Cloud(config, clock)
    return BlockStore(cloud, EbsVolumes(Ec2(cloud)))
