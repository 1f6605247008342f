"""EBS volumes: a node is kept out when the API says that the volume is attached to nobody.

What AWS says of DetachVolume: an attachment that a running instance's system still uses may stay
"busy" for ever, and `Force` is for an instance that has failed, and can corrupt a file system; it
does not say when a running instance's last write has ended. So nothing is forced from an instance
that runs: its being stopped or terminated comes first, by a hook or by hand, and only then the
volume is detached. The proof is what DescribeVolumes says afterwards: `available`, no attachment.
"""

from dataclasses import dataclass
from typing import Final

from volagent.drivers.ebs.api import explained
from volagent.drivers.ebs.names import parse_volume_name
from volagent.drivers.ebs.volumes import EbsVolumes
from volagent.drivers.errors import Transient
from volagent.drivers.fencing.contract import FenceOrder, NoProof

ENDED: Final = ("stopped", "terminated")
"""States of an instance in which it writes nothing, and cannot any more."""
_STOP: Final = (
    "stop the instance (`aws ec2 stop-instances --force`), or have a program of yours do it"
    " (config/fence.d)"
)


@dataclass(frozen=True, slots=True)
class EbsFence:
    """`Fences` by the EC2 API, from any machine whose credentials may ask it."""

    volumes: EbsVolumes

    async def fence(self, order: FenceOrder) -> str:
        """Have the volume detached from an instance that has ended; as read back."""
        volume_id = parse_volume_name(str(order.source.body.get("volumeID", ""))).id
        with explained():
            found = await self.volumes.find(volume_id)
            if found is None:
                raise Transient(
                    f"the API knows no {volume_id}", remedy="see whether it was deleted"
                )
            if not found.attachments and found.state == "available":
                return f"{volume_id} is {found.state} and attached to no instance, says the API"
            for each in found.attachments:
                state = await self.volumes.fetch_instance_state(each.instance_id)
                if state not in ENDED:
                    raise NoProof(
                        f"{volume_id} is {each.state} to {each.instance_id}, which is"
                        f" {state or 'unknown'}: it could write until it is stopped",
                        remedy=_STOP,
                    )
                if each.state != "detaching":
                    await self.volumes.detach(volume_id, each.instance_id)
        raise Transient(f"{volume_id} is being detached; the API says {found.state} yet")
