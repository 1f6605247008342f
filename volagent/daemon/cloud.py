"""The clouds' APIs, as the settings name them."""

import os

from volagent.aio.clock import Clock
from volagent.daemon.errors import StartError
from volagent.drivers.ebs.api import Ec2
from volagent.drivers.ebs.credentials import Credentials
from volagent.drivers.errors import DriverError
from volagent.drivers.provisioning.ebs import REGION, ZONE
from volagent.observe.logs import get_logger
from volagent.settings import Settings

_log = get_logger("cloud")


def make_ec2(settings: Settings, clock: Clock) -> Ec2:
    """The EC2 API of a region. Raises `StartError` when none is named."""
    aws = settings.aws
    region = aws.region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION", "")
    if not region:
        raise StartError("aws.enabled without a region", 'set "aws.region", or AWS_REGION')
    return Ec2(Credentials(clock), clock, region, aws.endpoint, aws.instance_id, aws.zone)


async def find_zone(settings: Settings, clock: Clock) -> dict[str, str]:
    """The labels that say where this VM is; none outside a cloud, or when it does not say."""
    if not settings.aws.enabled:
        return {}
    ec2 = make_ec2(settings, clock)
    try:
        return {ZONE: await ec2.read_zone(), REGION: ec2.region}
    except DriverError as error:
        _log.warning("zone not known", error=error.message, remedy='set "aws.zone"')
        return {REGION: ec2.region}
