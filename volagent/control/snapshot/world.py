"""What the snapshot controller looks things up in: the copies of all kinds it needs."""

from volagent.client.contract import SNAPSHOT_CLASSES, SNAPSHOT_CONTENTS, SNAPSHOTS
from volagent.client.shared import SharedCopies
from volagent.control.snapshot.decide import SOURCE_VOLUME, Source
from volagent.drivers.provisioning.contract import Provisioner, ServesFrom
from volagent.objects.annotations import PROVISIONED_BY
from volagent.objects.node_affinity import admits_node
from volagent.objects.pod_claims import claim_source_of
from volagent.objects.snapshot import (
    DEFAULT_SNAPSHOT_CLASS,
    VolumeSnapshot,
    VolumeSnapshotClass,
    VolumeSnapshotContent,
)
from volagent.objects.storage import PersistentVolume
from volagent.objects.storage_nodes import storage_node_of


class SnapshotWorld:
    """Snapshots, contents and classes, and what they lead to."""

    def __init__(self, copies: SharedCopies) -> None:
        self._copies = copies
        self.snapshots = copies.follow(SNAPSHOTS, VolumeSnapshot)
        self.contents = copies.follow(SNAPSHOT_CONTENTS, VolumeSnapshotContent)
        self.classes = copies.follow(SNAPSHOT_CLASSES, VolumeSnapshotClass)

    def source_of(self, snapshot: VolumeSnapshot) -> Source:
        """What a snapshot is to be taken of."""
        name = snapshot.spec.source.persistent_volume_claim_name
        claim = self._copies.claims.get(snapshot.metadata.namespace, name) if name else None
        if claim is None or claim.status.phase != "Bound":
            return Source(claim)
        volume = self._copies.volumes.get("", claim.spec.volume_name)
        return Source(claim, volume, maker_of(volume) if volume is not None else "")

    def class_of(self, snapshot: VolumeSnapshot) -> VolumeSnapshotClass | None:
        """Its class: the one it names, else the default one of its driver."""
        name = snapshot.spec.volume_snapshot_class_name
        if name:
            return self.classes.get("", name)
        driver = self.source_of(snapshot).driver
        defaults = [
            each
            for each in self.classes.values()
            if each.driver == driver
            and (each.metadata.annotations or {}).get(DEFAULT_SNAPSHOT_CLASS) == "true"
        ]
        return defaults[0] if len(defaults) == 1 else None

    def is_source(self, snapshot: VolumeSnapshot) -> bool:
        """Whether a claim that has no volume yet is to be filled from a snapshot."""
        for claim in self._copies.claims.values():
            if claim.metadata.namespace != snapshot.metadata.namespace or claim.spec.volume_name:
                continue
            source = claim.spec.data_source or claim.spec.data_source_ref or {}
            if source.get("kind") == "VolumeSnapshot" and (
                source.get("name") == snapshot.metadata.name
            ):
                return claim.metadata.deletion_timestamp is None
        return False

    def volume_of(self, content: VolumeSnapshotContent) -> PersistentVolume | None:
        """The volume that a content is a copy of, if it is there."""
        name = (content.metadata.annotations or {}).get(SOURCE_VOLUME)
        if name:
            return self._copies.volumes.get("", name)
        handle = content.spec.source.volume_handle
        for volume in self._copies.volumes.values():
            csi = volume.spec.csi
            if csi is not None and (csi.driver, csi.volume_handle) == (
                content.spec.driver, handle,
            ):  # fmt: skip
                return volume
        return None

    def is_here(self, provisioner: Provisioner, content: VolumeSnapshotContent) -> bool:
        """Whether a provisioner of this process can reach what is to be copied."""
        volume = self.volume_of(content)
        if isinstance(provisioner, ServesFrom):
            handle = content.status.snapshot_handle or ""
            named = storage_node_of(volume.metadata) if volume is not None else ""
            return provisioner.storage_node == (named or handle.partition("/")[0])
        node_name: str = provisioner.node
        if not node_name or volume is None:
            return True
        node = self._copies.nodes.get("", node_name)
        labels = (node.metadata.labels if node is not None else None) or {}
        return admits_node(volume.spec.node_affinity, labels)

    def is_in_use(self, volume: PersistentVolume) -> bool:
        """Whether a pod may be writing to a volume."""
        reference = volume.spec.claim_ref
        if reference is None:
            return False
        for pod in self._copies.pods.values():
            if pod.metadata.namespace != reference.namespace or not pod.spec.node_name:
                continue
            for each in pod.spec.volumes or ():
                source = claim_source_of(pod, each)
                if source is not None and source.claim_name == reference.name:
                    return True
        return False


def maker_of(volume: PersistentVolume) -> str:
    """Who made a volume, and can copy it."""
    made_by = (volume.metadata.annotations or {}).get(PROVISIONED_BY, "")
    return made_by or (volume.spec.csi.driver if volume.spec.csi is not None else "")
