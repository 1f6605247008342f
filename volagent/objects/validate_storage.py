"""Rules for PersistentVolumes and PersistentVolumeClaims, new and changed.

Source: Kubernetes `pkg/apis/core/validation/validation.go`; what depends on other objects (a class
that lets its claims grow) is admission's.
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from volagent.objects.field_errors import (
    FieldError,
    forbidden,
    invalid,
    not_supported,
    required,
)
from volagent.objects.meta import Document, SecretReference, View
from volagent.objects.names import check_absolute_path, check_subdomain
from volagent.objects.quantities import Amount, read_amount
from volagent.objects.reading import read_optional
from volagent.objects.snapshot import TypedReference
from volagent.objects.storage import (
    PARTITION,
    PARTITION_MAX,
    PersistentVolume,
    PersistentVolumeClaim,
)
from volagent.objects.validate_iscsi import validate_persistent_iscsi
from volagent.objects.validate_meta import validate_metadata
from volagent.objects.validate_volumes import (
    validate_driver_name,
    validate_ebs,
    validate_host_path,
    validate_nfs,
)
from volagent.objects.volumes import PV_SOURCES, CSISource, LocalSource, OtherSources

ACCESS_MODES = frozenset({"ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"})
VOLUME_MODES = frozenset({"Filesystem", "Block"})
RECLAIM_POLICIES = frozenset({"Retain", "Delete"})
_RECYCLE = (
    "Recycle would erase everything below the volume's path with rm -rf, for good and with nobody"
    " asked, and offer it to the next claim; use Delete, which goes through the trash, or Retain"
)
_OPERATORS = frozenset({"In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"})
_OTHER_SOURCES = frozenset(f.encode_name for f in msgspec.structs.fields(OtherSources))
_CLAIM_MUTABLE = (
    "spec is immutable after creation except resources.requests and volumeAttributesClassName for"
    " bound claims"
)


class _Requirement(View, frozen=True):
    key: str = ""
    operator: str = ""
    values: list[str] | None = None


class _Term(View, frozen=True):
    match_expressions: list[_Requirement] | None = None
    match_fields: list[_Requirement] | None = None


class _NodeSelector(View, frozen=True):
    node_selector_terms: list[_Term] | None = None


class _NodeAffinity(View, frozen=True):
    required: _NodeSelector | None = None


class _LabelSelector(View, frozen=True):
    match_labels: dict[str, str] | None = None
    match_expressions: list[_Requirement] | None = None


def validate_volume(volume: PersistentVolume, document: Document) -> list[FieldError]:
    """What is wrong with a PersistentVolume; `document` is the same as given."""
    errors = validate_metadata(volume.metadata, namespaced=False)
    spec, raw = volume.spec, document.get("spec") or {}
    errors += _validate_capacity(spec.capacity)
    errors += _validate_access_modes(spec.access_modes, "spec.accessModes")
    errors += _validate_volume_mode(spec.volume_mode)
    policy = spec.persistent_volume_reclaim_policy
    if policy and policy not in RECLAIM_POLICIES:
        field = "spec.persistentVolumeReclaimPolicy"
        if policy == "Recycle":
            errors.append(forbidden(field, _RECYCLE))
        else:
            errors.append(not_supported(field, policy, RECLAIM_POLICIES))
    errors += _validate_class(spec.storage_class_name)
    errors += _validate_pv_source(volume, raw)
    affinity = read_optional(raw, "nodeAffinity", _NodeAffinity, "spec.nodeAffinity")
    if affinity is not None:
        errors += _validate_affinity(affinity)
    elif spec.local is not None:
        errors.append(required("spec.nodeAffinity", "Local volume requires node affinity"))
    for index, option in enumerate(spec.mount_options or ()):
        if "\0" in option or "\n" in option:
            text = "must not contain control characters"
            errors.append(invalid(f"spec.mountOptions[{index}]", option, text))
    return errors


def _validate_capacity(capacity: dict[str, Any] | None) -> list[FieldError]:
    if not capacity:
        return [required("spec.capacity")]
    if set(capacity) != {"storage"}:
        return [not_supported("spec.capacity", ",".join(sorted(capacity)), ("storage",))]
    return _validate_positive(capacity["storage"], "spec.capacity[storage]")


def _validate_positive(amount: Amount, field: str) -> list[FieldError]:
    if read_amount(amount, field) > 0:
        return []
    return [invalid(field, str(amount), "must be greater than zero")]


def _validate_access_modes(modes: Sequence[str] | None, field: str) -> list[FieldError]:
    if not modes:
        return [required(field, "at least 1 access mode is required")]
    errors = [
        not_supported(field, mode, ACCESS_MODES) for mode in modes if mode not in ACCESS_MODES
    ]
    if "ReadWriteOncePod" in modes and len(set(modes)) > 1:
        text = "may not use ReadWriteOncePod with other access modes"
        errors.append(forbidden(field, text))
    return errors


def _validate_volume_mode(mode: str | None) -> list[FieldError]:
    if mode is None or mode in VOLUME_MODES:
        return []
    return [not_supported("spec.volumeMode", mode, VOLUME_MODES)]


def _validate_class(name: str | None) -> list[FieldError]:
    if not name:
        return []
    return [invalid("spec.storageClassName", name, reason) for reason in check_subdomain(name)]


def _validate_pv_source(volume: PersistentVolume, raw: Document) -> list[FieldError]:
    spec = volume.spec
    errors: list[FieldError] = []
    for name in raw:
        if name in _OTHER_SOURCES:
            known = ", ".join(sorted(PV_SOURCES))
            text = f"volagent has no driver for it yet; it has {known}"
            errors.append(forbidden(f"spec.{name}", text))
    given = [
        (name, getattr(spec, attribute), validate)
        for name, attribute, validate in _SOURCES
        if getattr(spec, attribute) is not None
    ]
    if not given and not errors:
        errors.append(required("spec", "must specify a volume type"))
    errors += [
        forbidden(f"spec.{name}", "may not specify more than 1 volume type")
        for name, _, _ in given[1:]
    ]
    for name, source, validate in given:
        errors += validate(source, f"spec.{name}")
    return errors + _validate_partition(volume)


def _validate_partition(volume: PersistentVolume) -> list[FieldError]:
    given = (volume.metadata.annotations or {}).get(PARTITION)
    field = f"metadata.annotations[{PARTITION}]"
    if given is None:
        return []
    if volume.spec.iscsi is None:
        return [forbidden(field, "is for spec.iscsi; other disks have a field or an attribute")]
    if given.isascii() and given.isdigit() and 0 < int(given[:6]) <= PARTITION_MAX:
        return []
    return [invalid(field, given, f"must be between 1 and {PARTITION_MAX}, inclusive")]


def _validate_local(source: LocalSource, field: str) -> list[FieldError]:
    if not source.path:
        return [required(f"{field}.path")]
    reasons = check_absolute_path(source.path)
    return [invalid(f"{field}.path", source.path, reason) for reason in reasons]


def _validate_csi(source: CSISource, field: str) -> list[FieldError]:
    errors = validate_driver_name(source.driver, f"{field}.driver")
    if not source.volume_handle:
        errors.append(required(f"{field}.volumeHandle"))
    for name, reference in (
        ("controllerPublishSecretRef", source.controller_publish_secret_ref),
        ("nodeStageSecretRef", source.node_stage_secret_ref),
        ("nodePublishSecretRef", source.node_publish_secret_ref),
        ("nodeExpandSecretRef", source.node_expand_secret_ref),
    ):
        if reference is None:
            continue
        if not reference.name:
            errors.append(required(f"{field}.{name}.name"))
        if isinstance(reference, SecretReference) and not reference.namespace:
            errors.append(required(f"{field}.{name}.namespace"))
    return errors


_SOURCES: tuple[tuple[str, str, Callable[[Any, str], list[FieldError]]], ...] = (
    ("nfs", "nfs", validate_nfs),
    ("local", "local", _validate_local),
    ("hostPath", "host_path", validate_host_path),
    ("csi", "csi", _validate_csi),
    ("awsElasticBlockStore", "aws_elastic_block_store", validate_ebs),
    ("iscsi", "iscsi", validate_persistent_iscsi),
)


def _validate_affinity(affinity: _NodeAffinity) -> list[FieldError]:
    field = "spec.nodeAffinity.required"
    if affinity.required is None:
        return [required(field, "must specify required node constraints")]
    terms = affinity.required.node_selector_terms
    if not terms:
        text = "must have at least one node selector term"
        return [required(f"{field}.nodeSelectorTerms", text)]
    errors: list[FieldError] = []
    for index, term in enumerate(terms):
        for group, requirements in (
            ("matchExpressions", term.match_expressions), ("matchFields", term.match_fields),
        ):  # fmt: skip
            for position, requirement in enumerate(requirements or ()):
                where = f"{field}.nodeSelectorTerms[{index}].{group}[{position}]"
                errors += _validate_requirement(requirement, where)
    return errors


def _validate_requirement(requirement: _Requirement, field: str) -> list[FieldError]:
    errors: list[FieldError] = []
    if not requirement.key:
        errors.append(required(f"{field}.key"))
    operator, values = requirement.operator, requirement.values
    if operator not in _OPERATORS:
        errors.append(not_supported(f"{field}.operator", operator, _OPERATORS))
    elif operator in ("In", "NotIn") and not values:
        text = "must be specified when `operator` is 'In' or 'NotIn'"
        errors.append(required(f"{field}.values", text))
    elif operator in ("Exists", "DoesNotExist") and values:
        text = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
        errors.append(forbidden(f"{field}.values", text))
    elif operator in ("Gt", "Lt") and len(values or ()) != 1:
        text = "must be specified single value when `operator` is 'Lt' or 'Gt'"
        errors.append(required(f"{field}.values", text))
    return errors


def validate_volume_change(old: Document, new: Document) -> list[FieldError]:
    """What may not change between two valid PersistentVolumes (both with defaults)."""
    before, after = old["spec"], new["spec"]
    errors: list[FieldError] = []
    sources = PV_SOURCES.keys() | _OTHER_SOURCES
    if {k: v for k, v in before.items() if k in sources} != {
        k: v for k, v in after.items() if k in sources
    }:
        text = "spec.persistentvolumesource is immutable after creation"
        errors.append(forbidden("spec.persistentvolumesource", text))
    if before.get("volumeMode") != after.get("volumeMode"):
        errors.append(invalid("spec.volumeMode", after.get("volumeMode"), "field is immutable"))
    held = before.get("nodeAffinity")
    if held is not None and held != after.get("nodeAffinity"):
        errors.append(invalid("spec.nodeAffinity", after.get("nodeAffinity"), "field is immutable"))
    return errors


def validate_claim(claim: PersistentVolumeClaim, document: Document) -> list[FieldError]:
    """What is wrong with a PersistentVolumeClaim."""
    errors = validate_metadata(claim.metadata, namespaced=True)
    spec, raw = claim.spec, document.get("spec") or {}
    errors += _validate_access_modes(spec.access_modes, "spec.accessModes")
    errors += _validate_volume_mode(spec.volume_mode)
    errors += _validate_class(spec.storage_class_name)
    requests = (spec.resources.requests if spec.resources is not None else None) or {}
    if "storage" not in requests:
        errors.append(required("spec.resources[storage]"))
    else:
        errors += _validate_positive(requests["storage"], "spec.resources[storage]")
    for name, amount in ((spec.resources.limits if spec.resources else None) or {}).items():
        errors += _validate_positive(amount, f"spec.resources.limits[{name}]")
    for name, amount in requests.items():
        if name != "storage":
            errors += _validate_positive(amount, f"spec.resources.requests[{name}]")
    if spec.volume_name:
        reasons = check_subdomain(spec.volume_name)
        errors += [invalid("spec.volumeName", spec.volume_name, reason) for reason in reasons]
    selector = read_optional(raw, "selector", _LabelSelector, "spec.selector")
    for index, requirement in enumerate((selector and selector.match_expressions) or ()):
        where = f"spec.selector.matchExpressions[{index}]"
        errors += _validate_requirement(requirement, where)
    if "dataSource" in raw or "dataSourceRef" in raw:
        errors += _validate_data_sources(raw)
    return errors


def _validate_data_sources(raw: Document) -> list[FieldError]:
    source = read_optional(raw, "dataSource", TypedReference, "spec.dataSource")
    reference = read_optional(raw, "dataSourceRef", TypedReference, "spec.dataSourceRef")
    errors: list[FieldError] = []
    for field, given in (("spec.dataSource", source), ("spec.dataSourceRef", reference)):
        if given is not None:
            errors += _validate_reference(given, field)
    if source is None or reference is None or errors:
        return errors
    if reference.namespace:
        text = "may not be specified when dataSourceRef.namespace is specified"
        return [invalid("spec", "spec.dataSource", text)]
    if source != reference:
        return [invalid("spec", "spec.dataSource", "must match dataSourceRef")]
    return []


def _validate_reference(given: TypedReference, field: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for name, value in (("name", given.name), ("kind", given.kind)):
        if not value:
            errors.append(required(f"{field}.{name}"))
    if given.api_group:
        reasons = check_subdomain(given.api_group)
        errors += [invalid(f"{field}.apiGroup", given.api_group, reason) for reason in reasons]
    elif given.kind and given.kind != "PersistentVolumeClaim":
        text = "must be 'PersistentVolumeClaim' when referencing the default apiGroup"
        errors.append(invalid(field, given.kind, text))
    return errors


def validate_claim_change(old: Document, new: Document) -> list[FieldError]:
    """What may not change between two valid claims; whether one may grow is its class's word."""
    before, after = old["spec"], new["spec"]
    if before == after:
        return []
    bound = (old.get("status") or {}).get("phase") == "Bound"
    errors: list[FieldError] = []
    if _fixed_part(before, before, bound=bound) != _fixed_part(after, before, bound=bound):
        errors.append(forbidden("spec", _CLAIM_MUTABLE))
    held, wanted = _requested(before), _requested(after)
    if bound and wanted != held:
        capacity = ((old.get("status") or {}).get("capacity") or {}).get("storage", held)
        field = "spec.resources.requests.storage"
        if read_amount(wanted, field) < read_amount(capacity, "status.capacity.storage"):
            errors.append(forbidden(field, "field can not be less than status.capacity"))
    return errors


def _requested(spec: Document) -> Amount:
    amount: Amount = spec["resources"]["requests"]["storage"]
    return amount


def _fixed_part(spec: Document, before: Document, *, bound: bool) -> Document:
    """The spec without what may change."""
    fixed: Document = {**spec}
    fixed.pop("volumeAttributesClassName", None)
    if not before.get("volumeName"):
        fixed.pop("volumeName", None)  # set once, by whoever binds the claim
    if before.get("storageClassName") is None:
        fixed.pop("storageClassName", None)  # left open: a default class may come
        if before.get("storageClassName") is None:
            fixed.pop("storageClassName", None)  # a default class that came later
    if bound:
        resources = {**fixed["resources"]}
        resources["requests"] = {**resources["requests"], "storage": ""}
        fixed["resources"] = resources
    return fixed
