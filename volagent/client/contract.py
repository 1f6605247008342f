"""The one way to see and change objects, wherever the store is.

Implementations: `api/inprocess.py` (over a store in the same process) and `client/http.py`.
Documents are JSON as the API speaks it; a document that was returned or yielded is shared and
must not be changed in place: copy what you change. Errors are `ApiError` subclasses carrying the
`Status`.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from volagent.objects.meta import Document


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of object and where it is served."""

    group: str
    """"" for the core group."""
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    newer: bool = False
    """Servers of the version before do not serve it: whoever follows it does without there."""

    @property
    def api_version(self) -> str:
        """`v1`, `storage.k8s.io/v1`."""
        return f"{self.group}/{self.version}" if self.group else self.version


PODS = Resource("", "v1", "pods", "Pod", True, ("po",))
NODES = Resource("", "v1", "nodes", "Node", False, ("no",))
NAMESPACES = Resource("", "v1", "namespaces", "Namespace", False, ("ns",))
SECRETS = Resource("", "v1", "secrets", "Secret")
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap", True, ("cm",))
SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount", True, ("sa",))
EVENTS = Resource("", "v1", "events", "Event", True, ("ev",))
PERSISTENT_VOLUMES = Resource("", "v1", "persistentvolumes", "PersistentVolume", False, ("pv",))
CLAIMS = Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", True, ("pvc",))
ENDPOINTS = Resource("", "v1", "endpoints", "Endpoints", True, ("ep",))
_STORAGE = "storage.k8s.io"
STORAGE_CLASSES = Resource(_STORAGE, "v1", "storageclasses", "StorageClass", False, ("sc",))
VOLUME_ATTACHMENTS = Resource(_STORAGE, "v1", "volumeattachments", "VolumeAttachment", False)
CSI_DRIVERS = Resource(_STORAGE, "v1", "csidrivers", "CSIDriver", False)
CSI_NODES = Resource(_STORAGE, "v1", "csinodes", "CSINode", False)
CSI_STORAGE_CAPACITIES = Resource(
    _STORAGE, "v1", "csistoragecapacities", "CSIStorageCapacity", True
)
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
_SNAPSHOT = "snapshot.storage.k8s.io"
SNAPSHOTS = Resource(_SNAPSHOT, "v1", "volumesnapshots", "VolumeSnapshot", True, ("vs",))
SNAPSHOT_CLASSES = Resource(
    _SNAPSHOT, "v1", "volumesnapshotclasses", "VolumeSnapshotClass", False, ("vsclass",)
)
SNAPSHOT_CONTENTS = Resource(
    _SNAPSHOT, "v1", "volumesnapshotcontents", "VolumeSnapshotContent", False, ("vsc",)
)
FENCINGS = Resource("volagent.dev", "v1", "fencings", "Fencing", False, newer=True)
_RBAC = "rbac.authorization.k8s.io"
ROLES = Resource(_RBAC, "v1", "roles", "Role")
ROLE_BINDINGS = Resource(_RBAC, "v1", "rolebindings", "RoleBinding")
CLUSTER_ROLES = Resource(_RBAC, "v1", "clusterroles", "ClusterRole", False)
CLUSTER_ROLE_BINDINGS = Resource(_RBAC, "v1", "clusterrolebindings", "ClusterRoleBinding", False)
RESOURCES = (
    PODS, NODES, NAMESPACES, SECRETS, CONFIG_MAPS, SERVICE_ACCOUNTS, EVENTS, PERSISTENT_VOLUMES,
    CLAIMS, ENDPOINTS, STORAGE_CLASSES, VOLUME_ATTACHMENTS, CSI_DRIVERS, CSI_NODES,
    CSI_STORAGE_CAPACITIES, LEASES, SNAPSHOTS, SNAPSHOT_CLASSES, SNAPSHOT_CONTENTS, ROLES,
    ROLE_BINDINGS, CLUSTER_ROLES, CLUSTER_ROLE_BINDINGS, FENCINGS,
)  # fmt: skip

WITH_STATUS = "*"
"""A `subresource` for `Client.patch`: one write for the object and its status together, of which
the API's users have no equivalent. `client/http.py` makes it two writes, the object first; so
whoever uses it must be able to go on from between the two."""


