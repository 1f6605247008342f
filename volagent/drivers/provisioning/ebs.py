"""kubernetes.io/aws-ebs: volumes of Amazon's block store for claims, through the EC2 API.

A volume carries its claim's uid as a tag, and nothing without that tag is ever deleted. The trash
is tags, too: a reclaimed volume stays where it is, with the time when it may go and the manifest
that makes it a PersistentVolume again. Parameters are those of Kubernetes' in-tree provisioner.
"""

import asyncio
import hashlib
import json
import zlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from volagent.aio.clock import Clock, format_time, parse_time
from volagent.drivers.contract import Done, VolumeMode
from volagent.drivers.ebs.api import EBS, Ec2, Volume, read_volume_id
from volagent.drivers.errors import Rejected, Transient, Uncertain
from volagent.drivers.provisioning.contract import (
    Grown,
    ProvisionedVolume,
    ReclaimRequest,
    TrashEntry,
    VolumeRequest,
)
from volagent.objects.meta import Document

ZONE: Final = "topology.kubernetes.io/zone"
REGION: Final = "topology.kubernetes.io/region"
DEFAULT_FS_TYPE: Final = "ext4"
MADE_TIMEOUT_S: Final = 60.0
LOOK_AGAIN_S: Final = 0.5
_GIB: Final = 1 << 30
_OWNER: Final = "volagent.dev/owner"
_VOLUME: Final = "kubernetes.io/created-for/pv/name"
_NAMESPACE: Final = "kubernetes.io/created-for/pvc/namespace"
_CLAIM: Final = "kubernetes.io/created-for/pvc/name"
_DELETED: Final = "volagent.dev/deleted"
_EXPIRES: Final = "volagent.dev/expires"
_MANIFEST: Final = "volagent.dev/manifest-"
_TAG_CHARS: Final = 250
_PARAMETERS: Final = frozenset({
    "type", "zone", "zones", "iops", "iopsPerGB", "throughput", "encrypted", "kmsKeyId", "fsType",
    "csi.storage.k8s.io/fstype",
})  # fmt: skip
_TYPES: Final = frozenset({"gp2", "gp3", "io1", "io2", "sc1", "st1", "standard"})
_IOPS: Final = (100, 64_000)


