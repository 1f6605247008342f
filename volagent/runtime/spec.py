"""From a declared container to what a runtime is told: mounts, devices, user, environment. Pure.

The mount rules (source: the kubelet's `makeMounts`, and observed on a real one):

- a relative `mountPath` becomes absolute; shallow destinations come before deep ones, so that a
  mount below another one is not hidden by it;
- read-only if the mount, the claim or the volume says so; volumes filled from the API always are;
- `mountPropagation` None → `rprivate`, HostToContainer → `rslave`, Bidirectional → `rshared`.

An unset user stays unset: the runtime then takes the image's own user, which is what a kubelet
finds out by asking for the image first (and sends as 0 when the image has none: the same thing).
"""

from collections.abc import Iterator, Mapping
from typing import Any

from volagent.objects.pod import Container, Pod, PodSecurityContext, SecurityContext, VolumeMount
from volagent.objects.quantity import QuantityError, parse_bytes, parse_quantity
from volagent.runtime.contract import (
    ContainerSpec,
    DeviceSpec,
    HandedVolume,
    OciMount,
    PullPolicy,
    SecurityOptions,
    SpecError,
    SubPathUse,
)
from volagent.runtime.env import Objects, resolve_env
from volagent.runtime.expand import UndefinedVariable, expand, expand_strictly

HOSTNAME_MAX = 63
_PROPAGATION = {
    None: "rprivate",
    "None": "rprivate",
    "HostToContainer": "rslave",
    "Bidirectional": "rshared",
}
_NO_CONTEXT = SecurityContext()
_NO_POD_CONTEXT = PodSecurityContext()


def needed_volumes(pod: Pod) -> frozenset[str]:
    """The pod's names of the volumes that some container mounts; the others are not set up."""
    names: set[str] = set()
    for container in all_containers(pod):
        for mount in container.volume_mounts or ():
            names.add(mount.name)
        for device in container.volume_devices or ():
            names.add(device.name)
    return frozenset(names)


def all_containers(pod: Pod) -> Iterator[Container]:
    """Init containers in their order, then the others."""
    yield from pod.spec.init_containers or ()
    yield from pod.spec.containers


def sub_path_uses(
    pod: Pod, objects: Objects
) -> tuple[tuple[SubPathUse, ...], tuple[SpecError, ...]]:
    """The sub-paths that the pod's containers mount, and those that cannot be made out."""
    uses: list[SubPathUse] = []
    errors: list[SpecError] = []
    for container in all_containers(pod):
        for index, mount in enumerate(container.volume_mounts or ()):
            if not mount.sub_path and not mount.sub_path_expr:
                continue
            try:
                path = expand_sub_path(pod, container, index, objects)
            except SpecError as error:
                errors.append(error)
                continue
            if path:
                uses.append(SubPathUse(mount.name, container.name, index, path))
    return tuple(uses), tuple(errors)


def expand_sub_path(pod: Pod, container: Container, index: int, objects: Objects) -> str:
    """The path inside the volume that one mount wants; "" for the whole volume.

    Raises `SpecError`, for a variable that the container does not have among others.
    """
    mount = (container.volume_mounts or [])[index]
    path, where = mount.sub_path, f"{container.name}.volumeMounts[{index}]"
    if not path:
        where = f"{where}.subPathExpr"
        try:
            path = expand_strictly(mount.sub_path_expr, resolve_env(pod, container, objects))
        except UndefinedVariable as error:
            raise SpecError(
                where, f"failed to expand subPath expression `{mount.sub_path_expr}`: {error}"
            ) from error
    else:
        where = f"{where}.subPath"
    if path.startswith("/"):
        raise SpecError(where, f"error SubPath `{path}` must not be an absolute path")
    if ".." in path and ".." in path.split("/"):
        raise SpecError(where, f"unable to provision SubPath `{path}`: must not contain '..'")
    return path


