"""The EC2 API as volumes see it, on virtual time: states last, tags show late, tokens remember.

Stands where `Ec2` does: `call` answers with the values that AWS's answers are parsed to. What moto
leaves out is here: an attachment takes seconds, a modification too, a token gives the same volume
again even when that is deleted by now. `mishap` decides call by call what goes wrong.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from volagent.drivers.ebs.api import Ec2Error

Json = dict[str, Any]
ZONE = "us-east-1a"


@dataclass
class Disk:
    """One volume."""

    id: str
    zone: str
    size_gib: int
    tags: dict[str, str]
    made_s: float
    deleted: bool = False
    state: str = ""
    """Given by a test; else what time makes of it."""
    instance: str = ""
    device: str = ""
    changed_s: float = 0.0
    """When attaching or detaching began."""
    detaching: bool = False
    modified_s: float | None = None
    target_gib: int = 0


@dataclass
class Lasting:
    """How long things take, in seconds."""

    creating: float = 0.0
    tags_unseen: float = 0.0
    attaching: float = 0.0
    detaching: float = 0.0
    modifying: float = 0.0


@dataclass
class FakeEc2:
    """One account in one region."""

    clock: Any
    lasting: Lasting = field(default_factory=Lasting)
    disks: dict[str, Disk] = field(default_factory=dict)
    tokens: dict[str, tuple[str, Json]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    mishap: Callable[[str, str], None] = lambda when, action: None
    """Told `before` and `after` each call; may raise."""
    reserved: set[str] = field(default_factory=set)
    """Device names that are refused although nothing is known to have them."""
    instances: dict[str, str] = field(default_factory=dict)
    """States of instances; those that are not named run."""
    _numbers: Any = field(default_factory=lambda: itertools.count(1))

    async def call(self, action: str, **parameters: Any) -> Json:
        self.calls.append(action)
        self.mishap("before", action)
        answer: Json = getattr(self, f"_{action}")(parameters)
        self.mishap("after", action)
        return answer

    def add(self, *, size_gib: int = 1, zone: str = ZONE, **tags: str) -> Disk:
        """A volume that somebody has made."""
        disk = Disk(f"vol-{next(self._numbers):08x}", zone, size_gib, tags, -1000.0)
        self.disks[disk.id] = disk
        return disk

    @property
    def there(self) -> list[Disk]:
        return [disk for disk in self.disks.values() if not disk.deleted]

    def state_of(self, disk: Disk) -> str:
        now = self.clock.monotonic()
        if disk.detaching and now - disk.changed_s >= self.lasting.detaching:
            disk.instance, disk.detaching = "", False
        if disk.state:
            return disk.state
        if now - disk.made_s < self.lasting.creating:
            return "creating"
        return "in-use" if disk.instance else "available"

    def attachment_state(self, disk: Disk) -> str:
        if disk.detaching:
            return "detaching"
        late = self.clock.monotonic() - disk.changed_s >= self.lasting.attaching
        return "attached" if late else "attaching"

    def _tell(self, disk: Disk) -> Json:
        told = {
            "volumeId": disk.id, "availabilityZone": disk.zone, "size": str(disk.size_gib),
            "status": self.state_of(disk), "attachmentSet": "",
            "tagSet": [{"key": name, "value": value} for name, value in disk.tags.items()],
        }  # fmt: skip
        if disk.instance:
            told["attachmentSet"] = [{
                "instanceId": disk.instance, "device": disk.device,
                "status": self.attachment_state(disk),
            }]  # fmt: skip
        return told

    def _find(self, parameters: Json) -> Disk:
        given = parameters["VolumeId"]
        id = given if isinstance(given, str) else given[0]
        disk = self.disks.get(id)
        if disk is None or disk.deleted:
            raise Ec2Error("any", "InvalidVolume.NotFound", f"no volume {id}", 400)
        return disk

    def _CreateVolume(self, parameters: Json) -> Json:
        token = parameters["ClientToken"]
        known = self.tokens.get(token)
        if known is not None:
            if known[1] != parameters:
                raise Ec2Error("CreateVolume", "IdempotentParameterMismatch", "other", 400)
            return {**self._tell(self.disks[known[0]]), "status": "creating"}
        disk = self.add(size_gib=parameters["Size"], zone=parameters["AvailabilityZone"])
        (marks,) = parameters["TagSpecification"]
        disk.tags = {each["Key"]: each["Value"] for each in marks["Tag"]}
        disk.made_s = self.clock.monotonic()
        self.tokens[token] = (disk.id, parameters)
        return self._tell(disk)

    def _DescribeVolumes(self, parameters: Json) -> Json:
        if "VolumeId" in parameters:
            return {"volumeSet": [self._tell(self._find(parameters))]}
        visible = self.clock.monotonic() - self.lasting.tags_unseen
        found = [disk for disk in self.there if disk.made_s <= visible]
        for wanted in parameters["Filter"]:
            name, (value,) = wanted["Name"], wanted["Value"]
            if name == "tag-key":
                found = [disk for disk in found if value in disk.tags]
            else:
                tag = name.removeprefix("tag:")
                found = [disk for disk in found if disk.tags.get(tag) == value]
        return {"volumeSet": [self._tell(disk) for disk in found] or ""}

    def _DeleteVolume(self, parameters: Json) -> Json:
        disk = self._find(parameters)
        if self.state_of(disk) == "in-use":
            raise Ec2Error("DeleteVolume", "VolumeInUse", "attached", 400)
        disk.deleted = True
        return {}

    def _CreateTags(self, parameters: Json) -> Json:
        (id,) = parameters["ResourceId"]
        self.disks[id].tags |= {each["Key"]: each["Value"] for each in parameters["Tag"]}
        return {}

    def _DeleteTags(self, parameters: Json) -> Json:
        (id,) = parameters["ResourceId"]
        for each in parameters["Tag"]:
            self.disks[id].tags.pop(each["Key"], None)
        return {}

    def _AttachVolume(self, parameters: Json) -> Json:
        disk, device = self._find(parameters), parameters["Device"]
        if self.state_of(disk) != "available":
            raise Ec2Error("AttachVolume", "VolumeInUse", "attached already", 400)
        if device in self.reserved or device in self._names(parameters["InstanceId"]):
            text = f"Invalid value '{device}' for unixDevice. Attachment point is already in use"
            raise Ec2Error("AttachVolume", "InvalidParameterValue", text, 400)
        disk.instance, disk.device = parameters["InstanceId"], device
        disk.changed_s = self.clock.monotonic()
        return {}

    def _DetachVolume(self, parameters: Json) -> Json:
        disk = self._find(parameters)
        if disk.instance != parameters["InstanceId"]:
            raise Ec2Error("DetachVolume", "IncorrectState", "not attached there", 400)
        disk.detaching, disk.changed_s = True, self.clock.monotonic()
        return {}

    def _names(self, instance: str) -> set[str]:
        return {disk.device for disk in self.there if disk.instance == instance}

    def _DescribeInstances(self, parameters: Json) -> Json:
        (instance,) = parameters["InstanceId"]
        names = ["/dev/sda1", *self._names(instance)]
        mapping = [{"deviceName": name} for name in names]
        state = self.instances.get(instance, "running")
        if state == "unknown":
            raise Ec2Error("DescribeInstances", "InvalidInstanceID.NotFound", instance, 400)
        told = {"blockDeviceMapping": mapping, "instanceState": {"name": state}}
        return {"reservationSet": [{"instancesSet": [told]}]}

    def _ModifyVolume(self, parameters: Json) -> Json:
        disk, now = self._find(parameters), self.clock.monotonic()
        if disk.modified_s is not None and now - disk.modified_s < 6 * 3600:
            raise Ec2Error("ModifyVolume", "VolumeModificationRateExceeded", "too soon", 400)
        disk.modified_s, disk.target_gib = now, parameters["Size"]
        return {}

    def _DescribeVolumesModifications(self, parameters: Json) -> Json:
        disk = self._find(parameters)
        if disk.modified_s is None:
            text = f"no modification of {disk.id}"
            raise Ec2Error("any", "InvalidVolumeModification.NotFound", text, 400)
        done = self.clock.monotonic() - disk.modified_s >= self.lasting.modifying
        if done:
            disk.size_gib = disk.target_gib
        state = "optimizing" if done else "modifying"
        change = {"modificationState": state, "targetSize": str(disk.target_gib)}
        return {"volumeModificationSet": [change]}
