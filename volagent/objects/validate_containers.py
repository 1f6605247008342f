"""Rules for the containers of a pod: names, images, variables, and where volumes appear in them.

Source: Kubernetes `pkg/apis/core/validation/validation.go` (`validateContainers` and below).
"""

from collections.abc import Mapping, Sequence

from volagent.objects.field_errors import (
    FieldError,
    duplicate,
    forbidden,
    invalid,
    not_found,
    not_supported,
    required,
)
from volagent.objects.names import (
    check_backsteps,
    check_config_key,
    check_label,
    check_relative_path,
    check_variable,
)
from volagent.objects.pod import (
    Container,
    EnvVar,
    EnvVarSource,
    PodSpec,
    ResourceRequirements,
    SecurityContext,
    VolumeDevice,
    VolumeMount,
)
from volagent.objects.quantities import check_amount, read_amount
from volagent.objects.validate_volumes import validate_field_ref, validate_resource_ref
from volagent.objects.volumes import Volume

PULL_POLICIES = frozenset({"Always", "IfNotPresent", "Never"})
PROPAGATIONS = frozenset({"None", "HostToContainer", "Bidirectional"})
RECURSIVE_READ_ONLY = frozenset({"Disabled", "IfPossible", "Enabled"})
MAX_ID = 2**31 - 1
_VARIABLE_FIELDS = frozenset(
    {"metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName",
     "spec.serviceAccountName", "status.hostIP", "status.hostIPs", "status.podIP",
     "status.podIPs"}
)  # fmt: skip


def validate_containers(spec: PodSpec) -> list[FieldError]:
    """What is wrong with the containers and init containers of a pod."""
    errors: list[FieldError] = []
    volumes = {volume.name: volume for volume in spec.volumes or ()}
    if not spec.containers:
        errors.append(required("spec.containers"))
    names: set[str] = set()
    for group, containers in (
        ("initContainers", spec.init_containers or ()), ("containers", spec.containers),
    ):  # fmt: skip
        for index, container in enumerate(containers):
            field = f"spec.{group}[{index}]"
            errors += _validate_name(container.name, names, f"{field}.name")
            errors += _validate_container(container, volumes, field)
            if container.restart_policy is not None:
                errors += _validate_restart(container.restart_policy, group, field)
    return errors


def validate_id(value: int | None, field: str) -> list[FieldError]:
    """A user or group id, if one is given."""
    if value is None or 0 <= value <= MAX_ID:
        return []
    return [invalid(field, value, f"must be between 0 and {MAX_ID}, inclusive")]


def _validate_name(name: str, seen: set[str], field: str) -> list[FieldError]:
    if not name:
        return [required(field)]
    if name in seen:
        return [duplicate(field, name)]
    seen.add(name)
    return [invalid(field, name, reason) for reason in check_label(name)]


def _validate_restart(policy: str, group: str, field: str) -> list[FieldError]:
    where = f"{field}.restartPolicy"
    if group == "containers":
        return [forbidden(where, "may not be set for non-init containers")]
    return [] if policy == "Always" else [not_supported(where, policy, ("Always",))]


def _validate_container(
    container: Container, volumes: Mapping[str, Volume], field: str
) -> list[FieldError]:
    errors: list[FieldError] = []
    image = container.image
    if not image:
        errors.append(required(f"{field}.image"))
    elif image != image.strip():
        text = "must not have leading or trailing whitespace"
        errors.append(invalid(f"{field}.image", image, text))
    policy = container.image_pull_policy
    if policy and policy not in PULL_POLICIES:
        errors.append(not_supported(f"{field}.imagePullPolicy", policy, PULL_POLICIES))
    for index, variable in enumerate(container.env or ()):
        errors += _validate_variable(variable, f"{field}.env[{index}]")
    errors += _validate_env_from(container, field)
    if container.volume_mounts:
        errors += _validate_mounts(container, container.volume_mounts, volumes, field)
    if container.volume_devices:
        errors += _validate_devices(container, container.volume_devices, volumes, field)
    if container.resources is not None:
        errors += _validate_resources(container.resources, f"{field}.resources")
    if container.security_context is not None:
        errors += _validate_security(container.security_context, f"{field}.securityContext")
    return errors