@dataclass(frozen=True, slots=True)
class EbsProvisioner:
    """Makes, grows and deletes EBS volumes."""

    ec2: Ec2
    clock: Clock
    name: str = str(EBS)
    node: str = ""

    def check(
        self, parameters: Mapping[str, str], mode: VolumeMode, access_modes: tuple[str, ...]
    ) -> None:
        """Raises `Rejected`."""
        for name in parameters:
            if name not in _PARAMETERS:
                known = ", ".join(sorted(_PARAMETERS))
                raise Rejected(
                    f"invalid option {name!r} for volume plugin {EBS}", remedy=f"it knows: {known}"
                )
        if parameters.get("type", "gp2") not in _TYPES:
            known = ", ".join(sorted(_TYPES))
            raise Rejected(f"invalid EBS type {parameters['type']!r}", remedy=f"one of {known}")
        if "zone" in parameters and "zones" in parameters:
            raise Rejected("zone and zones must not be used at the same time")
        for name in ("iops", "iopsPerGB", "throughput"):
            if name in parameters and not (
                parameters[name].isascii() and parameters[name].isdigit()
            ):
                raise Rejected(f"invalid {name} value {parameters[name]!r}: want a whole number")
        if parameters.get("encrypted", "false").lower() not in ("true", "false"):
            raise Rejected("invalid encrypted boolean value, must be true or false")
        if any(each in ("ReadOnlyMany", "ReadWriteMany") for each in access_modes):
            raise Rejected(
                f"an EBS volume is for one node: {', '.join(access_modes)} is not possible",
                remedy="ask for ReadWriteOnce or ReadWriteOncePod",
            )

    async def create(self, request: VolumeRequest) -> ProvisionedVolume:
        """Make the volume and wait until it is available, or find it made."""
        if request.origin is not None:
            raise Rejected(f"{EBS} makes no copies", remedy="leave dataSource out")
        made = await self._find(request.name, request.owner)
        if made is None:
            zone = await self._choose_zone(request)
            made = await self.ec2.create(
                self._describe(request, zone), _tags_of(request), _token(request.owner)
            )
        made = await self._await(made.id, lambda volume: volume.state in ("available", "in-use"))
        fs_type = request.parameters.get("fsType") or request.parameters.get(
            "csi.storage.k8s.io/fstype", DEFAULT_FS_TYPE
        )
        source: dict[str, Any] = {"volumeID": f"aws://{made.zone}/{made.id}"}
        if request.mode is VolumeMode.FILESYSTEM:
            source["fsType"] = fs_type
        expression = {"key": ZONE, "operator": "In", "values": [made.zone]}
        return ProvisionedVolume(
            source={"awsElasticBlockStore": source},
            capacity_bytes=made.size_gib * _GIB,
            node_affinity={"required": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}},
            labels={ZONE: made.zone, REGION: self.ec2.region},
            evidence=f"{made.id} in {made.zone}",
        )

    async def reclaim(self, request: ReclaimRequest) -> Done:
        """Into the trash, or away; not while an instance has it."""
        volume = await self.ec2.find_volume(_id_of(request.source))
        if volume is None:
            return Done("gone already")
        _check_owner(volume, request.owner)
        if volume.attachments:
            instance = volume.attachments[0].instance
            raise Transient(f"{volume.id} is still attached to {instance}",
                            remedy="stop what uses it; it is tried again")  # fmt: skip
        if not request.keep_s:
            await self.ec2.delete(volume.id)
            return Done(f"{volume.id} deleted")
        now = self.clock.wall()
        tags = {_DELETED: format_time(now), **_pack(request.manifest)}
        tags[_EXPIRES] = format_time(now + timedelta(seconds=request.keep_s))
        await self.ec2.tag(volume.id, tags)
        return Done("in the trash")

    async def discard(self, request: VolumeRequest) -> Done:
        """Delete what `create` may have made; its claim never had it."""
        volume = await self._find(request.name, request.owner)
        if volume is None:
            return Done("nothing")
        await self._await(volume.id, lambda found: found.state != "creating")
        await self.ec2.delete(volume.id)
        return Done(f"{volume.id} deleted")

    async def grow(
        self, source: dict[str, Any], annotations: Mapping[str, str], capacity_bytes: int
    ) -> Grown:
        """Make it larger, by whole GiB; the node takes the file system after it."""
        id, wanted_gib = _id_of(source), _round_gib(capacity_bytes)
        volume = await self.ec2.find_volume(id)
        if volume is None:
            raise Rejected(f"there is no volume {id}", remedy="was it deleted by hand?")
        if volume.size_gib < wanted_gib:
            await self.ec2.resize(id, wanted_gib)
            volume = await self._await(id, lambda found: found.size_gib >= wanted_gib)
        return Grown(f"{id} has {volume.size_gib} GiB", volume.size_gib * _GIB, node_half=True)

    async def list_trash(self) -> list[TrashEntry]:
        """What can be had back."""
        found = await self.ec2.list_volumes({_EXPIRES: ""})
        return [
            TrashEntry(
                id=f"{EBS}/{each.id}",
                name=each.tags.get(_VOLUME, ""),
                claim=f"{each.tags.get(_NAMESPACE, '')}/{each.tags.get(_CLAIM, '')}",
                deleted_at=each.tags.get(_DELETED, ""),
                expires_at=each.tags[_EXPIRES],
                size_bytes=each.size_gib * _GIB,
                where=f"{each.id} in {each.zone}",
                manifest=_unpack(each.tags),
            )
            for each in found
        ]

    async def restore(self, id: str) -> Document:
        """Take it out of the trash."""
        volume = await self.ec2.find_volume(id.rpartition("/")[2])
        if volume is None or _EXPIRES not in volume.tags:
            raise Rejected(f"nothing of {id} is in the trash", remedy="see `volagent trash list`")
        manifest = _unpack(volume.tags)
        ours = [name for name in volume.tags if name in (_DELETED, _EXPIRES) or _is_part(name)]
        await self.ec2.untag(volume.id, ours)
        return manifest

    async def purge(self, id: str) -> Done:
        """Delete an entry for good."""
        volume = await self.ec2.find_volume(id.rpartition("/")[2])
        if volume is not None and _EXPIRES in volume.tags:
            await self.ec2.delete(volume.id)
        return Done("deleted")

    async def sweep(self) -> float | None:
        """Delete what has expired."""
        now, coming = self.clock.wall(), []
        for each in await self.ec2.list_volumes({_EXPIRES: ""}):
            expires = _read_time(each.tags[_EXPIRES])
            if expires <= now:
                await self.ec2.delete(each.id)
            else:
                coming.append((expires - now).total_seconds())
        return min(coming, default=None)

    def _describe(self, request: VolumeRequest, zone: str) -> dict[str, str]:
        given, size_gib = request.parameters, _round_gib(request.capacity_bytes)
        wanted = {
            "AvailabilityZone": zone, "Size": str(size_gib), "VolumeType": given.get("type", "gp2"),
        }  # fmt: skip
        if "iopsPerGB" in given:
            iops = int(given["iopsPerGB"]) * size_gib
            wanted["Iops"] = str(min(max(iops, _IOPS[0]), _IOPS[1]))
        elif "iops" in given:
            wanted["Iops"] = given["iops"]
        if "throughput" in given:
            wanted["Throughput"] = given["throughput"]
        if given.get("encrypted", "false").lower() == "true" or "kmsKeyId" in given:
            wanted["Encrypted"] = "true"
        if "kmsKeyId" in given:
            wanted["KmsKeyId"] = given["kmsKeyId"]
        return wanted

    async def _choose_zone(self, request: VolumeRequest) -> str:
        """The chosen node's zone; else one of the class's, by the claim's name; else ours."""
        if request.node_labels.get(ZONE):
            return request.node_labels[ZONE]
        given = request.parameters
        zones = {
            value
            for term in request.allowed_topologies
            for each in term.get("matchLabelExpressions") or ()
            if each.get("key") == ZONE
            for value in each.get("values") or ()
        }
        zones |= {zone.strip() for zone in given.get("zones", "").split(",") if zone.strip()}
        zones |= {given["zone"]} if given.get("zone") else set()
        if not zones:
            return await self.ec2.read_zone()
        digest = hashlib.sha256(request.claim_name.encode()).digest()
        chosen: str = sorted(zones)[int.from_bytes(digest[:4], "big") % len(zones)]
        return chosen

    async def _find(self, name: str, owner: str) -> Volume | None:
        """The volume that was made under a name. Raises `Rejected` for one of another claim."""
        found = await self.ec2.list_volumes({_VOLUME: name})
        for each in found:
            _check_owner(each, owner)
        return found[0] if found else None

    async def _await(self, id: str, reached: Callable[[Volume], bool]) -> Volume:
        """Wait until the API says so."""
        end_s = self.clock.monotonic() + MADE_TIMEOUT_S
        while True:
            volume = await self.ec2.find_volume(id)
            if volume is not None and volume.state == "error":
                raise Rejected(f"EC2 could not make {id}: its state is error",
                               remedy="is the KMS key there, and may the role use it?")  # fmt: skip
            if volume is not None and reached(volume):
                return volume
            if self.clock.monotonic() > end_s:
                state = volume.state if volume is not None else "not found"
                raise Uncertain(f"{id} is still {state} after {MADE_TIMEOUT_S:.0f} s")
            await asyncio.sleep(LOOK_AGAIN_S)