def build_mounts(
    pod: Pod,
    container: Container,
    volumes: Mapping[str, HandedVolume],
    objects: Objects,
    *,
    recursive_read_only: bool = False,
) -> tuple[OciMount, ...]:
    """The mounts of one container, shallow destinations first.

    `recursive_read_only` says whether the runtime understands `rro`. Raises `SpecError`.
    """
    mounts = []
    for index, mount in enumerate(container.volume_mounts or ()):
        where = f"{container.name}.volumeMounts[{index}]"
        volume = volumes.get(mount.name)
        if volume is None:
            raise SpecError(f"{where}.name", f'volume "{mount.name}" has not been set up')
        if not volume.path:
            raise SpecError(
                f"{where}.name",
                f"volume {mount.name} has volumeMode Block, but is specified in volumeMounts",
            )
        source = volume.path
        if mount.sub_path or mount.sub_path_expr:
            bound = volume.sub_paths.get((container.name, index))
            if bound is not None:
                source = bound
            elif expand_sub_path(pod, container, index, objects):
                raise SpecError(f"{where}.subPath", "the sub-path has not been bound")
        path = mount.mount_path
        destination = path if path.startswith("/") else f"/{path}"
        options = _mount_options(container, mount, volume, where, recursive_read_only)
        mounts.append(OciMount(destination, source, options))
    if len(mounts) > 1:
        mounts.sort(key=_depth)
    return tuple(mounts)


def _depth(mount: OciMount) -> int:
    return mount.destination.rstrip("/").count("/")


def _mount_options(
    container: Container,
    mount: VolumeMount,
    volume: HandedVolume,
    where: str,
    rro_supported: bool,
) -> tuple[str, ...]:
    propagation = _PROPAGATION.get(mount.mount_propagation)
    if propagation is None:
        raise SpecError(
            f"{where}.mountPropagation",
            f'Unsupported value: "{mount.mount_propagation}": supported values: "Bidirectional", '
            '"HostToContainer", "None"',
        )
    if propagation == "rshared" and not (container.security_context or _NO_CONTEXT).privileged:
        raise SpecError(
            f"{where}.mountPropagation",
            "Bidirectional mount propagation is available only to privileged containers",
        )
    read_only = mount.read_only or volume.read_only or volume.always_read_only
    wish = mount.recursive_read_only
    if wish is None or wish == "Disabled":
        return ("rbind", "ro" if read_only else "rw", propagation)
    where = f"{where}.recursiveReadOnly"
    if wish not in ("IfPossible", "Enabled"):
        raise SpecError(
            where,
            f'Unsupported value: "{wish}": supported values: "Disabled", "Enabled", "IfPossible"',
        )
    if not mount.read_only:
        raise SpecError(where, "may only be specified when readOnly is true")
    if propagation != "rprivate":
        raise SpecError(where, "may only be specified when mountPropagation is None")
    if rro_supported:
        return ("rbind", "ro", "rro", propagation)
    if wish == "Enabled":
        raise SpecError(
            where, "the container runtime of this node cannot mount recursively read-only"
        )
    return ("rbind", "ro", propagation)


def build_devices(
    container: Container, volumes: Mapping[str, HandedVolume]
) -> tuple[DeviceSpec, ...]:
    """The raw devices of one container. Raises `SpecError`."""
    devices = []
    for index, device in enumerate(container.volume_devices or ()):
        where = f"{container.name}.volumeDevices[{index}].name"
        volume = volumes.get(device.name)
        if volume is None:
            raise SpecError(where, f'volume "{device.name}" has not been set up')
        if not volume.device_path:
            raise SpecError(
                where,
                f"volume {device.name} has volumeMode Filesystem, but is specified in "
                "volumeDevices",
            )
        permissions = "r" if volume.read_only else "mrw"
        devices.append(DeviceSpec(device.device_path, volume.device_path, permissions))
    return tuple(devices)


def build_container_spec(
    pod: Pod,
    container: Container,
    volumes: Mapping[str, HandedVolume],
    objects: Objects,
    *,
    recursive_read_only: bool = False,
) -> ContainerSpec:
    """Everything a runtime needs to make one container. Raises `SpecError` naming the field."""
    env = resolve_env(pod, container, objects)
    limits = (container.resources.limits if container.resources is not None else None) or {}
    return ContainerSpec(
        name=container.name,
        image=container.image,
        pull_policy=_pull_policy(container),
        command=_expand_all(container.command, env),
        args=_expand_all(container.args, env),
        env=env,
        working_dir=container.working_dir,
        hostname=_hostname(pod),
        host_network=pod.spec.host_network,
        stdin=container.stdin,
        tty=container.tty,
        security=merge_security(pod, container),
        mounts=build_mounts(
            pod, container, volumes, objects, recursive_read_only=recursive_read_only
        ),
        devices=build_devices(container, volumes),
        memory_limit_bytes=_memory_limit(container, limits),
        cpu_limit_millis=_cpu_limit(container, limits),
    )


