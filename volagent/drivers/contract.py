"""The contract between the node loop and the kinds of volume.

Shaped like CSI: attach → prepare → stage → publish, and the way back. A driver is a class with a
`name`, options decoded from a volume source, and the capability protocols below that it has.
The *loop* decides which call comes when, keeps the records, retries and reports; a *driver* only
does the one thing it is asked, idempotently: a call for something that is done already succeeds,
and so does a tear-down of something that is gone. Set-up gets the spec; tear-down gets only what
set-up recorded (`Held...` values), so that it works when the declaration is gone.

Drivers are constructed with the `Host` they work on. They never see the store. Errors:
`drivers/errors.py`; an error of the host that a driver does not classify counts as `Uncertain`.
"""

import enum
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NewType, Protocol, runtime_checkable

import msgspec

from volagent.drivers.errors import Rejected
from volagent.host.contract import OwnershipPolicy, Payload
from volagent.objects.meta import PodUid

DriverName = NewType("DriverName", str)
"""`kubernetes.io/nfs`, `image.volagent.dev`, ...; on disk `/` becomes `~`."""
VolumeKey = NewType("VolumeKey", str)
"""One volume on this node: `pod/<uid>/<volume>` when private to a pod, `pv/<name>` when shared."""


class VolumeMode(enum.Enum):
    """`volumeMode` of a PersistentVolume."""

    FILESYSTEM = "Filesystem"
    BLOCK = "Block"


class Phase(enum.Enum):
    """The steps a kind of volume needs on the node, in their order."""

    ATTACH = "attach"
    PREPARE = "prepare"
    STAGE = "stage"
    PUBLISH = "publish"


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of every driver's options: decoded strictly, unknown keys are `Rejected` by name."""


class Credentials:
    """What a driver logs in to a backend with: the data of a Secret. Its `repr` shows no value."""

    __slots__ = ("data",)

    def __init__(self, data: Mapping[str, bytes]) -> None:
        self.data: Final = dict(data)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Credentials) and self.data == other.data

    def __hash__(self) -> int:
        return hash(frozenset(self.data))

    def __repr__(self) -> str:
        return f"Credentials({len(self.data)} keys)"

    def text(self, key: str) -> str:
        """One value, "" when it is missing. Raises `Rejected` for what is not UTF-8."""
        try:
            return self.data.get(key, b"").decode()
        except UnicodeDecodeError:
            # Not chained: the error's text shows the value.
            raise Rejected(f"the secret's {key} is not text", remedy="correct the secret") from None


class SecretName(msgspec.Struct, frozen=True):
    """A Secret that an options value names."""

    name: str
    namespace: str = ""
    """"": the pod's own."""


class VolumeSource(msgspec.Struct, frozen=True):
    """Where a volume was declared: the raw source of a pod's volume or of a PersistentVolume."""

    kind: str
    """The field: `emptyDir`, `nfs`, `csi`, ..."""
    body: dict[str, Any]
    """The JSON under that field."""
    capacity_bytes: int | None = None
    persistent: bool = False
    """From a PersistentVolume."""
    partition: str = ""
    """What the PersistentVolume's annotation `volagent.dev/partition` says."""


class Permission(msgspec.Struct, frozen=True):
    """That a node may have a networked disk, as a server said when it was asked."""

    attachment_uid: str
    """Of the VolumeAttachment that it has the disk by."""
    node: str
    exclusive: bool
    """No other node has it."""
    confirm: Callable[[], Awaitable[str]] | None = None
    """Reads the permission again: "" when it stands, else why not."""


class VolumeSpec(msgspec.Struct, frozen=True):
    """One volume as this node should have it. Pure data, comparable, from the declaration."""

    key: VolumeKey
    driver: DriverName
    name: str
    """The PersistentVolume's name, or the pod's name for the volume."""
    options: Options
    mode: VolumeMode = VolumeMode.FILESYSTEM
    mount_options: tuple[str, ...] = ()
    read_only: bool = False
    """Nobody may write: the device, the file system and every publication are read-only."""
    capacity_bytes: int | None = None
    identity: str = ""
    """What the storage calls the disk, for drivers that are `Networked`."""
    device_path: str = ""
    """Under which name the storage attached the disk, where that has a meaning; known to `attach`
    only."""
    shared: bool = False
    """Of a disk that several nodes can reach: others may have it at the same time."""
    one_pod: bool = False
    """ReadWriteOncePod: never for two pods at once."""
    credentials: Credentials | None = None
    """What to log in with, for drivers that `LogIn`."""
    permission: Permission | None = None
    """Given to `attach` of drivers that `Reserve`."""
    backend: str = "local"
    """The bulkhead: volumes of one backend wait for each other, never for those of another."""


class Publication(msgspec.Struct, frozen=True):
    """One pod's use of a volume."""

    pod: PodUid
    pod_name: str
    """`namespace/name`, for messages."""
    target: str
    """The pod's directory for the volume: `.../pods/<uid>/volumes/<driver>/<name>` (for block
    mode the link under `volumeDevices`)."""
    read_only: bool = False
    fs_group: int | None = None
    fs_group_policy: OwnershipPolicy = OwnershipPolicy.ALWAYS
    payload: Payload | None = None
    """The content, for API-backed volumes."""

    @property
    def fingerprint(self) -> str:
        """Changes when the publication must be refreshed in place."""
        return self.payload.fingerprint if self.payload is not None else ""


class HeldDevice(msgspec.Struct, frozen=True):
    """An attached device, as recorded."""

    path: str
    number: str
    identity: str
    size_bytes: int = 0
    read_only: bool = False
    handle: str = ""
    """What its driver gives it back by, where the device itself does not tell: a volume's id."""


