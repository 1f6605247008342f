"""Rules for `metadata` of every kind. Source: apimachinery `pkg/api/validation/objectmeta.go`."""

from collections.abc import Callable

from volagent.objects.field_errors import (
    FieldError,
    duplicate,
    forbidden,
    invalid,
    required,
    too_long,
)
from volagent.objects.meta import ObjectMeta, OwnerReference
from volagent.objects.names import (
    Reasons,
    check_label,
    check_label_value,
    check_qualified,
    check_subdomain,
)

ANNOTATIONS_LIMIT_BYTES = 256 * 1024
_STANDARD_FINALIZERS = frozenset({"foregroundDeletion", "orphan", "kubernetes"})

CheckName = Callable[[str], Reasons]


def validate_metadata(
    metadata: ObjectMeta, *, namespaced: bool, check_name: CheckName = check_subdomain
) -> list[FieldError]:
    """What is wrong with an object's metadata."""
    errors: list[FieldError] = []
    if metadata.name:
        errors += [invalid("metadata.name", metadata.name, r) for r in check_name(metadata.name)]
    else:
        errors.append(required("metadata.name", "name or generateName is required"))
    if namespaced:
        if not metadata.namespace:
            errors.append(required("metadata.namespace"))
        else:
            errors += [
                invalid("metadata.namespace", metadata.namespace, reason)
                for reason in check_label(metadata.namespace)
            ]
    elif metadata.namespace:
        errors.append(forbidden("metadata.namespace", "not allowed on this type"))
    if metadata.labels:
        errors += validate_labels(metadata.labels, "metadata.labels")
    if metadata.annotations:
        errors += _validate_annotations(metadata.annotations)
    for index, finalizer in enumerate(metadata.finalizers or ()):
        errors += _validate_finalizer(finalizer, f"metadata.finalizers[{index}]")
    if metadata.owner_references:
        errors += _validate_owners(metadata.owner_references)
    return errors


def validate_labels(labels: dict[str, str], field: str) -> list[FieldError]:
    """Keys and values of labels (also of a `nodeSelector`)."""
    errors: list[FieldError] = []
    for key, value in labels.items():
        errors += [invalid(field, key, reason) for reason in check_qualified(key)]
        errors += [invalid(field, value, reason) for reason in check_label_value(value)]
    return errors


def _validate_annotations(annotations: dict[str, str]) -> list[FieldError]:
    errors: list[FieldError] = []
    size = 0
    for key, value in annotations.items():
        reasons = check_qualified(key.lower())
        errors += [invalid("metadata.annotations", key, reason) for reason in reasons]
        size += len(key.encode()) + len(value.encode())
    if size > ANNOTATIONS_LIMIT_BYTES:
        errors.append(too_long("metadata.annotations", ANNOTATIONS_LIMIT_BYTES))
    return errors


def _validate_finalizer(finalizer: str, field: str) -> list[FieldError]:
    errors = [invalid(field, finalizer, reason) for reason in check_qualified(finalizer)]
    if not errors and "/" not in finalizer and finalizer not in _STANDARD_FINALIZERS:
        text = "name is neither a standard finalizer name nor is it fully qualified"
        errors.append(invalid(field, finalizer, text))
    return errors


def _validate_owners(owners: list[OwnerReference]) -> list[FieldError]:
    errors: list[FieldError] = []
    controllers = 0
    seen: set[str] = set()
    for index, owner in enumerate(owners):
        field = f"metadata.ownerReferences[{index}]"
        for name, value in (
            ("apiVersion", owner.api_version), ("kind", owner.kind), ("name", owner.name),
            ("uid", owner.uid),
        ):  # fmt: skip
            if not value:
                errors.append(invalid(f"{field}.{name}", value, "must not be empty"))
        if owner.uid in seen:
            errors.append(duplicate(f"{field}.uid", owner.uid))
        seen.add(owner.uid)
        controllers += owner.controller is True
    if controllers > 1:
        text = "Only one reference can have Controller set to true"
        errors.append(invalid("metadata.ownerReferences", controllers, text))
    return errors