def _validate_mounts(
    container: Container,
    mounts: Sequence[VolumeMount],
    volumes: Mapping[str, Volume],
    container_field: str,
) -> list[FieldError]:
    errors: list[FieldError] = []
    paths: set[str] = set()
    devices = {device.device_path: device.name for device in container.volume_devices or ()}
    for index, mount in enumerate(mounts):
        field = f"{container_field}.volumeMounts[{index}]"
        if not mount.name:
            errors.append(required(f"{field}.name"))
        elif mount.name not in volumes:
            errors.append(not_found(f"{field}.name", mount.name))
        path = mount.mount_path
        if not path:
            errors.append(required(f"{field}.mountPath"))
        else:
            where = f"{field}.mountPath"
            if ":" in path:
                errors.append(invalid(where, path, "must not contain ':'"))
            errors += [invalid(where, path, reason) for reason in check_backsteps(path)]
            place = path.rstrip("/")
            if place in paths:
                errors.append(invalid(where, path, "must be unique"))
            paths.add(place)
            if path in devices:
                text = "must not already exist as a path in volumeDevices"
                errors.append(invalid(where, path, text))
        if mount.name in devices.values():
            text = "must not already exist in volumeDevices"
            errors.append(invalid(f"{field}.name", mount.name, text))
        errors += _validate_sub_path(mount, field)
        if mount.mount_propagation is not None:
            errors += _validate_propagation(mount.mount_propagation, container, field)
        if mount.recursive_read_only is not None:
            errors += _validate_recursive(mount, f"{field}.recursiveReadOnly")
    return errors


