"""Rules for the volumes of a pod, one function per kind of source.

Source: Kubernetes `pkg/apis/core/validation/validation.go` (`ValidateVolumes` and below). A kind
that volagent has no driver for is refused by its name, so that nobody waits for it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from volagent.objects.field_errors import (
    FieldError,
    duplicate,
    forbidden,
    invalid,
    not_supported,
    required,
)
from volagent.objects.meta import Document
from volagent.objects.names import (
    Reasons,
    check_absolute_path,
    check_config_key,
    check_label,
    check_relative_path,
    check_subdomain,
)
from volagent.objects.quantities import check_amount
from volagent.objects.validate_iscsi import validate_iscsi
from volagent.objects.volumes import (
    ClaimSource,
    ConfigMapSource,
    DownwardAPISource,
    DownwardItem,
    EBSSource,
    EmptyDirSource,
    EphemeralSource,
    HostPathSource,
    InlineCSISource,
    KeyToPath,
    NFSSource,
    ObjectFieldSelector,
    OtherSources,
    ProjectedSource,
    Projection,
    ResourceFieldSelector,
    SecretSource,
    Volume,
)

HOST_PATH_TYPES = frozenset(
    {"", "DirectoryOrCreate", "Directory", "FileOrCreate", "File", "Socket", "CharDevice",
     "BlockDevice"}
)  # fmt: skip
SOURCE_FIELDS: dict[str, str] = {
    field.encode_name: field.name
    for field in msgspec.structs.fields(Volume)
    if field.name != "name"
}
"""JSON name → attribute of the sources that have drivers."""

_OTHER_SOURCES = frozenset(f.encode_name for f in msgspec.structs.fields(OtherSources))
_MEDIA = ("", "Memory", "HugePages")
_DRIVER_LIMIT_CHARS = 63
_MIN_TOKEN_LIFE_S, _MAX_TOKEN_LIFE_S = 600, 2**32
_DOWNWARD_FIELDS = frozenset(
    {"metadata.name", "metadata.namespace", "metadata.uid", "metadata.labels",
     "metadata.annotations"}
)  # fmt: skip
_RESOURCES = frozenset(
    f"{kind}.{name}"
    for kind in ("limits", "requests")
    for name in ("cpu", "memory", "ephemeral-storage")
)


def validate_volumes(volumes: Sequence[Volume], raw: Sequence[Document]) -> list[FieldError]:
    """What is wrong with `spec.volumes`; `raw` are the same volumes as given."""
    errors: list[FieldError] = []
    seen: set[str] = set()
    for index, volume in enumerate(volumes):
        field = f"spec.volumes[{index}]"
        if not volume.name:
            errors.append(required(f"{field}.name"))
        elif volume.name in seen:
            errors.append(duplicate(f"{field}.name", volume.name))
        else:
            seen.add(volume.name)
            errors += [
                invalid(f"{field}.name", volume.name, reason) for reason in check_label(volume.name)
            ]
        errors += _validate_source(volume, raw[index], field)
    return errors


def _validate_source(volume: Volume, raw: Document, field: str) -> list[FieldError]:
    errors: list[FieldError] = []
    found = 0
    for name in raw:
        if name == "name":
            continue
        where = f"{field}.{name}"
        attribute = SOURCE_FIELDS.get(name)
        if attribute is None:
            known = name in _OTHER_SOURCES
            text = "volagent has no driver for it yet" if known else "unknown kind of volume"
            errors.append(forbidden(where, f"{text}; it has {', '.join(sorted(SOURCE_FIELDS))}"))
            continue
        source = getattr(volume, attribute)
        if source is None:
            continue
        found += 1
        if found > 1:
            errors.append(forbidden(where, "may not specify more than 1 volume type"))
        else:
            errors += _VALIDATE[name](source, where)
    return errors


def validate_mode(mode: int | None, field: str) -> list[FieldError]:
    """A file mode, if one is given."""
    if mode is None or 0 <= mode <= 0o777:
        return []
    text = "must be a number between 0 and 0777 (octal), both inclusive"
    return [invalid(field, mode, text)]


def _validate_empty_dir(source: EmptyDirSource, field: str) -> list[FieldError]:
    errors: list[FieldError] = []
    if source.medium not in _MEDIA and not source.medium.startswith("HugePages-"):
        errors.append(
            not_supported(f"{field}.medium", source.medium, (*_MEDIA, "HugePages-<size>"))
        )
    if source.size_limit is not None:
        errors += check_amount(source.size_limit, f"{field}.sizeLimit")
    return errors


def validate_host_path(source: HostPathSource, field: str) -> list[FieldError]:
    """`hostPath`, of a pod or a PersistentVolume."""
    errors = _validate_path(source.path, f"{field}.path", check_absolute_path)
    if source.type is not None and source.type not in HOST_PATH_TYPES:
        errors.append(not_supported(f"{field}.type", source.type, HOST_PATH_TYPES))
    return errors


def _validate_secret(source: SecretSource, field: str) -> list[FieldError]:
    errors = [] if source.secret_name else [required(f"{field}.secretName")]
    errors += validate_mode(source.default_mode, f"{field}.defaultMode")
    return errors + _validate_items(source.items, f"{field}.items")


def _validate_config_map(source: ConfigMapSource, field: str) -> list[FieldError]:
    errors = [] if source.name else [required(f"{field}.name")]
    errors += validate_mode(source.default_mode, f"{field}.defaultMode")
    return errors + _validate_items(source.items, f"{field}.items")


def _validate_items(items: Sequence[KeyToPath] | None, field: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, item in enumerate(items or ()):
        where = f"{field}[{index}]"
        if not item.key:
            errors.append(required(f"{where}.key"))
        else:
            errors += [invalid(f"{where}.key", item.key, r) for r in check_config_key(item.key)]
        errors += _validate_payload_path(item.path, f"{where}.path")
        errors += validate_mode(item.mode, f"{where}.mode")
    return errors


def _validate_payload_path(path: str, field: str) -> list[FieldError]:
    """A file's path below a volume that volagent fills: names that start with `..` are its own."""
    errors = _validate_path(path, field, check_relative_path)
    if not errors and path.startswith(".."):
        errors.append(invalid(field, path, "must not start with '..'"))
    return errors


