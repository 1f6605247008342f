"""kubernetes.io/aws-ebs: a disk of Amazon's block store for each claim.

A volume is found again by two ways: by its tags, and by the token of its making, which closes the
time in which the API does not show new tags yet. The owner's tag is the owner marker: without it
nothing is deleted, however it was named. A volume in the trash (`kept.py`) stays where it is.
"""

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from volagent.drivers.contract import Done, DriverName, VolumeMode
from volagent.drivers.ebs import kept
from volagent.drivers.ebs.api import Ec2Error, Value, explained
from volagent.drivers.ebs.cloud import Cloud
from volagent.drivers.ebs.names import format_volume_name, parse_volume_name
from volagent.drivers.ebs.parameters import (
    EbsParameters,
    creation,
    read_parameters,
    round_up_gib,
)
from volagent.drivers.ebs.volumes import GIB, EbsVolume, EbsVolumes
from volagent.drivers.ebs.zones import (
    REGION,
    ZONE,
    ZONE_KEYS,
    affinity_to_zone,
    choose_zone,
    region_of,
)
from volagent.drivers.errors import Rejected, Transient, Uncertain
from volagent.drivers.provisioning.contract import (
    Grown,
    ProvisionedVolume,
    ReclaimRequest,
    TrashEntry,
    VolumeRequest,
)
from volagent.objects.annotations import VOLUME_OWNER
from volagent.objects.meta import Document

EBS: Final = DriverName("kubernetes.io/aws-ebs")
SOURCE: Final = "awsElasticBlockStore"
CREATE_TIMEOUT_S: Final = 120.0
MODIFY_TIMEOUT_S: Final = 60.0
"""Then the next growth has its turn; this one is asked after again, and not begun anew."""
UNSEEN_S: Final = 15.0
"""How long a volume that was made just now may be unknown to the API that made it."""
TOKENS_MAX: Final = 4
_ONE_NODE: Final = frozenset({"ReadWriteOnce", "ReadWriteOncePod"})
_AT_WORK: Final = "modifying"
_GROWN: Final = ("optimizing", "completed")