def _validate_sub_path(mount: VolumeMount, field: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for name, path in (("subPath", mount.sub_path), ("subPathExpr", mount.sub_path_expr)):
        if path:
            where = f"{field}.{name}"
            errors += [invalid(where, path, reason) for reason in check_relative_path(path)]
    if mount.sub_path and mount.sub_path_expr:
        text = "subPathExpr and subPath are mutually exclusive"
        errors.append(invalid(f"{field}.subPathExpr", mount.sub_path_expr, text))
    return errors


def _validate_propagation(propagation: str, container: Container, field: str) -> list[FieldError]:
    where = f"{field}.mountPropagation"
    if propagation not in PROPAGATIONS:
        return [not_supported(where, propagation, PROPAGATIONS)]
    context = container.security_context
    if propagation == "Bidirectional" and not (context is not None and context.privileged):
        text = "Bidirectional mount propagation is available only to privileged containers"
        return [forbidden(where, text)]
    return []


def _validate_recursive(mount: VolumeMount, field: str) -> list[FieldError]:
    wanted = mount.recursive_read_only or ""
    if wanted not in RECURSIVE_READ_ONLY:
        return [not_supported(field, wanted, RECURSIVE_READ_ONLY)]
    if wanted == "Disabled":
        return []
    errors = []
    if not mount.read_only:
        errors.append(forbidden(field, "may only be specified when readOnly is true"))
    if mount.mount_propagation not in (None, "None"):
        text = "may only be specified when mountPropagation is None or not specified"
        errors.append(forbidden(field, text))
    return errors


def _validate_devices(
    container: Container,
    devices: Sequence[VolumeDevice],
    volumes: Mapping[str, Volume],
    container_field: str,
) -> list[FieldError]:
    errors: list[FieldError] = []
    names: set[str] = set()
    paths: set[str] = set()
    mount_paths = {mount.mount_path for mount in container.volume_mounts or ()}
    for index, device in enumerate(devices):
        field = f"{container_field}.volumeDevices[{index}]"
        volume = volumes.get(device.name)
        if not device.name:
            errors.append(required(f"{field}.name"))
        elif volume is None:
            errors.append(not_found(f"{field}.name", device.name))
        elif volume.persistent_volume_claim is None and volume.ephemeral is None:
            text = "can only use volume source type of PersistentVolumeClaim for block mode"
            errors.append(invalid(f"{field}.name", device.name, text))
        if device.name in names:
            errors.append(invalid(f"{field}.name", device.name, "must be unique"))
        names.add(device.name)
        path, where = device.device_path, f"{field}.devicePath"
        if not path:
            errors.append(required(where))
            continue
        errors += [invalid(where, path, reason) for reason in check_backsteps(path)]
        if path in paths:
            errors.append(invalid(where, path, "must be unique"))
        paths.add(path)
        if path in mount_paths:
            errors.append(invalid(where, path, "must not already exist as a path in volumeMounts"))
    return errors


def _validate_variable(variable: EnvVar, field: str) -> list[FieldError]:
    if not variable.name:
        return [required(f"{field}.name")]
    reasons = check_variable(variable.name)
    errors = [invalid(f"{field}.name", variable.name, reason) for reason in reasons]
    if "\0" in variable.value:
        errors.append(invalid(f"{field}.value", variable.value, "must not contain a NUL character"))
    if variable.value_from is not None:
        where = f"{field}.valueFrom"
        if variable.value:
            errors.append(invalid(where, "", "may not be specified when `value` is not empty"))
        errors += _validate_value_source(variable.value_from, where)
    return errors


def _validate_value_source(source: EnvVarSource, field: str) -> list[FieldError]:
    errors: list[FieldError] = []
    given = 0
    if source.field_ref is not None:
        given += 1
        errors += validate_field_ref(source.field_ref, _VARIABLE_FIELDS, f"{field}.fieldRef")
    if source.resource_field_ref is not None:
        given += 1
        where = f"{field}.resourceFieldRef"
        errors += validate_resource_ref(source.resource_field_ref, where, container_needed=False)
    for name, selector in (
        ("configMapKeyRef", source.config_map_key_ref), ("secretKeyRef", source.secret_key_ref),
    ):  # fmt: skip
        if selector is None:
            continue
        given += 1
        if not selector.name:
            errors.append(required(f"{field}.{name}.name"))
        if not selector.key:
            errors.append(required(f"{field}.{name}.key"))
        else:
            where = f"{field}.{name}.key"
            errors += [invalid(where, selector.key, r) for r in check_config_key(selector.key)]
    if given != 1:
        kinds = "`fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`"
        text = "may not have more than one field specified at a time"
        errors.append(invalid(field, "", text if given else f"must specify one of: {kinds}"))
    return errors


def _validate_env_from(container: Container, container_field: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, source in enumerate(container.env_from or ()):
        field = f"{container_field}.envFrom[{index}]"
        if source.prefix:
            reasons = check_variable(source.prefix)
            errors += [invalid(f"{field}.prefix", source.prefix, reason) for reason in reasons]
        given = {"configMapRef": source.config_map_ref, "secretRef": source.secret_ref}
        named = {name: reference for name, reference in given.items() if reference is not None}
        if len(named) != 1:
            text = "may not have more than one field specified at a time"
            none = "must specify one of: `configMapRef` or `secretRef`"
            errors.append(invalid(field, "", text if named else none))
        errors += [required(f"{field}.{name}.name") for name, ref in named.items() if not ref.name]
    return errors


def _validate_resources(resources: ResourceRequirements, field: str) -> list[FieldError]:
    errors: list[FieldError] = []
    limits, requests = resources.limits or {}, resources.requests or {}
    for group, amounts in (("limits", limits), ("requests", requests)):
        for name, amount in amounts.items():
            errors += check_amount(amount, f"{field}.{group}[{name}]")
    for name, amount in requests.items():
        if name not in limits:
            continue
        where = f"{field}.requests[{name}]"
        if read_amount(amount, where) > read_amount(limits[name], where):
            text = f"must be less than or equal to {name} limit of {limits[name]}"
            errors.append(invalid(f"{field}.requests", str(amount), text))
    return errors


def _validate_security(context: SecurityContext, field: str) -> list[FieldError]:
    errors = validate_id(context.run_as_user, f"{field}.runAsUser")
    errors += validate_id(context.run_as_group, f"{field}.runAsGroup")
    if context.privileged and context.allow_privilege_escalation is False:
        text = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"
        errors.append(invalid(field, "", text))
    return errors
