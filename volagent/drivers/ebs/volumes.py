"""The few calls of the EC2 API that volumes need, with typed answers.

Every question is asked anew: nothing is remembered between calls. Raises `Ec2Error` for what the
caller decides upon, `DriverError` for an API that does not answer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from volagent.drivers.ebs.api import GONE, Ec2, Ec2Error, Value

GIB: Final = 1 << 30
ENDED: Final = ("deleting", "deleted")
_PAGE: Final = 500


class Attachment(msgspec.Struct, frozen=True):
    """Where a volume is attached, or about to be, or about to be no more."""

    instance_id: str
    device: str
    state: str


class EbsVolume(msgspec.Struct, frozen=True):
    """A volume as the API tells."""

    id: str
    zone: str
    size_bytes: int
    state: str
    """`creating`, `available`, `in-use`, `deleting`, `deleted`, `error`."""
    attachments: tuple[Attachment, ...] = ()
    tags: Mapping[str, str] = {}

    def attachment_to(self, instance_id: str) -> Attachment | None:
        """The attachment to an instance."""
        return next((each for each in self.attachments if each.instance_id == instance_id), None)


class Modification(msgspec.Struct, frozen=True):
    """The last change of a volume's size."""

    state: str
    """`modifying`, `optimizing`, `completed`, `failed`."""
    target_bytes: int
    detail: str = ""


@dataclass(frozen=True, slots=True)
class EbsVolumes:
    """The block store."""

    ec2: Ec2

    async def create(self, *, token: str, tags: Mapping[str, str], **wanted: Value) -> EbsVolume:
        """Make a volume; the same again for the same token."""
        marked = [{"ResourceType": "volume", "Tag": _pairs(tags)}]
        answer = await self.ec2.call(
            "CreateVolume", ClientToken=token, TagSpecification=marked, **wanted
        )
        return _read_volume(answer)

    async def find(self, volume_id: str) -> EbsVolume | None:
        """One volume, None when it is gone or going."""
        try:
            answer = await self.ec2.call("DescribeVolumes", VolumeId=[volume_id])
        except Ec2Error as error:
            if error.code in GONE:
                return None
            raise
        found = [_read_volume(each) for each in _items(answer, "volumeSet")]
        return next((each for each in found if each.state not in ENDED), None)

    async def select(self, tags: Mapping[str, str], *, having: str = "") -> list[EbsVolume]:
        """The volumes with these tags, and with a tag named `having` if that is given."""
        wanted: list[Value] = [
            {"Name": f"tag:{name}", "Value": [value]} for name, value in tags.items()
        ]
        if having:
            wanted.append({"Name": "tag-key", "Value": [having]})
        found: list[EbsVolume] = []
        page: dict[str, Value] = {}
        while True:
            answer = await self.ec2.call("DescribeVolumes", Filter=wanted, MaxResults=_PAGE, **page)
            found += (_read_volume(each) for each in _items(answer, "volumeSet"))
            if not answer.get("nextToken"):
                return [each for each in found if each.state not in ENDED]
            page = {"NextToken": str(answer["nextToken"])}

    async def delete(self, volume_id: str) -> bool:
        """Delete a volume; False when it was gone."""
        try:
            await self.ec2.call("DeleteVolume", VolumeId=volume_id)
        except Ec2Error as error:
            if error.code in GONE:
                return False
            raise
        return True

    async def tag(self, volume_id: str, tags: Mapping[str, str]) -> None:
        """Set tags, all at once."""
        await self.ec2.call("CreateTags", ResourceId=[volume_id], Tag=_pairs(tags))

    async def untag(self, volume_id: str, names: list[str]) -> None:
        """Take tags off."""
        keys: list[Value] = [{"Key": name} for name in names]
        await self.ec2.call("DeleteTags", ResourceId=[volume_id], Tag=keys)

    async def modify(self, volume_id: str, size_gib: int) -> None:
        """Ask for a size."""
        await self.ec2.call("ModifyVolume", VolumeId=volume_id, Size=size_gib)

    async def find_modification(self, volume_id: str) -> Modification | None:
        """The last change of a volume, None when there was none."""
        try:
            answer = await self.ec2.call("DescribeVolumesModifications", VolumeId=[volume_id])
        except Ec2Error as error:
            if error.code in {*GONE, "InvalidVolumeModification.NotFound"}:
                return None
            raise
        changes = sorted(
            _items(answer, "volumeModificationSet"), key=lambda each: str(each.get("startTime", ""))
        )
        if not changes:
            return None
        last = changes[-1]
        return Modification(
            str(last.get("modificationState", "")),
            _gib(last.get("targetSize")),
            str(last.get("statusMessage", "")),
        )

    async def attach(self, volume_id: str, instance_id: str, device: str) -> None:
        """Have a volume attached under a device name."""
        await self.ec2.call(
            "AttachVolume", VolumeId=volume_id, InstanceId=instance_id, Device=device
        )

    async def detach(self, volume_id: str, instance_id: str) -> None:
        """Have a volume detached from exactly this instance."""
        await self.ec2.call("DetachVolume", VolumeId=volume_id, InstanceId=instance_id)

    async def fetch_instance_state(self, instance_id: str) -> str:
        """`running`, `stopped`, `terminated`, ...; "terminated" too when it is known no more."""
        try:
            answer = await self.ec2.call("DescribeInstances", InstanceId=[instance_id])
        except Ec2Error as error:
            if error.code == "InvalidInstanceID.NotFound":
                return "terminated"
            raise
        for reservation in _items(answer, "reservationSet"):
            for instance in _items(reservation, "instancesSet"):
                return str((instance.get("instanceState") or {}).get("name", ""))
        return ""

    async def used_names(self, instance_id: str) -> set[str]:
        """The device names that an instance has in use."""
        answer = await self.ec2.call("DescribeInstances", InstanceId=[instance_id])
        return {
            str(mapping.get("deviceName", ""))
            for reservation in _items(answer, "reservationSet")
            for instance in _items(reservation, "instancesSet")
            for mapping in _items(instance, "blockDeviceMapping")
        }


def _pairs(tags: Mapping[str, str]) -> list[Value]:
    return [{"Key": name, "Value": value} for name, value in tags.items()]


def _items(answer: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """A list of the answer; an empty one arrives as an empty text."""
    found = answer.get(name)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _gib(text: object) -> int:
    return int(str(text)) * GIB if text else 0


def _read_volume(answer: Mapping[str, Any]) -> EbsVolume:
    return EbsVolume(
        str(answer["volumeId"]),
        str(answer.get("availabilityZone", "")),
        _gib(answer.get("size")),
        str(answer.get("status", "")),
        tuple(
            Attachment(
                str(each.get("instanceId", "")),
                str(each.get("device", "")),
                str(each.get("status", "")),
            )
            for each in _items(answer, "attachmentSet")
            if each.get("status") != "detached"
        ),
        {str(each["key"]): str(each.get("value", "")) for each in _items(answer, "tagSet")},
    )