class ApiError(Exception):
    """A request was refused or failed; `status` is the `Status` object of the answer."""

    code = 500
    reason = "InternalError"

    def __init__(
        self,
        message: str,
        *,
        details: dict[str, Any] | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.details = details or {}
        self.retry_after_s = retry_after_s

    @property
    def status(self) -> Document:
        """The Kubernetes `Status` object."""
        return {
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "details": self.details,
            "code": self.code,
        }  # fmt: skip


class BadRequest(ApiError):
    """The request itself is malformed."""

    code, reason = 400, "BadRequest"


class Unauthorized(ApiError):
    """The caller is unknown."""

    code, reason = 401, "Unauthorized"


class Forbidden(ApiError):
    """The caller may not do this."""

    code, reason = 403, "Forbidden"


class NotFound(ApiError):
    """There is no such object (or kind)."""

    code, reason = 404, "NotFound"


class MethodNotAllowed(ApiError):
    """The resource has no such verb."""

    code, reason = 405, "MethodNotAllowed"


class Conflict(ApiError):
    """The object changed meanwhile, or a precondition failed: read again and retry."""

    code, reason = 409, "Conflict"


class AlreadyExists(ApiError):
    """An object of that name exists."""

    code, reason = 409, "AlreadyExists"


class Gone(ApiError):
    """The requested revision was compacted: list again."""

    code, reason = 410, "Expired"


class TooLarge(ApiError):
    """The request's body exceeds the limit."""

    code, reason = 413, "RequestEntityTooLarge"


class UnsupportedMediaType(ApiError):
    """The content type is not understood."""

    code, reason = 415, "UnsupportedMediaType"


class Invalid(ApiError):
    """The object breaks a rule; `details.causes` lists field, reason and message."""

    code, reason = 422, "Invalid"


class Timeout(ApiError):
    """Not yet: a revision from the future, or a deadline."""

    code, reason = 504, "Timeout"


class Unavailable(ApiError):
    """The server cannot be reached or is not ready."""

    code, reason = 503, "ServiceUnavailable"


class InsufficientStorage(ApiError):
    """The store's disk is full: nothing was written."""

    code, reason = 507, "InsufficientStorage"


@dataclass(frozen=True, slots=True)
class Listing:
    """The answer of a list."""

    items: list[Document]
    resource_version: str
    continue_token: str = ""
    remaining: int | None = None


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One change; `type` is ADDED, MODIFIED, DELETED or BOOKMARK."""

    type: str
    object: Document


@dataclass(frozen=True, slots=True)
class Selection:
    """What a list or watch is narrowed to."""

    namespace: str = ""
    """"" for all namespaces."""
    label_selector: str = ""
    field_selector: str = ""


class Client(Protocol):
    """Get, list, watch, create, update, patch, delete."""

    async def get(self, resource: Resource, name: str, namespace: str = "") -> Document:
        """One object. Raises `NotFound`."""

    async def list(
        self,
        resource: Resource,
        selection: Selection = Selection(),  # a frozen value
        *,
        resource_version: str = "",
        limit: int = 0,
        continue_token: str = "",
    ) -> Listing:
        """All objects that fit, at one revision."""

    def watch(
        self,
        resource: Resource,
        selection: Selection = Selection(),
        *,
        resource_version: str,
        bookmarks: bool = False,
    ) -> AsyncIterator[Sequence[WatchEvent]]:
        """Changes after a revision, in order, as batches of one or more.

        Raises `Gone` when the revision was compacted or the watcher was too slow; `Unavailable`
        when the connection broke. Close the iterator (`aclose`) to stop.
        """

    async def issue_token(
        self, service_account: str, namespace: str, request: Document
    ) -> Document:
        """A service account token: the `TokenRequest` with `status.token` and its expiry."""

    async def bind_pod(
        self,
        name: str,
        namespace: str,
        node: str,
        *,
        uid: str = "",
        resource_version: str = "",
        dry_run: bool = False,
    ) -> None:
        """Give a pod its node (`pods/binding`), with its condition `PodScheduled`, in one write.

        With `uid` or `resource_version` only that very object. Raises `Conflict`, also when it has
        a node, is going, or has scheduling gates.
        """

    async def redeclare_pod(self, name: str, namespace: str, *, uid: str) -> Document:
        """Declare a pod again whose node is lost, in one write: the same manifest under the same
        name, with another uid and without the node that was chosen for it; the new pod.

        Watchers see the old one go and the new one come. Raises `Conflict` when it is not that
        very pod, is going, has finalizers, or when nobody but its manifest chose its node.
        """

    async def create(
        self, resource: Resource, document: Document, namespace: str = "", *, dry_run: bool = False
    ) -> Document:
        """Store a new object, durable on return. Raises `AlreadyExists`, `Invalid`, `Forbidden`."""

    async def update(
        self,
        resource: Resource,
        document: Document,
        namespace: str = "",
        *,
        subresource: str = "",
        dry_run: bool = False,
    ) -> Document:
        """Replace; with a `resourceVersion` only if it is the current one. Raises `Conflict`."""

    async def patch(
        self,
        resource: Resource,
        name: str,
        patch: Any,
        namespace: str = "",
        *,
        content_type: str = "application/merge-patch+json",
        subresource: str = "",
        dry_run: bool = False,
    ) -> Document:
        """Change a part (JSON patch, merge patch). A patch without effect writes nothing."""

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str = "",
        *,
        grace_period_seconds: int | None = None,
        uid: str = "",
        resource_version: str = "",
        dry_run: bool = False,
    ) -> Document:
        """Delete, gracefully where the kind has grace or finalizers. Returns the object, or a
        `Status`. With `uid` or `resource_version` only that very object (else `Conflict`)."""