class HeldMount(msgspec.Struct, frozen=True):
    """Something made at a path: a mount (`mount_id`), or a directory or link without one."""

    path: str
    mount_id: int = 0
    """0: no mount of its own (a directory on disk, a link)."""
    backend: str = ""
    """Non-empty for mounts whose unmount can hang."""
    fingerprint: str = ""
    device: str = ""
    """`major:minor` of the superblock or device, to recognise a swapped one."""


class Done(msgspec.Struct, frozen=True):
    """A finished operation, with what proves it in one short phrase (`ext4, journal clean`)."""

    evidence: str = ""


class Attached(Done, frozen=True):
    """The device is there."""

    device: HeldDevice = HeldDevice("", "", "")


class Mounted(Done, frozen=True):
    """Staged or published."""

    mount: HeldMount = HeldMount("")


class Driver(Protocol):
    """What every driver has."""

    @property
    def name(self) -> DriverName:
        """Also its directory name on disk."""

    def read_options(self, source: VolumeSource) -> Options:
        """Decode and check a source, strictly. Raises `Rejected` naming the field."""

    def phases(self, options: Options, mode: VolumeMode) -> tuple[Phase, ...]:
        """The phases this volume goes through here, a subsequence of attach..publish."""

    def backend(self, options: Options) -> str:
        """The bulkhead this volume belongs to: `nfs:<server>`, or `local`."""


@runtime_checkable
class Attaches(Protocol):
    """Makes a device appear on this node and go away."""

    async def attach(self, volume: VolumeSpec) -> Attached:
        """Make the device appear (or find that it is there already)."""

    async def detach(self, name: str, device: HeldDevice) -> Done:
        """Give exactly this device back."""


@runtime_checkable
class ListsAttached(Protocol):
    """Recognises what it has attached to this machine, whatever is noted of it."""

    def list_attached(self) -> dict[str, HeldDevice]:
        """By what the storage calls the disk, as `Networked.identify` does.

        Each can be given to `detach`. Raises `Uncertain`.
        """


@runtime_checkable
class Anticipates(Protocol):
    """Can get ready to attach a disk that is not this node's yet."""

    async def anticipate(self, volume: VolumeSpec) -> None:
        """Do what needs no permission: touch no disk, leave nothing behind, fail quietly."""


@runtime_checkable
class Discards(Protocol):
    """Gives a disk up unwritten, because it is another node's now."""

    async def cut(self, device: HeldDevice) -> Done:
        """Have the kernel send nothing more to the disk, whoever has it mounted or open.

        What was not written yet fails from now on. A success when the disk is gone.
        """

    async def discard(self, name: str, device: HeldDevice) -> Done:
        """Give exactly this device back without writing; after `cut`, when nobody has it open."""


@runtime_checkable
class TellsIfFenced(Protocol):
    """Has disks whose storage says whether this node may still write to them."""

    async def is_fenced(self, device: HeldDevice) -> bool:
        """Whether it was kept out of a disk that it has; False while the storage does not say."""


@runtime_checkable
class Networked(Protocol):
    """Has disks that several nodes can reach.

    Such a disk is touched on a node only while the cluster says that it is attached there: the
    loop asks for that before it calls `attach`, and takes it back after `detach`.
    """

    def identify(self, options: Options) -> str:
        """What the storage calls the disk; two declarations of one disk have the same."""


@runtime_checkable
class Reserves(Protocol):
    """Makes itself known to the storage of a disk, which then keeps others out (or may).

    `attach` is given a permission that was read from a server just before. It has it confirmed when
    the node is known to the storage, and before anybody is kept out or anything is written.
    """

    @property
    def reserves(self) -> bool:
        """Whether it does, as it is set up."""


@runtime_checkable
class LogsIn(Protocol):
    """Needs the content of a Secret to set a volume up; its tear-down never does."""

    def find_secret(self, options: Options) -> SecretName | None:
        """The secret whose data `VolumeSpec.credentials` shall have, if one is needed."""


@runtime_checkable
class Prepares(Protocol):
    """Makes an attached device mountable: signature, format only if provably blank, fsck."""

    async def prepare(self, volume: VolumeSpec, device: HeldDevice) -> Done:
        """Raises `Rejected` for a foreign signature or another file system than asked."""


@runtime_checkable
class Stages(Protocol):
    """Mounts once per node at a global path."""

    async def stage(self, volume: VolumeSpec, device: HeldDevice, target: str) -> Mounted:
        """Mount the device at `target` (made here)."""

    async def unstage(self, staged: HeldMount) -> Done:
        """Unmount and remove the target."""


@runtime_checkable
class Publishes(Protocol):
    """Makes the volume visible in a pod's directory."""

    async def publish(
        self,
        volume: VolumeSpec,
        use: Publication,
        *,
        staged: HeldMount | None,
        device: HeldDevice | None,
    ) -> Mounted:
        """Make or *refresh* the pod's directory; parents exist. Block mode links the device."""

    async def unpublish(self, published: HeldMount) -> Done:
        """Unmount and remove the pod's directory for this volume. Raises `Transient` when busy."""


@runtime_checkable
class Expands(Protocol):
    """Lets the file system follow a grown device, online."""

    async def expand(self, volume: VolumeSpec, device: HeldDevice, staged: HeldMount) -> Done:
        """Grow to the device's size; a success without change when it fills it already."""


DriverTable = Mapping[DriverName, Driver]
"""All drivers by name; made once, in `drivers/__init__.py`'s `make_drivers`."""