def _validate_path(path: str, field: str, check: Callable[[str], Reasons]) -> list[FieldError]:
    if not path:
        return [required(field)]
    return [invalid(field, path, reason) for reason in check(path)]


def _validate_downward(source: DownwardAPISource, field: str) -> list[FieldError]:
    errors = validate_mode(source.default_mode, f"{field}.defaultMode")
    for index, item in enumerate(source.items or ()):
        errors += _validate_downward_item(item, f"{field}.items[{index}]")
    return errors


def _validate_downward_item(item: DownwardItem, field: str) -> list[FieldError]:
    errors = _validate_payload_path(item.path, f"{field}.path")
    errors += validate_mode(item.mode, f"{field}.mode")
    if item.field_ref is not None:
        errors += validate_field_ref(item.field_ref, _DOWNWARD_FIELDS, f"{field}.fieldRef")
        if item.resource_field_ref is not None:
            text = "fieldRef and resourceFieldRef can not be specified simultaneously"
            errors.append(invalid(field, "resource", text))
    elif item.resource_field_ref is not None:
        where = f"{field}.resourceFieldRef"
        errors += validate_resource_ref(item.resource_field_ref, where, container_needed=True)
    else:
        errors.append(
            required(f"{field}.fieldRef", "one of fieldRef and resourceFieldRef is required")
        )
    return errors


def validate_field_ref(
    reference: ObjectFieldSelector, supported: frozenset[str], field: str
) -> list[FieldError]:
    """A reference to a field of the pod, with `metadata.labels['key']` as well."""
    where, path = f"{field}.fieldPath", reference.field_path
    if not path:
        return [required(where)]
    if reference.api_version and reference.api_version != "v1":
        return [
            invalid(where, path, f"error converting fieldPath: no version {reference.api_version}")
        ]
    name, bracket, subscript = path.partition("['")
    if bracket and subscript.endswith("']") and name in ("metadata.labels", "metadata.annotations"):
        return []
    return [] if path in supported else [not_supported(where, path, supported)]


def validate_resource_ref(
    reference: ResourceFieldSelector, field: str, *, container_needed: bool
) -> list[FieldError]:
    """A reference to a container's limit or request."""
    errors: list[FieldError] = []
    if container_needed and not reference.container_name:
        errors.append(required(f"{field}.containerName"))
    resource = reference.resource
    if not resource:
        errors.append(required(f"{field}.resource"))
    elif resource not in _RESOURCES and ".hugepages-" not in resource:
        errors.append(not_supported(f"{field}.resource", resource, _RESOURCES))
    return errors + check_amount(reference.divisor, f"{field}.divisor")


def _validate_projected(source: ProjectedSource, field: str) -> list[FieldError]:
    errors = validate_mode(source.default_mode, f"{field}.defaultMode")
    paths: set[str] = set()
    for index, projection in enumerate(source.sources or ()):
        errors += _validate_projection(projection, f"{field}.sources[{index}]", paths)
    return errors