def _id_of(source: Mapping[str, Any]) -> str:
    return read_volume_id(str((source.get("awsElasticBlockStore") or {}).get("volumeID", "")))


def _check_owner(volume: Volume, owner: str) -> None:
    found = volume.tags.get(_OWNER, "")
    if found != owner:
        raise Rejected(
            f"{volume.id} belongs to {found or 'nobody we know'}, not to {owner}: it is left alone",
            remedy="delete it by hand, or set the volume's policy to Retain",
        )


def _tags_of(request: VolumeRequest) -> dict[str, str]:
    return {
        "Name": f"kubernetes-dynamic-{request.name}",
        _OWNER: request.owner,
        _VOLUME: request.name,
        _NAMESPACE: request.claim_namespace,
        _CLAIM: request.claim_name,
    }


def _token(owner: str) -> str:
    return hashlib.sha256(owner.encode()).hexdigest()


def _round_gib(size_bytes: int) -> int:
    return max(1, -(-size_bytes // _GIB))


def _is_part(name: str) -> bool:
    return name.startswith(_MANIFEST)


def _pack(manifest: Document) -> dict[str, str]:
    """A manifest in as many tags as it takes; a tag holds few and plain characters."""
    text = urlsafe_b64encode(zlib.compress(json.dumps(manifest).encode(), 9)).decode()
    parts = [text[at : at + _TAG_CHARS] for at in range(0, len(text), _TAG_CHARS)]
    return {f"{_MANIFEST}{number:02}": part for number, part in enumerate(parts)}


def _unpack(tags: Mapping[str, str]) -> Document:
    text = "".join(tags[name] for name in sorted(tags) if _is_part(name))
    try:
        manifest: Document = json.loads(zlib.decompress(urlsafe_b64decode(text)))
    except (ValueError, zlib.error):
        return {}
    return manifest


def _read_time(text: str) -> datetime:
    try:
        return parse_time(text)
    except ValueError:
        return datetime.max.replace(tzinfo=UTC)  # somebody's own tag: never by ourselves
