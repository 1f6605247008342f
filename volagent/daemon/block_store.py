"""From the settings to Amazon's block store, and to what it makes known of this machine.

Nothing of it is there unless `aws.enabled` is set; nothing is asked of the network here.
"""

from volagent.aio.clock import Clock
from volagent.drivers.ebs.cloud import EbsConfig
from volagent.drivers.ebs.store import BlockStore, make_block_store
from volagent.node.register import NodeExtras, Whereabouts
from volagent.settings import AwsSettings

ATTACH_LIMIT = "attachable-volumes-aws-ebs"
"""The Node's resource that the scheduler counts attached volumes against."""


def open_block_store(settings: AwsSettings, clock: Clock) -> BlockStore | None:
    """The block store, or None when it is not to be used."""
    if not settings.enabled:
        return None
    config = EbsConfig(
        cluster=settings.cluster,
        region=settings.region,
        endpoint=settings.endpoint,
        instance_id=settings.instance_id,
        zone=settings.zone,
        device_links=settings.device_links,
    )
    return make_block_store(config, clock)


def describe_extras(settings: AwsSettings, store: BlockStore | None) -> NodeExtras:
    """What the Node says because of it: instance, zone, and how many disks it takes."""
    if store is None:
        return NodeExtras()

    async def fetch_whereabouts() -> Whereabouts:
        return Whereabouts(await store.fetch_labels(), await store.fetch_provider_id())

    return NodeExtras(fetch_whereabouts, {ATTACH_LIMIT: str(settings.attach_limit)})