@dataclass(frozen=True, slots=True)
class EbsProvisioner:
    """Makes EBS volumes."""

    cloud: Cloud
    volumes: EbsVolumes
    poll_s: float = 1.0
    name: str = EBS
    node: str = ""

    def check(
        self, parameters: Mapping[str, str], mode: VolumeMode, access_modes: tuple[str, ...]
    ) -> None:
        """Raises `Rejected`."""
        read_parameters(parameters)
        for each in access_modes:
            if each not in _ONE_NODE:
                raise Rejected(
                    f"an EBS volume cannot be {each}: it is attached to one machine at a time",
                    remedy="use ReadWriteOnce, or a class of NFS directories",
                )

    # -- making ------------------------------------------------------------------------------

    async def create(self, request: VolumeRequest) -> ProvisionedVolume:
        """Make the volume, or find it made, and wait until it can be used."""
        if request.origin is not None:
            raise Rejected(f"{EBS} cannot copy volumes", remedy="copy the files")
        read = read_parameters(request.parameters)
        asked = creation(read, round_up_gib(request.capacity_bytes))
        with explained():
            volume = await self._find_made(request)
            if volume is not None:
                volume = await self._wait_available(volume.id)
            if volume is None:
                asked["AvailabilityZone"] = await self._zone_for(request, read)
                volume = await self._make(request, read, asked)
        source = {"volumeID": format_volume_name(volume.id, volume.zone)}
        if request.mode is VolumeMode.FILESYSTEM:
            source["fsType"] = read.fs_type
        return ProvisionedVolume(
            source={SOURCE: source},
            capacity_bytes=volume.size_bytes,
            node_affinity=affinity_to_zone(volume.zone),
            labels={ZONE: volume.zone, REGION: region_of(volume.zone)},
            evidence=f"{volume.id}, {read.type} in {volume.zone}",
        )

    async def _zone_for(self, request: VolumeRequest, read: EbsParameters) -> str:
        chosen = any(request.node_labels.get(key) for key in ZONE_KEYS)
        return choose_zone(
            f"{request.claim_namespace}/{request.claim_name}",
            own="" if chosen else await self.cloud.fetch_zone(),
            node_labels=request.node_labels,
            allowed_topologies=request.allowed_topologies,
            zones=read.zones,
        )

    async def _find_made(self, request: VolumeRequest) -> EbsVolume | None:
        for volume in await self.volumes.select({kept.VOLUME_NAME: request.name}):
            _prove_owner(volume, request.owner)
            if not kept.is_trashed(volume.tags):
                return volume
        return None

    async def _make(
        self, request: VolumeRequest, read: EbsParameters, asked: Mapping[str, Value]
    ) -> EbsVolume:
        """A token whose volume is gone again, or was for another request, is followed by another.

        That happens when a claim's volume was discarded, and is asked for once more.
        """
        tags = kept.marks_of(request, self.cloud.config.cluster)
        for attempt in range(TOKENS_MAX):
            token = hashlib.sha256(f"{request.name}/{attempt}".encode()).hexdigest()
            try:
                made = await self.volumes.create(token=token, tags=tags, **asked)
            except Ec2Error as error:
                if error.code == "IdempotentParameterMismatch":
                    continue
                raise
            volume = await self._wait_available(made.id)
            if volume is not None:
                return volume
        if read.encrypted:
            raise Rejected(
                f"the volumes that are made for {request.name} vanish at once",
                remedy=f"see that the key {read.kms_key or 'for EBS'} exists and may be used",
            )
        raise Uncertain(
            f"the volumes that are made for {request.name} vanish at once",
            remedy="see what CloudTrail tells about CreateVolume",
        )

    async def _wait_available(self, volume_id: str) -> EbsVolume | None:
        """The volume once it can be used; None when it is gone, or no good and taken away."""
        unseen_s = 0.0
        try:
            async with asyncio.timeout(CREATE_TIMEOUT_S):
                while True:
                    volume = await self.volumes.find(volume_id)
                    if volume is None:
                        unseen_s += self.poll_s
                        if unseen_s > UNSEEN_S:
                            return None
                    elif volume.state == "error":
                        await self.volumes.delete(volume_id)
                        return None
                    elif volume.state != "creating":
                        return volume
                    await asyncio.sleep(self.poll_s)
        except TimeoutError as error:
            raise Uncertain(
                f"{volume_id} is still being made after {CREATE_TIMEOUT_S:.0f} s",
                remedy="see its state; it is looked at again",
            ) from error

    async def discard(self, request: VolumeRequest) -> Done:
        """Delete what `create` may have left."""
        had = []
        with explained():
            for volume in await self.volumes.select({kept.VOLUME_NAME: request.name}):
                _prove_owner(volume, request.owner)
                if not kept.is_trashed(volume.tags):
                    _refuse_used(volume)
                    await self.volumes.delete(volume.id)
                    had.append(volume.id)
        return Done(f"{', '.join(had)} deleted" if had else "nothing")

    async def grow(
        self, source: dict[str, Any], annotations: Mapping[str, str], capacity_bytes: int
    ) -> Grown:
        """Have the volume made larger, while it is in use or not."""
        volume_id = await self._id_of(source)
        size_gib = round_up_gib(capacity_bytes)
        with explained():
            volume = await self.volumes.find(volume_id)
            if volume is None:
                raise Rejected(f"{volume_id} does not exist", remedy="was it deleted by hand?")
            if annotations.get(VOLUME_OWNER):
                _prove_owner(volume, annotations[VOLUME_OWNER])
            change = await self.volumes.find_modification(volume_id)
            under_way = change is not None and change.state == _AT_WORK
            asked_bytes = change.target_bytes if change is not None and under_way else 0
            if volume.size_bytes >= size_gib * GIB and not under_way:
                return Grown(f"{volume_id} is large enough", volume.size_bytes, node_half=True)
            if asked_bytes < size_gib * GIB:
                await self.volumes.modify(volume_id, size_gib)
            await self._wait_grown(volume_id)
            found = await self.volumes.find(volume_id)
        size_bytes = max(found.size_bytes if found else 0, size_gib * GIB)
        return Grown(f"{volume_id} made larger", size_bytes, node_half=True)

    async def _wait_grown(self, volume_id: str) -> None:
        try:
            async with asyncio.timeout(MODIFY_TIMEOUT_S):
                while True:
                    change = await self.volumes.find_modification(volume_id)
                    if change is not None and change.state in _GROWN:
                        return
                    if change is not None and change.state == "failed":
                        raise Uncertain(f"{volume_id} was not made larger: {change.detail}")
                    await asyncio.sleep(self.poll_s)
        except TimeoutError as error:
            raise Uncertain(
                f"{volume_id} is still being made larger after {MODIFY_TIMEOUT_S:.0f} s",
                remedy="see its modification's state; it is looked at again",
            ) from error

    # -- the end -----------------------------------------------------------------------------

    async def reclaim(self, request: ReclaimRequest) -> Done:
        """Delete the volume, or tag it as being in the trash; not while it is attached."""
        volume_id = await self._id_of(request.source)
        with explained():
            volume = await self.volumes.find(volume_id)
            if volume is None:
                return Done(f"{volume_id} is gone already")
            _prove_owner(volume, request.owner)
            _refuse_used(volume)
            if request.keep_s == 0:
                await self.volumes.delete(volume_id)
                return Done(f"{volume_id} deleted")
            if not kept.is_trashed(volume.tags):
                await self.volumes.tag(volume_id, self._trash_tags(request))
        return Done(f"{volume_id} is in the trash")

    def _trash_tags(self, request: ReclaimRequest) -> dict[str, str]:
        now = self.cloud.clock.wall()
        expires = now + timedelta(seconds=request.keep_s)
        tags = kept.trash_tags(request.manifest, now, expires)
        if tags is None:
            raise Rejected(
                f"{request.name} is declared at too great length to be kept in tags",
                remedy="take annotations off it",
            )
        # Its claim is not always the one that it was made for.
        claim = (request.manifest.get("spec") or {}).get("claimRef") or {}
        for tag, field in ((kept.CLAIM_NAMESPACE, "namespace"), (kept.CLAIM_NAME, "name")):
            if claim.get(field):
                tags[tag] = str(claim[field])
        return tags

    async def _id_of(self, source: Mapping[str, Any]) -> str:
        """The volume of a source, of the region that is asked. Raises `Rejected`.

        In another region it would not be found, and count as gone.
        """
        name = parse_volume_name(str((source.get(SOURCE) or {}).get("volumeID", "")))
        region = await self.cloud.fetch_region()
        if name.zone and not name.zone.startswith(region):
            raise Rejected(
                f"{name.id} is in {name.zone}, and the API that is asked is that of {region}",
                remedy="set region under [aws]",
            )
        return name.id

    async def list_trash(self) -> list[TrashEntry]:
        """What can be had back."""
        cluster = {kept.CLUSTER: self.cloud.config.cluster}
        with explained():
            found = await self.volumes.select(cluster, having=kept.EXPIRES)
        return [_entry_of(volume) for volume in found if kept.OWNER in volume.tags]

    async def restore(self, id: str) -> Document:
        """Take the tags of the trash off."""
        with explained():
            volume = await self.volumes.find(_id_in(id))
            if volume is None or not kept.is_trashed(volume.tags):
                raise Rejected(f"{id} is not in the trash", remedy="see `volagent trash list`")
            manifest = _manifest_of(volume)
            await self.volumes.untag(volume.id, kept.trash_names(volume.tags))
        return manifest

    async def purge(self, id: str) -> Done:
        """Delete an entry for good; gone is a success."""
        with explained():
            volume = await self.volumes.find(_id_in(id))
            if volume is None or not self._may_purge(volume):
                return Done("gone already")
            _refuse_used(volume)
            await self.volumes.delete(volume.id)
        return Done(f"{volume.id} deleted")

    def _may_purge(self, volume: EbsVolume) -> bool:
        ours = volume.tags.get(kept.CLUSTER) == self.cloud.config.cluster
        return ours and kept.OWNER in volume.tags and kept.is_trashed(volume.tags)

    async def sweep(self) -> float | None:
        """Delete what has expired; seconds until the next entry does."""
        left_s: list[float] = []
        for entry in await self.list_trash():
            expires = kept.expiry_of({kept.EXPIRES: entry.expires_at})
            if expires is None:
                continue  # somebody wrote it by hand: it is kept
            remaining_s = (expires - self.cloud.clock.wall()).total_seconds()
            if remaining_s > 0:
                left_s.append(remaining_s)
            else:
                await self.purge(entry.id)
        return min(left_s, default=None)


