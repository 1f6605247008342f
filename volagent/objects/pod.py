"""The typed view of a Pod."""

from typing import Any

import msgspec

from volagent.objects.meta import Document, TypedObject, View
from volagent.objects.scheduling import (
    Affinity,
    SchedulingGate,
    Toleration,
    TopologySpreadConstraint,
)
from volagent.objects.volumes import (
    ConfigMapSource,
    ObjectFieldSelector,
    ResourceFieldSelector,
    Volume,
)


class VolumeMount(View, frozen=True):
    """One entry of a container's `volumeMounts`."""

    name: str
    mount_path: str
    read_only: bool = False
    recursive_read_only: str | None = None
    sub_path: str = ""
    sub_path_expr: str = ""
    mount_propagation: str | None = None


class VolumeDevice(View, frozen=True):
    """One entry of a container's `volumeDevices`: the raw device at `device_path`."""

    name: str
    device_path: str


class SecretKeySelector(View, frozen=True):
    """`secretKeyRef` / `configMapKeyRef` of a variable."""

    name: str = ""
    key: str = ""
    optional: bool | None = None


class EnvVarSource(View, frozen=True):
    """Where a variable's value comes from."""

    field_ref: ObjectFieldSelector | None = None
    resource_field_ref: ResourceFieldSelector | None = None
    config_map_key_ref: SecretKeySelector | None = None
    secret_key_ref: SecretKeySelector | None = None


class EnvVar(View, frozen=True):
    """One environment variable."""

    name: str
    value: str = ""
    value_from: EnvVarSource | None = None


class EnvFromSource(View, frozen=True):
    """A whole configMap or secret as variables."""

    prefix: str = ""
    config_map_ref: ConfigMapSource | None = None
    secret_ref: ConfigMapSource | None = None


class ResourceRequirements(View, frozen=True):
    """`resources` of a container; quantities as given."""

    limits: dict[str, str | int | float] | None = None
    requests: dict[str, str | int | float] | None = None


class SELinuxOptions(View, frozen=True):
    """SELinux label parts."""

    user: str = ""
    role: str = ""
    type: str = ""
    level: str = ""


class Capabilities(View, frozen=True):
    """Linux capabilities added and dropped."""

    add: list[str] | None = None
    drop: list[str] | None = None


class SecurityContext(View, frozen=True):
    """A container's `securityContext`."""

    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    privileged: bool | None = None
    read_only_root_filesystem: bool | None = None
    allow_privilege_escalation: bool | None = None
    capabilities: Capabilities | None = None
    se_linux_options: SELinuxOptions | None = None


class PodSecurityContext(View, frozen=True):
    """The pod's `securityContext`."""

    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    supplemental_groups: list[int] | None = None
    fs_group: int | None = None
    fs_group_change_policy: str | None = None
    se_linux_options: SELinuxOptions | None = None


class Container(View, frozen=True):
    """One container of a pod."""

    name: str
    image: str = ""
    command: list[str] | None = None
    args: list[str] | None = None
    working_dir: str = ""
    env: list[EnvVar] | None = None
    env_from: list[EnvFromSource] | None = None
    resources: ResourceRequirements | None = None
    volume_mounts: list[VolumeMount] | None = None
    volume_devices: list[VolumeDevice] | None = None
    image_pull_policy: str | None = None
    security_context: SecurityContext | None = None
    restart_policy: str | None = None
    stdin: bool = False
    tty: bool = False


class PodSpec(View, frozen=True):
    """`spec` of a Pod, as far as volumes and their hand-over need it."""

    containers: list[Container]
    init_containers: list[Container] | None = None
    volumes: list[Volume] | None = None
    node_name: str = ""
    restart_policy: str = "Always"
    termination_grace_period_seconds: int | None = None
    security_context: PodSecurityContext | None = None
    service_account_name: str = ""
    automount_service_account_token: bool | None = None
    hostname: str = ""
    host_network: bool = False
    node_selector: dict[str, str] | None = None
    scheduler_name: str = ""
    scheduling_gates: list[SchedulingGate] | None = None
    affinity: Affinity | None = None
    tolerations: list[Toleration] | None = None
    topology_spread_constraints: list[TopologySpreadConstraint] | None = None
    overhead: dict[str, str | int | float] | None = None


class ContainerStatus(View, frozen=True):
    """`status.containerStatuses[]`; `state` and `last_state` are the API's one-of objects."""

    name: str = ""
    ready: bool = False
    restart_count: int = 0
    image: str = ""
    image_id: str = msgspec.field(default="", name="imageID")
    container_id: str = msgspec.field(default="", name="containerID")
    started: bool | None = None
    state: dict[str, Any] | None = None
    last_state: dict[str, Any] | None = None


class PodCondition(View, frozen=True):
    """`status.conditions[]`."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_transition_time: str | None = None
    last_probe_time: str | None = None


class PodStatus(View, frozen=True):
    """`status` of a Pod."""

    phase: str = ""
    reason: str = ""
    message: str = ""
    conditions: list[PodCondition] | None = None
    container_statuses: list[ContainerStatus] | None = None
    init_container_statuses: list[ContainerStatus] | None = None
    start_time: str | None = None
    host_ip: str = msgspec.field(default="", name="hostIP")


class Pod(TypedObject, frozen=True):
    """A Pod."""

    spec: PodSpec = PodSpec(containers=[])
    status: PodStatus = PodStatus()


def read_pod(document: Document) -> Pod:
    """The typed view of a stored Pod.

    Raises `msgspec.ValidationError` naming the field when a type is wrong.
    """
    return msgspec.convert(document, Pod)
