"""The contract between the provisioning controllers and the backends that volumes are made in.

A provisioner makes a volume for a claim and deals with its data when the volume is reclaimed. The
*controller* (`control/provision`) decides when, keeps the objects, retries and reports; a
*provisioner* does the one thing it is asked. It never sees the store or a client.

What makes this safe, numbered as in the code:
1. `create` is idempotent by `request.name` (`pvc-<claim uid>`): called again after a crash it finds
   what it made, proves by the owner marker that it is the same, and completes it. It never adopts
   something without the marker, nor a name whose marker names another owner.
2. `reclaim` is idempotent, deletes only what bears the owner's marker, at exactly the recorded
   place, never through a mount that leads elsewhere; with `keep_s` > 0 it renames the data into the
   backend's trash instead, where `KeepsTrash` finds it. Data that is not there any more is a
   success only if its trash or its absence was verified, not if the backend is merely away.
3. `discard` is for a claim that went while its volume was being made: what `create` may have left
   behind, whole or in part, is removed; nothing there is a success.

Errors: `drivers/errors.py`. `Rejected` from `create` means the claim or class must change;
`OutOfSpace` that another node or a later time may do; `Uncertain` that `create` or `reclaim` is to
be called again.
"""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import msgspec

from volagent.drivers.contract import Done, VolumeMode
from volagent.drivers.errors import Transient
from volagent.objects.meta import Document


class OutOfSpace(Transient):
    """The backend (on this node) has no room for the request; nothing was left behind."""


class Origin(msgspec.Struct, frozen=True):
    """What a new volume starts with: a snapshot, or another volume."""

    source: dict[str, Any]
    """The PersistentVolume source (`{"csi": {...}}`) of the volume to be copied; empty for a
    snapshot."""
    snapshot: str = ""
    """The handle that `Snapshots.snapshot` gave."""
    size_bytes: int = 0


class VolumeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One volume to be made."""

    name: str
    """`pvc-<claim uid>`: the PersistentVolume's name, and the key of idempotence."""
    owner: str
    """The claim's uid: what the owner marker says."""
    claim_namespace: str
    claim_name: str
    capacity_bytes: int
    access_modes: tuple[str, ...]
    mode: VolumeMode = VolumeMode.FILESYSTEM
    parameters: Mapping[str, str] = {}
    """The class's, without those that the controller itself reads (`volagent.dev/...`)."""
    claim_labels: Mapping[str, str] = {}
    claim_annotations: Mapping[str, str] = {}
    node: str = ""
    """The chosen node's name; "" when the volume can be anywhere."""
    node_labels: Mapping[str, str] = {}
    allowed_topologies: tuple[dict[str, Any], ...] = ()
    """The class's `allowedTopologies`."""
    mount_options: tuple[str, ...] = ()
    """The class's, for a provisioner that mounts what it makes volumes in."""
    origin: Origin | None = None


class ProvisionedVolume(msgspec.Struct, frozen=True, kw_only=True):
    """A volume that exists in its backend now, durably, with its owner marker."""

    source: dict[str, Any]
    """The PersistentVolume source, one field: `{"nfs": {"server": ..., "path": ...}}`."""
    capacity_bytes: int
    """At least what was asked; written to the PV's `spec.capacity`."""
    node_affinity: Document | None = None
    labels: Mapping[str, str] = {}
    annotations: Mapping[str, str] = {}
    evidence: str = ""
    """One short phrase for the event and the timeline: `directory, project quota 12`."""


class ReclaimRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One released volume whose policy is Delete."""

    name: str
    owner: str
    source: dict[str, Any]
    annotations: Mapping[str, str] = {}
    """The PV's: what `create` answered is among them."""
    manifest: Document = {}
    """The PersistentVolume as declared (no status, no uid), to be kept with the trash entry, so
    that a restore makes the same volume again."""
    keep_s: int = 0
    """How long the data stays restorable; 0: not at all."""


