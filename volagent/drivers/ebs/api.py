"""The EC2 API as far as volumes need it: signed queries, answers as values, errors by next move.

Our own and small, because botocore cannot be installed beside the official Kubernetes client: they
want different versions of one library. Every call is one request with a time limit; nothing is
retried here. Creating is made idempotent by a client token.
"""

import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlencode, urlsplit

import aiohttp

from volagent.aio.clock import Clock
from volagent.drivers.contract import DriverName
from volagent.drivers.ebs.credentials import Credentials
from volagent.drivers.ebs.signature import Scope, sign
from volagent.drivers.errors import DriverError, Rejected, Transient, Uncertain
from volagent.drivers.provisioning.contract import OutOfSpace

EBS: Final = DriverName("kubernetes.io/aws-ebs")
"""The driver on the node, and the provisioner."""
VERSION: Final = "2016-11-15"
ANSWER_LIMIT_BYTES: Final = 8 << 20
_TIMEOUT: Final = aiohttp.ClientTimeout(total=30.0, connect=10.0)
_FORM: Final = "application/x-www-form-urlencoded; charset=utf-8"
_FULL: Final = frozenset({
    "InsufficientVolumeCapacity", "VolumeLimitExceeded", "MaxIOPSLimitExceeded",
    "AttachmentLimitExceeded",
})  # fmt: skip
_LATER: Final = frozenset({
    "VolumeInUse", "IncorrectState", "IncorrectModificationState", "RequestLimitExceeded",
    "VolumeModificationRateExceeded",
})  # fmt: skip
_NOT_ALLOWED: Final = frozenset({
    "UnauthorizedOperation", "AuthFailure", "ExpiredToken", "InvalidClientTokenId",
    "RequestExpired", "SignatureDoesNotMatch",
})  # fmt: skip
_GONE: Final = frozenset({"InvalidVolume.NotFound", "InvalidVolumeID.Malformed"})


@dataclass(frozen=True, slots=True)
class Attachment:
    """A volume on an instance."""

    instance: str
    device: str
    state: str


