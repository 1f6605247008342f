"""Which networked disks pods want on which nodes. Pure, but for the index, which is a memory."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Final

import msgspec

from volagent.client.informer import Key
from volagent.drivers import choose_driver
from volagent.drivers.attaching.contract import AttacherTable, SharesFiles
from volagent.drivers.contract import DriverName, VolumeSource
from volagent.drivers.errors import Rejected
from volagent.objects.attachments import AttachmentSource, is_shareable, unique_name
from volagent.objects.pod import Pod
from volagent.objects.pod_claims import claim_source_of
from volagent.objects.storage import (
    PersistentVolume,
    PersistentVolumeClaim,
    PersistentVolumeSpec,
)
from volagent.objects.volumes import Volume

_FINISHED: Final = ("Succeeded", "Failed")
_SOURCES: Final = {
    "iscsi": "iscsi",
    "awsElasticBlockStore": "aws_elastic_block_store",
    "csi": "csi",
}
"""Field → attribute of the sources that can be disks of several nodes."""


@dataclass(frozen=True, slots=True)
class Want:
    """One pod's wish for a disk."""

    volume: str
    """The disk's unique name."""
    driver: DriverName
    label: str
    """What people call it: the PersistentVolume's name, or the pod's name for the volume."""
    use: str
    """The pod's name for the volume."""
    node: str
    exclusive: bool
    source: AttachmentSource
    """As a VolumeAttachment names it."""
    pod: Key
    uid: str
    since: str
    """When the pod was made."""
    leaving: bool
    """The pod is being deleted: it may still use the disk, and gets it no more."""

    @property
    def order(self) -> tuple[str, Key]:
        """Of several that exclude each other the first is served."""
        return self.since, self.pod


@dataclass(frozen=True, slots=True)
class WantFinder:
    """Finds what a pod wants."""

    attachers: AttacherTable
    find_claim: Callable[[str, str], PersistentVolumeClaim | None]
    find_volume: Callable[[str, str], PersistentVolume | None]

    def find(self, pod: Pod) -> list[Want]:
        """The disks that a pod wants on its node, as far as its claims are bound."""
        if not pod.spec.node_name or pod.status.phase in _FINISHED:
            return []
        return [
            want
            for volume in pod.spec.volumes or ()
            for want in self._find_one(pod, volume)
        ]  # fmt: skip

    def _find_one(self, pod: Pod, volume: Volume) -> Iterator[Want]:
        claim_source = claim_source_of(pod, volume)
        if claim_source is None:
            yield from self._find_inline(pod, volume)
            return
        claim = self.find_claim(pod.metadata.namespace, claim_source.claim_name)
        bound_to = claim.spec.volume_name if claim is not None else ""
        pv = self.find_volume("", bound_to) if bound_to else None
        if claim is None or pv is None or pv.spec.claim_ref is None:
            return
        if pv.spec.claim_ref.uid != claim.metadata.uid:
            return
        source = self.source_of(pv)
        if source is not None:
            attacher = self.attachers[choose_driver(source.kind, source.body)]
            shareable = is_shareable(
                pv.spec.access_modes or (),
                block=pv.spec.volume_mode == "Block",
                read_only=bool(source.body.get("readOnly")),
                files=isinstance(attacher, SharesFiles) and attacher.shares_files,
            )
            named = AttachmentSource(persistent_volume_name=pv.metadata.name)
            names = (pv.metadata.name, volume.name)
            yield from self._want(pod, names, source, named, exclusive=not shareable)

    def source_of(self, pv: PersistentVolume) -> VolumeSource | None:
        """The source of a volume that has an attacher."""
        return self._networked(_sources_in(pv.spec), persistent=True)

    def _find_inline(self, pod: Pod, volume: Volume) -> Iterator[Want]:
        source = self._networked(_sources_in(volume), persistent=False)
        if source is not None:
            body = {key: value for key, value in source.body.items() if value is not None}
            named = AttachmentSource(inline_volume_spec={source.kind: body})
            exclusive = not source.body.get("readOnly")
            names = (volume.name, volume.name)
            yield from self._want(pod, names, source, named, exclusive=exclusive)

    def source_named(self, named: AttachmentSource) -> VolumeSource | None:
        """The source that a VolumeAttachment names."""
        if named.inline_volume_spec is not None:
            return self._networked(named.inline_volume_spec, persistent=False)
        pv = self.find_volume("", named.persistent_volume_name or "")
        return self.source_of(pv) if pv is not None else None

    def _networked(self, spec: dict[str, object], *, persistent: bool) -> VolumeSource | None:
        for kind in _SOURCES:
            body = spec.get(kind)
            if isinstance(body, dict) and choose_driver(kind, body) in self.attachers:
                return VolumeSource(kind, body, persistent=persistent)
        return None

    def _want(
        self, pod: Pod, names: tuple[str, str], source: VolumeSource, named: AttachmentSource,
        *, exclusive: bool,
    ) -> Iterator[Want]:  # fmt: skip
        driver = choose_driver(source.kind, source.body)
        try:
            identity = self.attachers[driver].identify(source)
        except Rejected:
            return  # the pod's node tells what is wrong with it
        metadata = pod.metadata
        yield Want(
            volume=unique_name(driver, identity), driver=driver, label=names[0], use=names[1],
            node=pod.spec.node_name, exclusive=exclusive, source=named,
            pod=(metadata.namespace, metadata.name), uid=metadata.uid,
            since=metadata.creation_timestamp or "",
            leaving=metadata.deletion_timestamp is not None,
        )  # fmt: skip