def build_specs(
    pod: Pod,
    volumes: Mapping[str, HandedVolume],
    objects: Objects,
    *,
    recursive_read_only: bool = False,
) -> dict[str, ContainerSpec | SpecError]:
    """Every container of a pod by name; one that cannot be made does not hold back the others."""
    specs: dict[str, ContainerSpec | SpecError] = {}
    for container in all_containers(pod):
        try:
            specs[container.name] = build_container_spec(
                pod, container, volumes, objects, recursive_read_only=recursive_read_only
            )
        except SpecError as error:
            specs[container.name] = error
    return specs


def _hostname(pod: Pod) -> str:
    """The pod's name cut to what the kernel takes; "" on the host's network, which has its own."""
    if pod.spec.host_network:
        return ""
    return (pod.spec.hostname or pod.metadata.name)[:HOSTNAME_MAX].rstrip("-.")


def _expand_all(words: list[str] | None, env: Mapping[str, str]) -> tuple[str, ...] | None:
    return tuple([expand(word, env) for word in words]) if words else None


def _pull_policy(container: Container) -> PullPolicy:
    if container.image_pull_policy:
        try:
            return PullPolicy(container.image_pull_policy)
        except ValueError:
            raise SpecError(
                f"{container.name}.imagePullPolicy",
                f'Unsupported value: "{container.image_pull_policy}": supported values: "Always", '
                '"IfNotPresent", "Never"',
            ) from None
    return default_pull_policy(container.image)


def default_pull_policy(image: str) -> PullPolicy:
    """Always for the tag `latest` and for no tag at all, as the API server's defaulting has it."""
    name = image.rpartition("/")[2]
    if "@" in name:
        return PullPolicy.IF_NOT_PRESENT
    _, _, tag = name.partition(":")
    return PullPolicy.ALWAYS if tag in ("", "latest") else PullPolicy.IF_NOT_PRESENT


def merge_security(pod: Pod, container: Container) -> SecurityOptions:
    """The pod's security context with the container's own laid over it. Raises `SpecError`."""
    outer = pod.spec.security_context or _NO_POD_CONTEXT
    inner = container.security_context or _NO_CONTEXT
    uid = inner.run_as_user if inner.run_as_user is not None else outer.run_as_user
    gid = inner.run_as_group if inner.run_as_group is not None else outer.run_as_group
    non_root = inner.run_as_non_root if inner.run_as_non_root is not None else outer.run_as_non_root
    if non_root and uid == 0:
        raise SpecError(
            f"{container.name}.securityContext.runAsNonRoot",
            "container's runAsUser breaks non-root policy",
        )
    groups = list(outer.supplemental_groups or ())
    if outer.fs_group is not None and outer.fs_group not in groups:
        groups.append(outer.fs_group)
    capabilities = inner.capabilities
    labels = inner.se_linux_options or outer.se_linux_options
    selinux: tuple[str, ...] = ()
    if labels is not None:
        parts = (("user", labels.user), ("role", labels.role), ("type", labels.type),
                 ("level", labels.level))  # fmt: skip
        selinux = tuple(f"{key}:{value}" for key, value in parts if value)
    return SecurityOptions(
        uid=uid,
        gid=gid,
        groups=tuple(groups),
        must_not_be_root=bool(non_root),
        privileged=bool(inner.privileged),
        no_new_privileges=inner.allow_privilege_escalation is False,
        add_capabilities=tuple(capabilities.add or ()) if capabilities else (),
        drop_capabilities=tuple(capabilities.drop or ()) if capabilities else (),
        selinux=selinux,
        read_only_root=bool(inner.read_only_root_filesystem),
    )


def _memory_limit(container: Container, limits: Mapping[str, Any]) -> int | None:
    amount = limits.get("memory")
    if amount is None:
        return None
    try:
        return parse_bytes(amount)
    except QuantityError as error:
        raise SpecError(f"{container.name}.resources.limits.memory", str(error)) from error


def _cpu_limit(container: Container, limits: Mapping[str, Any]) -> int | None:
    amount = limits.get("cpu")
    if amount is None:
        return None
    try:
        millis = parse_quantity(amount) * 1000
    except QuantityError as error:
        raise SpecError(f"{container.name}.resources.limits.cpu", str(error)) from error
    return -(-millis.numerator // millis.denominator)


def to_oci(mounts: tuple[OciMount, ...]) -> list[dict[str, Any]]:
    """Mounts as the OCI runtime specification writes them: for the API, CDI, `volagent mounts`."""
    return [
        {
            "destination": mount.destination,
            "type": "bind",
            "source": mount.source,
            "options": list(mount.options),
        }
        for mount in mounts
    ]