@dataclass(frozen=True, slots=True)
class Volume:
    """An EBS volume."""

    id: str
    state: str
    """creating, available, in-use, deleting, deleted, error."""
    zone: str
    size_gib: int
    attachments: tuple[Attachment, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ec2:
    """One region's API, as seen from one machine."""

    credentials: Credentials
    clock: Clock
    region: str
    endpoint: str = ""
    """"" is AWS's own."""
    instance: str = ""
    """This machine; "" asks the metadata service."""
    zone: str = ""

    async def find_volume(self, id: str) -> Volume | None:
        """A volume by its id; None when there is none."""
        try:
            found = await self._describe({"VolumeId.1": id})
        except Rejected as error:
            if error.reason in _GONE:
                return None
            raise
        return next((each for each in found if each.state != "deleted"), None)

    async def list_volumes(self, tags: Mapping[str, str]) -> list[Volume]:
        """Volumes with all of these tags; a value of "" is any."""
        filters: dict[str, str] = {}
        for number, (name, value) in enumerate(tags.items(), start=1):
            filters[f"Filter.{number}.Name"] = f"tag:{name}" if value else "tag-key"
            filters[f"Filter.{number}.Value.1"] = value or name
        return [each for each in await self._describe(filters) if each.state != "deleted"]

    async def create(
        self, parameters: Mapping[str, str], tags: Mapping[str, str], token: str
    ) -> Volume:
        """Make a volume, or find the one that this token made."""
        given = {**parameters, "ClientToken": token, "TagSpecification.1.ResourceType": "volume"}
        for number, (name, value) in enumerate(tags.items(), start=1):
            given[f"TagSpecification.1.Tag.{number}.Key"] = name
            given[f"TagSpecification.1.Tag.{number}.Value"] = value
        return _read_volume(await self._call("CreateVolume", given))

    async def delete(self, id: str) -> None:
        """Delete a volume; gone is a success. Raises `Transient` while it is attached."""
        try:
            await self._call("DeleteVolume", {"VolumeId": id})
        except Rejected as error:
            if error.reason not in _GONE:
                raise

    async def attach(self, id: str, instance: str, device: str) -> None:
        """Begin to attach a volume."""
        given = {"VolumeId": id, "InstanceId": instance, "Device": device}
        await self._call("AttachVolume", given)

    async def detach(self, id: str, instance: str) -> None:
        """Begin to detach a volume."""
        await self._call("DetachVolume", {"VolumeId": id, "InstanceId": instance})

    async def resize(self, id: str, size_gib: int) -> None:
        """Begin to make a volume larger."""
        await self._call("ModifyVolume", {"VolumeId": id, "Size": str(size_gib)})

    async def tag(self, id: str, tags: Mapping[str, str]) -> None:
        """Set tags."""
        given = {"ResourceId.1": id}
        for number, (name, value) in enumerate(tags.items(), start=1):
            given |= {f"Tag.{number}.Key": name, f"Tag.{number}.Value": value}
        await self._call("CreateTags", given)

    async def untag(self, id: str, names: Sequence[str]) -> None:
        """Remove tags."""
        given = {"ResourceId.1": id}
        given |= {f"Tag.{number}.Key": name for number, name in enumerate(names, start=1)}
        await self._call("DeleteTags", given)

    async def list_devices(self, instance: str) -> set[str]:
        """The device names that an instance has given away."""
        answer = await self._call("DescribeInstances", {"InstanceId.1": instance})
        return {each.text or "" for each in answer.iter("deviceName")}

    async def read_instance(self) -> str:
        """This machine's id."""
        return self.instance or (await self.credentials.ask_metadata("meta-data/instance-id"))

    async def read_zone(self) -> str:
        """This machine's zone."""
        where = "meta-data/placement/availability-zone"
        return self.zone or (await self.credentials.ask_metadata(where))

    async def _describe(self, given: Mapping[str, str]) -> list[Volume]:
        volumes: list[Volume] = []
        token = ""
        while True:
            more = {"NextToken": token} if token else {}
            answer = await self._call("DescribeVolumes", {**given, **more})
            volumes += [_read_volume(each) for each in answer.findall("volumeSet/item")]
            token = answer.findtext("nextToken") or ""
            if not token:
                return volumes

    async def _call(self, action: str, given: Mapping[str, str]) -> ET.Element:
        url = self.endpoint or f"https://ec2.{self.region}.amazonaws.com"
        body = urlencode({"Action": action, "Version": VERSION, **given}).encode()
        headers = sign(
            await self.credentials.fetch(), Scope(self.region, "ec2"), self.clock.wall(),
            host=urlsplit(url).netloc, path="/", headers={"content-type": _FORM}, body=body,
        )  # fmt: skip
        try:
            async with (
                aiohttp.ClientSession(timeout=_TIMEOUT) as session,
                session.post(f"{url.rstrip('/')}/", data=body, headers=headers) as response,
            ):
                text = await response.content.read(ANSWER_LIMIT_BYTES)
                status = response.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Uncertain(
                f"EC2 {action}: no answer of {url}: {error}",
                remedy="see that this machine reaches the API; it is asked again",
            ) from error
        try:
            answer = _strip(ET.fromstring(text))
        except ET.ParseError as error:
            raise Uncertain(f"EC2 {action}: status {status} with no XML: {error}") from error
        if status >= 300:
            raise _explain(action, status, answer)
        return answer


def read_volume_id(text: str) -> str:
    """The id in `aws://zone/vol-x`, `aws:///vol-x` or `vol-x`. Raises `Rejected`."""
    id = text.rpartition("/")[2]
    if not id.startswith("vol-") or not id[4:].isalnum():
        raise Rejected(
            f"awsElasticBlockStore.volumeID: {text!r} is no volume's id",
            remedy="such as vol-0123456789abcdef0",
        )
    return id


def _explain(action: str, status: int, answer: ET.Element) -> DriverError:
    code = answer.findtext(".//Error/Code") or str(status)
    text = f"EC2 {action}: {code}: {answer.findtext('.//Error/Message') or ''}".rstrip(": ")
    if code in _FULL:
        return OutOfSpace(text, remedy="raise the account's limit, or choose another zone")
    if code in _NOT_ALLOWED:
        return Transient(text, remedy="give the daemon's key or role the right to do this")
    if code in _LATER or status == 503:
        return Transient(text, remedy="it is tried again")
    if status >= 500:
        return Uncertain(text, remedy="it is tried again")
    return Rejected(text, remedy="correct the class's parameters or the volume's id", reason=code)


def _strip(element: ET.Element) -> ET.Element:
    """Without the namespace of this version of the API."""
    for each in element.iter():
        each.tag = each.tag.rpartition("}")[2]
    return element


def _read_volume(element: ET.Element) -> Volume:
    return Volume(
        id=element.findtext("volumeId") or "",
        state=element.findtext("status") or "",
        zone=element.findtext("availabilityZone") or "",
        size_gib=int(element.findtext("size") or 0),
        attachments=tuple(_read_attachments(element)),
        tags={
            each.findtext("key") or "": each.findtext("value") or ""
            for each in element.findall("tagSet/item")
        },
    )


def _read_attachments(element: ET.Element) -> Iterator[Attachment]:
    for each in element.findall("attachmentSet/item"):
        yield Attachment(
            each.findtext("instanceId") or "",
            each.findtext("device") or "",
            each.findtext("status") or "",
        )