def _sources_in(spec: PersistentVolumeSpec | Volume) -> dict[str, object]:
    found = ((kind, getattr(spec, attribute, None)) for kind, attribute in _SOURCES.items())
    return {kind: msgspec.to_builtins(body) for kind, body in found if body is not None}


@dataclass(slots=True)
class WantIndex:
    """The wants of all pods."""

    _by_pod: dict[Key, list[Want]] = field(default_factory=dict)
    _by_volume: dict[str, dict[Key, Want]] = field(default_factory=dict)
    _by_claim: dict[Key, set[Key]] = field(default_factory=dict)

    def of_volume(self, volume: str) -> list[Want]:
        """Who wants a disk, in the order in which they are served."""
        wants = self._by_volume.get(volume, {}).values()
        return sorted(wants, key=lambda want: want.order)

    def by_volume(self) -> Iterator[tuple[str, Collection[Want]]]:
        """Each disk that is wanted, and by whom."""
        return ((volume, users.values()) for volume, users in self._by_volume.items())

    def of_pod(self, pod: Key) -> list[Want]:
        """What a pod wants."""
        return self._by_pod.get(pod, [])

    def pods_of_claim(self, claim: Key) -> set[Key]:
        """The pods that name a claim."""
        return self._by_claim.get(claim, set())

    def put(self, pod: Key, wants: list[Want]) -> set[str]:
        """Replace what a pod wants; the disks whose wants changed."""
        before = self._by_pod.pop(pod, [])
        if before == wants:
            if wants:
                self._by_pod[pod] = wants
            return set()
        for want in before:
            users = self._by_volume.get(want.volume, {})
            users.pop(pod, None)
            if not users:
                self._by_volume.pop(want.volume, None)
        for want in wants:
            self._by_volume.setdefault(want.volume, {})[pod] = want
        if wants:
            self._by_pod[pod] = wants
        return {want.volume for want in (*before, *wants)}

    def name_claims(self, pod: Key, before: set[Key], after: set[Key]) -> None:
        """Note which claims a pod names."""
        for claim in before - after:
            users = self._by_claim.get(claim, set())
            users.discard(pod)
            if not users:
                self._by_claim.pop(claim, None)
        for claim in after - before:
            self._by_claim.setdefault(claim, set()).add(pod)


def claims_of(pod: Pod | None) -> set[Key]:
    """The claims that a pod names."""
    if pod is None:
        return set()
    sources = (claim_source_of(pod, volume) for volume in pod.spec.volumes or ())
    return {(pod.metadata.namespace, each.claim_name) for each in sources if each is not None}