def _prove_owner(volume: EbsVolume, owner: str) -> None:
    """Raises `Rejected` for a volume that is not this owner's."""
    found = volume.tags.get(kept.OWNER)
    if not owner or found != owner:
        whose = f"belongs to {found}" if found else f"has no tag {kept.OWNER}"
        raise Rejected(
            f"{volume.id} {whose}, and is left alone: it is not known to be {owner}'s",
            remedy="see who made it; one made by hand is dealt with by hand",
        )


def _refuse_used(volume: EbsVolume) -> None:
    if volume.attachments or volume.state == "in-use":
        where = ", ".join(f"{each.instance_id} as {each.device}" for each in volume.attachments)
        raise Transient(
            f"{volume.id} is still attached to {where or 'an instance'}",
            remedy="stop what uses it there; if nothing does, detach it",
        )


def _id_in(entry: str) -> str:
    return parse_volume_name(entry.removeprefix(f"{EBS}/")).id


def _entry_of(volume: EbsVolume) -> TrashEntry:
    tags = volume.tags
    return TrashEntry(
        id=f"{EBS}/{volume.id}",
        name=tags.get(kept.VOLUME_NAME, ""),
        claim=f"{tags.get(kept.CLAIM_NAMESPACE, '')}/{tags.get(kept.CLAIM_NAME, '')}",
        deleted_at=tags.get(kept.DELETED, ""),
        expires_at=tags[kept.EXPIRES],
        size_bytes=volume.size_bytes,
        where=format_volume_name(volume.id, volume.zone),
        manifest=_manifest_of(volume),
    )


def _manifest_of(volume: EbsVolume) -> Document:
    """The PersistentVolume that it was; what can be told of it where its tags were damaged."""
    manifest = kept.manifest_of(volume.tags)
    if manifest:
        return manifest
    tags = volume.tags
    claim = {"namespace": tags.get(kept.CLAIM_NAMESPACE), "name": tags.get(kept.CLAIM_NAME)}
    annotations = {VOLUME_OWNER: tags[kept.OWNER], "pv.kubernetes.io/provisioned-by": EBS}
    spec: Document = {
        "capacity": {"storage": f"{volume.size_bytes >> 30}Gi"},
        "accessModes": ["ReadWriteOnce"],
        "nodeAffinity": affinity_to_zone(volume.zone),
        SOURCE: {"volumeID": format_volume_name(volume.id, volume.zone)},
    }
    if all(claim.values()):
        spec["claimRef"] = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", **claim}
    name = tags.get(kept.VOLUME_NAME) or volume.id
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "annotations": annotations},
        "spec": spec,
    }