class Grown(Done, frozen=True):
    """A volume that was made larger in its backend."""

    capacity_bytes: int = 0
    node_half: bool = False
    """The node must still grow the file system."""


class SnapshotRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One snapshot to be taken."""

    name: str
    """`snapshot-<uid>`: the key of idempotence."""
    owner: str
    volume_name: str
    source: dict[str, Any]
    """The PersistentVolume source of the volume."""
    in_use: bool = False
    """A pod may be writing."""
    staged_at: str = ""
    """Where the volume is mounted on this node, to be frozen for the moment of the copy."""


class SnapshotTaken(Done, frozen=True):
    """A snapshot that exists now, durably."""

    handle: str = ""
    size_bytes: int = 0
    """The size a volume made from it needs at least."""
    created_ns: int = 0
    """When, in nanoseconds since 1970."""


class TrashEntry(msgspec.Struct, frozen=True, kw_only=True):
    """Data of a reclaimed volume that can still be had back."""

    id: str
    """Unique among all trashes: `<provisioner>/<backend's own>`."""
    name: str
    """The PersistentVolume's former name."""
    claim: str
    """`namespace/name` of its last claim."""
    deleted_at: str
    expires_at: str
    """RFC 3339."""
    size_bytes: int | None = None
    where: str = ""
    manifest: Document = {}


class Provisioner(Protocol):
    """What every provisioner has."""

    @property
    def name(self) -> str:
        """What classes name in `provisioner`."""

    @property
    def node(self) -> str:
        """The node whose volumes it makes; "" when they are reached from anywhere."""

    def check(
        self, parameters: Mapping[str, str], mode: VolumeMode, access_modes: tuple[str, ...]
    ) -> None:
        """Raises `Rejected` naming the parameter or mode that this provisioner does not know."""

    async def create(self, request: VolumeRequest) -> ProvisionedVolume:
        """Make the volume, or find it made (1)."""

    async def reclaim(self, request: ReclaimRequest) -> Done:
        """Delete the volume's data, or move it to the trash (2)."""

    async def discard(self, request: VolumeRequest) -> Done:
        """Remove what `create` may have left for this request (3)."""


@runtime_checkable
class ServesFrom(Protocol):
    """Makes volumes on one machine that nodes reach over the network; its `node` is ""."""

    @property
    def storage_node(self) -> str:
        """That machine's node: it makes the volumes of claims that name it, or elects itself."""


@runtime_checkable
class Grows(Protocol):
    """Makes volumes larger."""

    async def grow(
        self, source: dict[str, Any], annotations: Mapping[str, str], capacity_bytes: int
    ) -> Grown:
        """Grow to at least that; a success when it is as large already. Never shrinks.

        Raises `Rejected` when it can never succeed, `OutOfSpace` when there is no room now.
        """


@runtime_checkable
class Snapshots(Protocol):
    """Takes copies that other volumes can be made from."""

    async def snapshot(self, request: SnapshotRequest) -> SnapshotTaken:
        """Take it, or find it taken."""

    async def drop_snapshot(self, handle: str, owner: str) -> Done:
        """Delete it; gone is a success."""


@runtime_checkable
class KeepsTrash(Protocol):
    """Keeps reclaimed data for a while."""

    async def list_trash(self) -> list[TrashEntry]:
        """All entries of this backend."""

    async def restore(self, id: str) -> Document:
        """Move the data back to where it was; the manifest of the volume to be made again.

        Raises `Rejected` when there is no such entry, or something else is at its place now.
        """

    async def purge(self, id: str) -> Done:
        """Delete an entry for good; gone is a success."""

    async def sweep(self) -> float | None:
        """Delete what has expired; seconds until the next entry expires, None without one."""


ProvisionerTable = Mapping[str, Provisioner]
"""All provisioners of this process by name; made once, in `provisioning/table.py`."""
