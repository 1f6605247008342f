"""kubernetes.io/aws-ebs at the server: has disks attached to the instances that nodes are.

Which instance a node is it says itself, in `spec.providerID` of its Node, as Kubernetes' nodes do.
What was answered when a disk was attached names the instance too, so that it can be taken from
a node whose Node is gone. Only the server needs credentials.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from volagent.drivers.attaching.contract import Placed
from volagent.drivers.contract import VolumeSource
from volagent.drivers.ebs.api import explained
from volagent.drivers.ebs.calls import AttachCalls
from volagent.drivers.ebs.names import parse_provider_id
from volagent.drivers.ebs.options import read_ebs_options
from volagent.drivers.ebs.volumes import EbsVolumes
from volagent.drivers.errors import Transient
from volagent.objects.attachments import DEVICE_PATH

INSTANCE: Final = "instanceID"
"""Of what `attach` answers: the instance that has the disk."""
_ATTACHED: Final = ("attached", "attaching")


@dataclass(frozen=True, slots=True)
class EbsAttacher:
    """Attaches and detaches EBS volumes."""

    volumes: EbsVolumes
    calls: AttachCalls
    find_provider_id: Callable[[str], str]
    """What a node's Node says that it is in the cloud; "" when it says nothing."""

    def identify(self, source: VolumeSource) -> str:
        """`vol-...`. Raises `Rejected`."""
        return read_ebs_options(source).volume_id

    async def attach(self, placed: Placed) -> Mapping[str, str]:
        """Have it attached; under which name, and to which instance."""
        place = parse_provider_id(self.find_provider_id(placed.node))
        if place is None:
            raise Transient(
                f"node {placed.node} has not said which instance of the cloud it is",
                remedy="set `enabled = true` under [aws] in its settings, and see its log",
            )
        with explained():
            attachment = await self.calls.ensure_attached(placed.disk, place)
        return {DEVICE_PATH: attachment.device, INSTANCE: place.instance_id}

    async def detach(self, placed: Placed) -> None:
        """Have it detached from the instance that it was attached to, and that the node is now."""
        now = parse_provider_id(self.find_provider_id(placed.node))
        known = {placed.facts.get(INSTANCE, ""), now.instance_id if now is not None else ""} - {""}
        with explained():
            if not known:
                await self._check_nowhere(placed)
            for instance_id in sorted(known):
                await self.calls.ensure_detached(placed.disk, instance_id)

    async def _check_nowhere(self, placed: Placed) -> None:
        """Raises `Transient` for a disk that may be the node's, which has not said what it is."""
        found = await self.volumes.find(placed.disk)
        if found is not None and found.attachments:
            instance_id = found.attachments[0].instance_id
            raise Transient(
                f"{placed.disk} is attached to {instance_id}, and nobody knows whether that is node"
                f" {placed.node}",
                remedy="see that nothing there uses it, and detach it with the AWS tools",
            )

    async def find_lost(self, held: Sequence[Placed]) -> Collection[Placed]:
        """Those that the API does not show at the instances that their nodes are."""
        with explained():
            found = await self.volumes.find_all([placed.disk for placed in held])
        at = {
            (volume.id, each.instance_id)
            for volume in found
            for each in volume.attachments
            if each.state in _ATTACHED
        }
        return [placed for placed in held if not self._is_there(placed, at)]

    def _is_there(self, placed: Placed, at: Collection[tuple[str, str]]) -> bool:
        now = parse_provider_id(self.find_provider_id(placed.node))
        instance_id = now.instance_id if now is not None else placed.facts.get(INSTANCE, "")
        return not instance_id or (placed.disk, instance_id) in at
