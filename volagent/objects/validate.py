"""Defaults and rules of every kind: what a document must be before it is stored.

`prepare_create` and `prepare_update` are pure: they return a new document (sharing what did not
change) and never write into their arguments. The rules of each kind are in `validate_<what>.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from volagent.objects import defaults
from volagent.objects.attachments import VolumeAttachment
from volagent.objects.fencing import Fencing
from volagent.objects.field_errors import FieldError, InvalidObject
from volagent.objects.meta import Document
from volagent.objects.pod import Pod
from volagent.objects.rbac import Role, RoleBinding
from volagent.objects.reading import read_view
from volagent.objects.snapshot import VolumeSnapshot, VolumeSnapshotClass, VolumeSnapshotContent
from volagent.objects.storage import ConfigMap, CSINode, PersistentVolume, PersistentVolumeClaim
from volagent.objects.validate_attachment import validate_attachment, validate_attachment_change
from volagent.objects.validate_class import (
    GivenCapacity,
    GivenClass,
    GivenDriver,
    default_capacity,
    default_class,
    default_driver,
    validate_capacity,
    validate_capacity_change,
    validate_class,
    validate_class_change,
    validate_csi_node,
    validate_csi_node_change,
    validate_driver,
    validate_driver_change,
)
from volagent.objects.validate_cluster import (
    GivenEvent,
    GivenNamespace,
    GivenNode,
    GivenObject,
    GivenServiceAccount,
    validate_event,
    validate_namespace,
    validate_node,
    validate_object,
    validate_service_account,
)
from volagent.objects.validate_config import (
    GivenSecret,
    strip_base64,
    validate_config_map,
    validate_config_map_change,
    validate_secret,
    validate_secret_change,
)
from volagent.objects.validate_fencing import (
    validate_fencing,
    validate_fencing_change,
    validate_fencing_status,
)
from volagent.objects.validate_lease import (
    Endpoints,
    Lease,
    default_endpoints,
    validate_endpoints,
    validate_lease,
)
from volagent.objects.validate_pod import validate_pod, validate_pod_change
from volagent.objects.validate_rbac import (
    validate_binding,
    validate_binding_change,
    validate_role,
)
from volagent.objects.validate_snapshot import (
    validate_content,
    validate_content_change,
    validate_snapshot,
    validate_snapshot_change,
    validate_snapshot_class,
)
from volagent.objects.validate_storage import (
    validate_claim,
    validate_claim_change,
    validate_volume,
    validate_volume_change,
)


def _allow(_old: Document, _new: Document) -> list[FieldError]:
    """Everything may change."""
    return []


@dataclass(frozen=True, slots=True)
class _Rules:
    """What is done with the documents of one kind."""

    view: type[Any]
    validate: Callable[[Any, Document], list[FieldError]]
    default: Callable[[Document], Document] = defaults.keep
    validate_change: Callable[[Document, Document], list[FieldError]] = _allow
    validate_status: Callable[[Document, Document], list[FieldError]] = _allow
    base64_field: str = ""
    assigned_field: str = ""
    """A member of `spec` that others set; an update that leaves it out keeps it."""


_RULES = {
    "Pod": _Rules(
        Pod, validate_pod, defaults.default_pod, validate_pod_change, assigned_field="nodeName"
    ),
    "PersistentVolume": _Rules(
        PersistentVolume, validate_volume, defaults.default_volume, validate_volume_change
    ),
    "PersistentVolumeClaim": _Rules(
        PersistentVolumeClaim, validate_claim, defaults.default_claim, validate_claim_change,
        assigned_field="volumeName",
    ),
    "Secret": _Rules(
        GivenSecret, validate_secret, defaults.default_secret, validate_secret_change,
        base64_field="data",
    ),
    "ConfigMap": _Rules(
        ConfigMap, validate_config_map, validate_change=validate_config_map_change,
        base64_field="binaryData",
    ),
    "Node": _Rules(GivenNode, validate_node, defaults.default_node),
    "Namespace": _Rules(GivenNamespace, validate_namespace),
    "Event": _Rules(GivenEvent, validate_event),
    "ServiceAccount": _Rules(GivenServiceAccount, validate_service_account),
    "StorageClass": _Rules(GivenClass, validate_class, default_class, validate_class_change),
    "CSIDriver": _Rules(GivenDriver, validate_driver, default_driver, validate_driver_change),
    "CSINode": _Rules(CSINode, validate_csi_node, validate_change=validate_csi_node_change),
    "CSIStorageCapacity": _Rules(
        GivenCapacity, validate_capacity, default_capacity, validate_capacity_change
    ),
    "VolumeAttachment": _Rules(
        VolumeAttachment, validate_attachment, validate_change=validate_attachment_change
    ),
    "VolumeSnapshot": _Rules(
        VolumeSnapshot, validate_snapshot, validate_change=validate_snapshot_change
    ),
    "VolumeSnapshotClass": _Rules(VolumeSnapshotClass, validate_snapshot_class),
    "VolumeSnapshotContent": _Rules(
        VolumeSnapshotContent, validate_content, validate_change=validate_content_change
    ),
    "Fencing": _Rules(
        Fencing, validate_fencing, validate_change=validate_fencing_change,
        validate_status=validate_fencing_status,
    ),
    "Lease": _Rules(Lease, validate_lease),
    "Endpoints": _Rules(Endpoints, validate_endpoints, default_endpoints),
}  # fmt: skip
_RULES |= {
    "Role": _Rules(Role, validate_role),
    "ClusterRole": _Rules(Role, validate_role),
    "RoleBinding": _Rules(RoleBinding, validate_binding, validate_change=validate_binding_change),
    "ClusterRoleBinding": _Rules(
        RoleBinding, validate_binding, validate_change=validate_binding_change
    ),
}
_OTHER = _Rules(GivenObject, validate_object)


def prepare_create(kind: str, document: Document) -> Document:
    """The document of a new object with defaults filled in.

    Raises `InvalidObject`, `MalformedObject`.
    """
    return _prepare(kind, _RULES.get(kind, _OTHER), document)


def prepare_update(kind: str, old: Document, new: Document, *, subresource: str = "") -> Document:
    """The document that replaces `old`, with defaults filled in.

    Of a sub-resource only the types are checked, and what its kind says of its status: what is
    outside it has not changed. What was
    wrong with `old` already, by a rule that came later, is no error. Raises `InvalidObject`,
    `MalformedObject`.
    """
    rules = _RULES.get(kind, _OTHER)
    if subresource:
        read_view(new, rules.view)
        errors = rules.validate_status(old, new)
        if errors:
            raise InvalidObject(kind, new["metadata"]["name"], errors)
        return new
    name = rules.assigned_field
    if name and old["spec"].get(name):
        spec = new.get("spec")
        if isinstance(spec, dict) and not spec.get(name):
            new = {**new, "spec": {**spec, name: old["spec"][name]}}
    new = _prepare(kind, rules, new, old)
    errors = rules.validate_change(old, new)
    if errors:
        raise InvalidObject(kind, new["metadata"]["name"], errors)
    return new


def _prepare(kind: str, rules: _Rules, document: Document, old: Document | None = None) -> Document:
    if rules.base64_field:
        document = strip_base64(document, rules.base64_field)
    view = read_view(document, rules.view)
    errors = rules.validate(view, document)
    if errors and old is not None:
        known = rules.validate(read_view(old, rules.view), old)
        errors = [error for error in errors if error not in known]
    if errors:
        raise InvalidObject(kind, view.metadata.name, errors)
    return rules.default(document)
