"""Rules for VolumeSnapshots, their classes and contents.

Source: external-snapshotter's CRDs (`client/config/crd`, the `x-kubernetes-validations`) and its
validation webhook.
"""

from volagent.objects.field_errors import FieldError, invalid, not_supported, required
from volagent.objects.meta import Document
from volagent.objects.names import check_subdomain
from volagent.objects.snapshot import VolumeSnapshot, VolumeSnapshotClass, VolumeSnapshotContent
from volagent.objects.validate_meta import validate_metadata
from volagent.objects.validate_storage import VOLUME_MODES
from volagent.objects.validate_volumes import validate_driver_name

DELETION_POLICIES = frozenset({"Delete", "Retain"})


def validate_snapshot(snapshot: VolumeSnapshot, _document: Document) -> list[FieldError]:
    """What is wrong with a VolumeSnapshot."""
    errors = validate_metadata(snapshot.metadata, namespaced=True)
    source = snapshot.spec.source
    claim, content = source.persistent_volume_claim_name, source.volume_snapshot_content_name
    errors += _validate_choice(
        {"persistentVolumeClaimName": claim, "volumeSnapshotContentName": content}
    )
    for name, value in (
        ("persistentVolumeClaimName", claim),
        ("volumeSnapshotContentName", content),
    ):
        if value:
            field = f"spec.source.{name}"
            errors += [invalid(field, value, reason) for reason in check_subdomain(value)]
    errors += _validate_class_name(snapshot.spec.volume_snapshot_class_name)
    return errors


def validate_snapshot_change(old: Document, new: Document) -> list[FieldError]:
    """A snapshot is of what it is of."""
    names = ("persistentVolumeClaimName", "volumeSnapshotContentName")
    return _source_unchanged(old, new, names)


def validate_snapshot_class(given: VolumeSnapshotClass, _document: Document) -> list[FieldError]:
    """What is wrong with a VolumeSnapshotClass."""
    errors = validate_metadata(given.metadata, namespaced=False)
    errors += validate_driver_name(given.driver, "driver")
    return errors + _validate_policy(given.deletion_policy, "deletionPolicy")


def validate_content(content: VolumeSnapshotContent, _document: Document) -> list[FieldError]:
    """What is wrong with a VolumeSnapshotContent."""
    errors = validate_metadata(content.metadata, namespaced=False)
    spec = content.spec
    errors += validate_driver_name(spec.driver, "spec.driver")
    errors += _validate_policy(spec.deletion_policy, "spec.deletionPolicy")
    errors += _validate_choice(
        {"volumeHandle": spec.source.volume_handle, "snapshotHandle": spec.source.snapshot_handle}
    )
    reference = spec.volume_snapshot_ref
    if not reference.name or not reference.namespace:
        text = "both spec.volumeSnapshotRef.name and spec.volumeSnapshotRef.namespace must be set"
        errors.append(required("spec.volumeSnapshotRef", text))
    mode = spec.source_volume_mode
    if mode is not None and mode not in VOLUME_MODES:
        errors.append(not_supported("spec.sourceVolumeMode", mode, VOLUME_MODES))
    errors += _validate_class_name(spec.volume_snapshot_class_name)
    return errors


def validate_content_change(old: Document, new: Document) -> list[FieldError]:
    """A content is of the copy it is of, and of the volume that was copied."""
    errors = _source_unchanged(old, new, ("volumeHandle", "snapshotHandle"))
    held, wanted = old["spec"].get("sourceVolumeMode"), new["spec"].get("sourceVolumeMode")
    if held is not None and held != wanted:
        text = (
            "sourceVolumeMode is immutable" if wanted else "sourceVolumeMode is required once set"
        )
        errors.append(invalid("spec.sourceVolumeMode", wanted, text))
    return errors


def _validate_choice(given: dict[str, str | None]) -> list[FieldError]:
    """Exactly one of two names must be given."""
    if sum(1 for value in given.values() if value) == 1:
        return []
    text = f"exactly one of {' and '.join(reversed(given))} must be set"
    shown = {name: value for name, value in given.items() if value is not None}
    return [invalid("spec.source", shown, text)]


def _validate_policy(policy: str, field: str) -> list[FieldError]:
    if not policy:
        return [required(field)]
    if policy in DELETION_POLICIES:
        return []
    return [not_supported(field, policy, DELETION_POLICIES)]


def _validate_class_name(name: str | None) -> list[FieldError]:
    field = "spec.volumeSnapshotClassName"
    if name is None:
        return []
    if not name:
        text = "volumeSnapshotClassName must not be the empty string when set"
        return [invalid(field, name, text)]
    return [invalid(field, name, reason) for reason in check_subdomain(name)]


def _source_unchanged(old: Document, new: Document, names: tuple[str, ...]) -> list[FieldError]:
    before, after = old["spec"]["source"], new["spec"]["source"]
    return [
        invalid(f"spec.source.{name}", after.get(name), f"{name} is immutable")
        for name in names
        if before.get(name) != after.get(name)
    ]
