"""What volagent hands to a container runtime, and what it asks of one.

Values flow one way: the node says which volumes stand where (`HandedVolume`), `runtime/spec.py`
turns a pod's container into a `ContainerSpec`, a `Runtime` makes it run, and `ContainerState` is
what the runtime says about it. A runtime never decides anything: no restarts, no retries, no
clean-up of its own (`runtime/lifecycle.py` decides, `runtime/pods.py` acts).

Invariants: a runtime sees and touches only containers that carry `LABEL_POD_UID`; every call is
idempotent; no environment variable reaches a `repr`, since it may hold a secret. Coroutines may be
called concurrently for different containers.
"""

import enum
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from volagent.objects.meta import PodUid
from volagent.objects.pod import Pod

LABEL_POD_UID = "volagent.dev/pod-uid"
LABEL_POD_NAME = "volagent.dev/pod-name"
LABEL_POD_NAMESPACE = "volagent.dev/pod-namespace"
LABEL_CONTAINER = "volagent.dev/container"
LABEL_ATTEMPT = "volagent.dev/attempt"


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What a container's environment may tell about this node."""

    node_name: str
    host_ip: str = ""
    allocatable_cpu: str = "0"
    """Quantities: what a `resourceFieldRef` gives for a limit that is not set."""
    allocatable_memory: str = "0"


@dataclass(frozen=True, slots=True)
class SubPathUse:
    """A `subPath` (or an expanded `subPathExpr`) that a container mounts."""

    volume: str
    """The pod's name for the volume."""
    container: str
    index: int
    """Position among all of the container's `volumeMounts`."""
    path: str
    """Relative, without `..`, never empty."""


@dataclass(frozen=True, slots=True)
class HandedVolume:
    """One of a pod's volumes, standing and ready to be handed to containers."""

    name: str
    """The pod's name for it."""
    path: str = ""
    """The directory (or file) on the host; "" in block mode."""
    device_path: str = ""
    """The device node on the host, in block mode."""
    read_only: bool = False
    """No container may write, whatever its mount says (a read-only claim or source)."""
    always_read_only: bool = False
    """Filled from the API (secret, configMap, downwardAPI, projected)."""
    sub_paths: Mapping[tuple[str, int], str] = field(default_factory=dict)
    """Where sub-paths have been bound, by container and index of the mount."""


@dataclass(frozen=True, slots=True)
class OciMount:
    """One entry of `mounts` in the OCI runtime specification; always a bind mount."""

    destination: str
    source: str
    options: tuple[str, ...]
    """`rbind`, `ro` or `rw`, `rro` where asked, and `rprivate`, `rslave` or `rshared`."""


@dataclass(frozen=True, slots=True)
class DeviceSpec:
    """A raw block device inside a container."""

    container_path: str
    host_path: str
    permissions: str = "mrw"
    """`mrw`, or `r`."""


class PullPolicy(enum.Enum):
    """`imagePullPolicy`."""

    ALWAYS = "Always"
    IF_NOT_PRESENT = "IfNotPresent"
    NEVER = "Never"


@dataclass(frozen=True, slots=True)
class SecurityOptions:
    """`securityContext` of the pod and of the container, merged."""

    uid: int | None = None
    """None: the image's own user."""
    gid: int | None = None
    groups: tuple[int, ...] = ()
    """Supplemental groups, `fsGroup` among them."""
    must_not_be_root: bool = False
    privileged: bool = False
    no_new_privileges: bool = False
    add_capabilities: tuple[str, ...] = ()
    drop_capabilities: tuple[str, ...] = ()
    selinux: tuple[str, ...] = ()
    """`user:U`, `role:R`, `type:T`, `level:L`."""
    read_only_root: bool = False


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """A container as it should be made. `None` for command and args leaves them to the image."""

    name: str
    """The container's name in its pod."""
    image: str
    pull_policy: PullPolicy = PullPolicy.IF_NOT_PRESENT
    command: tuple[str, ...] | None = None
    args: tuple[str, ...] | None = None
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    working_dir: str = ""
    hostname: str = ""
    host_network: bool = False
    stdin: bool = False
    tty: bool = False
    security: SecurityOptions = SecurityOptions()
    mounts: tuple[OciMount, ...] = ()
    devices: tuple[DeviceSpec, ...] = ()
    memory_limit_bytes: int | None = None
    cpu_limit_millis: int | None = None


@dataclass(frozen=True, slots=True)
class PodRef:
    """Whose containers they are."""

    uid: PodUid
    namespace: str
    name: str


class Stage(enum.Enum):
    """Where a container is in its life."""

    CREATED = "created"
    """Made, never started."""
    RUNNING = "running"
    """Started (or paused, or stopping): a process may be using its mounts."""
    EXITED = "exited"
    """Ended; it still exists until it is removed."""