def _validate_projection(projection: Projection, field: str, paths: set[str]) -> list[FieldError]:
    """One source; `paths` are the explicit ones of those before it."""
    errors: list[FieldError] = []
    items: Sequence[KeyToPath | DownwardItem] = ()
    given = 0
    if projection.secret is not None:
        given, items = given + 1, projection.secret.items or ()
        if not projection.secret.name:
            errors.append(required(f"{field}.secret.name"))
        errors += _validate_items(projection.secret.items, f"{field}.secret.items")
    if projection.config_map is not None:
        given, items = given + 1, projection.config_map.items or ()
        errors += _validate_config_map(projection.config_map, f"{field}.configMap")
    if projection.downward_api is not None:
        given, items = given + 1, projection.downward_api.items or ()
        errors += _validate_downward(projection.downward_api, f"{field}.downwardAPI")
    token = projection.service_account_token
    if token is not None:
        given += 1
        where = f"{field}.serviceAccountToken"
        errors += _validate_payload_path(token.path, f"{where}.path")
        life_s = token.expiration_seconds
        if life_s is not None and not _MIN_TOKEN_LIFE_S <= life_s <= _MAX_TOKEN_LIFE_S:
            text = "may not specify a duration less than 10 minutes"
            if life_s > _MAX_TOKEN_LIFE_S:
                text = "may not specify a duration larger than 2^32 seconds"
            errors.append(invalid(f"{where}.expirationSeconds", life_s, text))
    if given == 0:
        kinds = "secret, configMap, downwardAPI or serviceAccountToken"
        errors.append(required(field, f"one of {kinds} is required"))
    elif given > 1:
        errors.append(forbidden(field, "may not specify more than 1 volume type"))
    explicit = [item.path for item in items] + ([token.path] if token is not None else [])
    for path in explicit:
        if path in paths:
            errors.append(invalid(field, path, "conflicting duplicate paths"))
        paths.add(path)
    return errors


def validate_nfs(source: NFSSource, field: str) -> list[FieldError]:
    """`nfs`, of a pod or a PersistentVolume."""
    errors: list[FieldError] = []
    if not source.server:
        errors.append(required(f"{field}.server"))
    elif any(char.isspace() or char in "/\0," for char in source.server):
        errors.append(invalid(f"{field}.server", source.server, "must be a host name or address"))
    return errors + _validate_path(source.path, f"{field}.path", check_absolute_path)


def validate_ebs(source: EBSSource, field: str) -> list[FieldError]:
    """`awsElasticBlockStore`, of a pod or a PersistentVolume."""
    errors = [] if source.volume_id else [required(f"{field}.volumeID")]
    if source.partition is not None and not 0 <= source.partition <= 255:
        text = "must be between 0 and 255, inclusive"
        errors.append(invalid(f"{field}.partition", source.partition, text))
    return errors


def validate_driver_name(driver: str, field: str) -> list[FieldError]:
    """The name of a CSI driver."""
    if not driver:
        return [required(field)]
    errors = [invalid(field, driver, reason) for reason in check_subdomain(driver.lower())]
    if len(driver) > _DRIVER_LIMIT_CHARS:
        text = f"must be no more than {_DRIVER_LIMIT_CHARS} characters"
        errors.append(invalid(field, driver, text))
    return errors


def _validate_csi(source: InlineCSISource, field: str) -> list[FieldError]:
    errors = validate_driver_name(source.driver, f"{field}.driver")
    secret = source.node_publish_secret_ref
    if secret is not None and not secret.name:
        errors.append(required(f"{field}.nodePublishSecretRef.name"))
    return errors


def _validate_claim(source: ClaimSource, field: str) -> list[FieldError]:
    if not source.claim_name:
        return [required(f"{field}.claimName")]
    reasons = check_subdomain(source.claim_name)
    return [invalid(f"{field}.claimName", source.claim_name, reason) for reason in reasons]


def _validate_ephemeral(source: EphemeralSource, field: str) -> list[FieldError]:
    """That there is a claim to be made; the rest is checked when it is."""
    template = source.volume_claim_template
    if template is None:
        return [required(f"{field}.volumeClaimTemplate")]
    field = f"{field}.volumeClaimTemplate"
    if template.spec is None:
        return [required(f"{field}.spec")]
    errors: list[FieldError] = []
    if not template.spec.get("accessModes"):
        text = "at least 1 access mode is required"
        errors.append(required(f"{field}.spec.accessModes", text))
    resources = template.spec.get("resources")
    requests = resources.get("requests") if isinstance(resources, dict) else None
    if not isinstance(requests, dict) or "storage" not in requests:
        errors.append(required(f"{field}.spec.resources[storage]"))
    return errors + [
        forbidden(f"{field}.metadata.{name}", "only labels and annotations can be given")
        for name in template.metadata or ()
        if name not in ("labels", "annotations", "creationTimestamp")
    ]


_VALIDATE: dict[str, Callable[[Any, str], list[FieldError]]] = {
    "emptyDir": _validate_empty_dir,
    "hostPath": validate_host_path,
    "secret": _validate_secret,
    "configMap": _validate_config_map,
    "downwardAPI": _validate_downward,
    "projected": _validate_projected,
    "nfs": validate_nfs,
    "awsElasticBlockStore": validate_ebs,
    "iscsi": validate_iscsi,
    "csi": _validate_csi,
    "persistentVolumeClaim": _validate_claim,
    "ephemeral": _validate_ephemeral,
}
