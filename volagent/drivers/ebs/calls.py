"""Attaching a volume to an instance and detaching it, through the API, until it is done.

The one place where AttachVolume and DetachVolume are asked for. Each call looks first, so that one
that was interrupted goes on; names of devices are chosen here, so one attachment to an instance is
begun at a time. Whenever the API does not say that the volume is not attached there, the failure is
`Uncertain`. Never detaches from another instance than the one named, and nothing by force.
"""

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Final

from volagent.drivers.ebs import kept
from volagent.drivers.ebs.api import Ec2Error, explain
from volagent.drivers.ebs.names import Place, choose_device_name
from volagent.drivers.ebs.volumes import Attachment, EbsVolume, EbsVolumes
from volagent.drivers.errors import DriverError, Rejected, Transient, Uncertain

ATTACH_TIMEOUT_S: Final = 120.0
DETACH_TIMEOUT_S: Final = 120.0
_NAME_TAKEN: Final = ("already in use", "nvalid value")


@dataclass(frozen=True, slots=True)
class AttachCalls:
    """Attaches and detaches."""

    volumes: EbsVolumes
    poll_s: float = 1.0
    _refused: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Per instance, device names that were not accepted though nothing was known to have them."""
    _naming: defaultdict[str, asyncio.Lock] = field(
        default_factory=lambda: defaultdict(asyncio.Lock)
    )

    async def ensure_attached(self, volume_id: str, place: Place) -> Attachment:
        """Have it attached, and wait until it is."""
        begun = False
        try:
            async with asyncio.timeout(ATTACH_TIMEOUT_S):
                while True:
                    found = await self._look(volume_id)
                    mine = found.attachment_to(place.instance_id) if found is not None else None
                    if mine is not None and mine.state == "attached":
                        return mine
                    if mine is None and not begun:
                        _refuse_unattachable(volume_id, found, place)
                        begun = await self._begin(volume_id, place)
                        continue
                    # One that is on its way out is begun anew when it is gone.
                    begun = mine is None or mine.state != "detaching"
                    await asyncio.sleep(self.poll_s)
        except TimeoutError as error:
            raise Uncertain(
                f"{volume_id} is still being attached after {ATTACH_TIMEOUT_S:.0f} s",
                remedy="see the volume's attachment state; it is looked at again",
            ) from error

    async def ensure_detached(self, volume_id: str, instance_id: str) -> None:
        """Have it detached from an instance that does not use it, and wait until it is."""
        asked = False
        try:
            async with asyncio.timeout(DETACH_TIMEOUT_S):
                while True:
                    found = await self.volumes.find(volume_id)
                    mine = found.attachment_to(instance_id) if found else None
                    if mine is None:
                        return
                    if not asked and mine.state != "detaching":
                        asked = await self._ask_to_detach(volume_id, instance_id)
                        continue
                    await asyncio.sleep(self.poll_s)
        except TimeoutError as error:
            raise Uncertain(
                f"{volume_id} is still being detached after {DETACH_TIMEOUT_S:.0f} s",
                remedy="see the instance's console; a forced detach can lose data",
            ) from error

    async def _look(self, volume_id: str) -> EbsVolume | None:
        try:
            return await self.volumes.find(volume_id)
        except Transient as error:
            raise _explain_blindness(volume_id, error) from error
        except Ec2Error as error:
            failure = explain(error)
            if isinstance(failure, Transient):
                raise _explain_blindness(volume_id, failure) from error
            raise

    async def _begin(self, volume_id: str, place: Place) -> bool:
        """Ask for the attachment, under a name that is free."""
        instance_id = place.instance_id
        async with self._naming[instance_id]:
            used, refused = await self.volumes.used_names(instance_id), self._refused[instance_id]
            name = choose_device_name(used | refused)
            if name is None:
                refused.clear()
                raise Transient(
                    f"no device name is free on {instance_id}",
                    remedy="see what is attached to it; an instance has few places for disks",
                )
            try:
                await self.volumes.attach(volume_id, instance_id, name)
            except Ec2Error as error:
                named = error.code == "InvalidParameterValue" and name in error.message
                if named and any(words in error.message for words in _NAME_TAKEN):
                    refused.add(name)
                    raise Transient(f"{error}: another name is tried") from error
                raise
        return True

    async def _ask_to_detach(self, volume_id: str, instance_id: str) -> bool:
        try:
            await self.volumes.detach(volume_id, instance_id)
        except Ec2Error as error:
            if error.code not in ("InvalidAttachment.NotFound", "IncorrectState"):
                raise
        return True


def _explain_blindness(volume_id: str, error: Transient) -> Uncertain:
    """Nobody says whether a volume is attached: it may be, by an attempt before."""
    return Uncertain(f"{volume_id} may be attached or not: {error}", remedy=error.remedy)


def _refuse_unattachable(volume_id: str, found: EbsVolume | None, place: Place) -> None:
    """Raises what keeps a volume from being attached to an instance."""
    problem: DriverError | None = None
    if found is None:
        problem = Transient(
            f"{volume_id} does not exist",
            remedy="see its id, and the region and account that are used",
        )
    elif kept.is_trashed(found.tags):
        problem = Rejected(
            f"{volume_id} is in the trash until {found.tags[kept.EXPIRES]}",
            remedy="have it back with `volagent trash restore`",
        )
    elif found.attachments:
        where = found.attachments[0]
        problem = Transient(
            f"Multi-Attach error: {volume_id} is attached to {where.instance_id}"
            f" ({where.state}), and can be attached to one machine only",
            remedy="stop what uses it there, and have it detached",
            reason="FailedAttachVolume",
        )
    elif found.zone != place.zone:
        problem = Rejected(
            f"{volume_id} is in {found.zone}, and {place.instance_id} in {place.zone}",
            remedy="declare the pod on a machine of that zone, or copy the volume by a snapshot",
        )
    if problem is not None:
        raise problem