@dataclass(frozen=True, slots=True)
class ContainerState:
    """One container of ours, as the runtime tells it."""

    container_id: str
    pod: PodRef
    name: str
    """The container's name in its pod."""
    attempt: int
    """0 for the first; its restart count."""
    stage: Stage
    exit_code: int | None = None
    out_of_memory: bool = False
    """It was killed for exceeding its memory limit."""
    started_at: datetime | None = None
    finished_at: datetime | None = None
    image: str = ""
    image_id: str = ""
    mounts: tuple[str, ...] = ()
    """Destinations that the runtime has mounted into it."""


class RuntimeFault(Exception):
    """Base of what a runtime can answer. The text is for people: fact first."""


class RuntimeUnavailable(RuntimeFault):
    """The runtime does not answer: nothing is known about any container; try again later."""


class ImageMissing(RuntimeFault):
    """The image is not there and could not be pulled: try again later, ever more slowly."""


class ContainerRejected(RuntimeFault):
    """The runtime does not take this container as it is declared: the user must change it."""


class ContainerFailed(RuntimeFault):
    """The container could not be made or started now; nothing of it was left running."""


class SpecError(Exception):
    """A container cannot be made from its declaration and the objects it refers to.

    `field` says where, `reason` is the `waiting` reason of the container's status.
    """

    reason = "CreateContainerConfigError"

    def __init__(self, field: str, message: str) -> None:
        super().__init__(field, message)
        self.field = field
        self.message = message

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


class Runtime(Protocol):
    """A container runtime. Any method raises `RuntimeUnavailable` when it does not answer."""

    name: str
    """`podman`; also the scheme of `containerID` in a pod's status."""
    recursive_read_only: bool
    """Whether it understands the mount option `rro`."""

    async def version(self) -> str:
        """Its version, for people."""

    async def list_containers(self, pod: PodUid | None = None) -> Sequence[ContainerState]:
        """Our containers in every stage, of one pod or of all."""

    async def has_image(self, image: str) -> bool:
        """Whether an image is in the runtime's store."""

    async def pull_image(self, image: str) -> None:
        """Fetch an image; may take minutes. Raises `ImageMissing`."""

    async def create_container(self, pod: PodRef, spec: ContainerSpec, attempt: int) -> str:
        """Make a container without starting it; its id.

        A container of the same pod, name and attempt that was never started is replaced. Raises
        `ImageMissing`, `ContainerRejected`, `ContainerFailed`.
        """

    async def start_container(self, container_id: str) -> None:
        """Start it; fine when it runs already. Raises `ContainerRejected`, `ContainerFailed`."""

    async def stop_container(self, container_id: str, *, kill: bool) -> None:
        """Ask it to end by its own stop signal, or kill it.

        Returns when the signal is sent, not when the container has ended: `follow` tells that.
        Fine when it has ended or is gone.
        """

    async def remove_container(self, container_id: str) -> None:
        """Remove a container that does not run, with its anonymous volumes; fine when it is gone.

        Returns once its mounts are gone too.
        """

    async def follow(self, on_change: Callable[[PodUid | None], None]) -> None:
        """Call back on the loop's thread whenever a pod's containers changed; never returns.

        None means that changes may have been missed (the connection was lost): look at every pod.
        Lost connections are made again by itself, ever more slowly up to a bound.
        """

    async def close(self) -> None:
        """Give connections back; idempotent."""


@dataclass(frozen=True, slots=True)
class PodObservation:
    """What became of one pod's containers; the answer of a `Runner`."""

    status: Mapping[str, Any] = field(default_factory=dict)
    """Fields for the pod's status: `phase`, `containerStatuses`, `initContainerStatuses`, and
    `conditions` (Initialized, ContainersReady, Ready, without times)."""
    volumes_released: bool = False
    """No container of the pod exists any more: its volumes may be unmounted."""
    finished: bool = False
    """Every container has ended for good (phase Succeeded or Failed)."""
    error: str = ""
    """Why the runtime could not be asked; `status` is then the last one known."""
    retry_after_s: float | None = None


class Runner(Protocol):
    """Brings the containers of pods where they should be. One call per pod at a time."""

    async def sync(
        self,
        pod: Pod,
        specs: Mapping[str, ContainerSpec | SpecError] | None,
        *,
        deleting: bool,
    ) -> PodObservation:
        """Start, restart, stop or remove what is due, and say how it stands.

        `specs` has what `build_specs` made of each container; None while the volumes are not
        ready: then nothing is started, and what runs goes on. With `deleting` everything is
        stopped with grace and removed. Does not wait for containers to end: `on_change` of the
        runtime or `retry_after_s` asks for the next call.
        """

    def forget(self, pod: PodUid) -> None:
        """The pod is gone: drop what is remembered of it."""

    async def find_orphans(self, known: Collection[PodUid]) -> Sequence[Pod]:
        """Pods that have containers here and are not known: bare `Pod`s to `sync` as deleting.

        Raises `RuntimeUnavailable`.
        """

    def loops(
        self, on_change: Callable[[PodUid | None], None]
    ) -> Sequence[tuple[str, Coroutine[Any, Any, None]]]:
        """The loops that have to run for the daemon's life, with a name each."""

    async def close(self) -> None:
        """Give connections back, once the loops have ended; idempotent."""
