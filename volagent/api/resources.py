"""What the registry must know about each resource beyond its name: one row per resource.

The behaviours are kube-apiserver's (observed on 1.20, see the comments). No behaviour is chosen by
a resource's name anywhere else, except what only Pods and Namespaces have (`api/lifecycle.py`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from volagent.client.contract import (
    CLAIMS,
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    CONFIG_MAPS,
    CSI_DRIVERS,
    CSI_NODES,
    CSI_STORAGE_CAPACITIES,
    ENDPOINTS,
    EVENTS,
    FENCINGS,
    LEASES,
    NAMESPACES,
    NODES,
    PERSISTENT_VOLUMES,
    PODS,
    ROLE_BINDINGS,
    ROLES,
    SECRETS,
    SERVICE_ACCOUNTS,
    SNAPSHOT_CLASSES,
    SNAPSHOT_CONTENTS,
    SNAPSHOTS,
    STORAGE_CLASSES,
    VOLUME_ATTACHMENTS,
    NotFound,
    Resource,
)

EVENT_LIFE_S = 3600
"""How long an Event is kept, as kube-apiserver's --event-ttl."""


@dataclass(frozen=True, slots=True)
class Traits:
    """How one resource behaves."""

    resource: Resource
    status_phase: str | None = None
    """The phase a new object's status starts with; "": with no status at all; None: there is no
    status sub-resource."""
    keeps_given_status: bool = False
    """A status given on create is kept (a node agent registers its Node with one)."""
    returns_deleted: bool = False
    """DELETE answers with the object; else with a `Status`."""
    creates_on_update: bool = False
    """PUT to a missing object creates it."""
    counts_generation: bool = False
    """`metadata.generation` is kept, and counts the changes of `spec`."""
    life_s: int | None = None
    """Objects are deleted so long after their last write."""
    fields: Mapping[str, str] = field(default_factory=dict)
    """Field selector → path of the field, beyond `metadata.name` and `metadata.namespace`."""

    @property
    def has_status(self) -> bool:
        """Whether `status` is a sub-resource."""
        return self.status_phase is not None

    @property
    def prefix(self) -> str:
        """The store's prefix of all its objects."""
        resource = self.resource
        suffix = f".{resource.group}" if resource.group else ""
        return f"/{resource.plural}{suffix}/"

    @property
    def qualified(self) -> str:
        """The resource as error texts name it: `pods`, `storageclasses.storage.k8s.io`."""
        return self.prefix[1:-1]


def _paths(*names: str) -> dict[str, str]:
    return {name: name for name in names}


_POD_FIELDS = _paths(
    "spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName",
    "spec.hostNetwork", "status.phase", "status.podIP", "status.nominatedNodeName",
)  # fmt: skip
_EVENT_FIELDS = _paths(
    "involvedObject.kind", "involvedObject.namespace", "involvedObject.name",
    "involvedObject.uid", "involvedObject.apiVersion", "involvedObject.resourceVersion",
    "involvedObject.fieldPath", "reason", "reportingComponent", "type",
) | {"source": "source.component"}  # fmt: skip

_FENCING_FIELDS = _paths("spec.nodeName", "spec.executor", "status.phase")

TRAITS: tuple[Traits, ...] = (
    Traits(PODS, "Pending", returns_deleted=True, counts_generation=True, fields=_POD_FIELDS),
    Traits(NODES, "", keeps_given_status=True, fields=_paths("spec.unschedulable")),
    Traits(NAMESPACES, "Active", returns_deleted=True, fields=_paths("status.phase")),
    Traits(SECRETS, fields=_paths("type")),
    Traits(CONFIG_MAPS),
    Traits(SERVICE_ACCOUNTS, returns_deleted=True),
    Traits(EVENTS, creates_on_update=True, life_s=EVENT_LIFE_S, fields=_EVENT_FIELDS),
    Traits(PERSISTENT_VOLUMES, "Pending", returns_deleted=True),
    Traits(CLAIMS, "Pending", returns_deleted=True),
    Traits(ENDPOINTS, creates_on_update=True),
    Traits(STORAGE_CLASSES, returns_deleted=True),
    Traits(VOLUME_ATTACHMENTS, "", returns_deleted=True),
    Traits(CSI_DRIVERS, returns_deleted=True),
    Traits(CSI_NODES, returns_deleted=True),
    Traits(CSI_STORAGE_CAPACITIES),
    Traits(LEASES, creates_on_update=True),
    Traits(SNAPSHOTS, "", returns_deleted=True, counts_generation=True),
    Traits(SNAPSHOT_CLASSES, returns_deleted=True),
    Traits(SNAPSHOT_CONTENTS, "", returns_deleted=True, counts_generation=True),
    Traits(ROLES, creates_on_update=True),
    Traits(ROLE_BINDINGS, creates_on_update=True),
    Traits(CLUSTER_ROLES, creates_on_update=True),
    Traits(CLUSTER_ROLE_BINDINGS, creates_on_update=True),
    Traits(FENCINGS, "Pending", returns_deleted=True, fields=_FENCING_FIELDS),
)
_BY_PLACE = {(traits.resource.group, traits.resource.plural): traits for traits in TRAITS}


def traits_of(resource: Resource) -> Traits:
    """The behaviour of a resource. Raises `NotFound` for one that is not served."""
    traits = _BY_PLACE.get((resource.group, resource.plural))
    if traits is None:
        raise NotFound("the server could not find the requested resource")
    return traits
