"""Podman's JSON: what a container is made from, and what its list and its events say. Pure.

The shapes are those of libpod's REST API v4.0.0, which podman 4.3 (Debian 12), 4.9 (Ubuntu 24.04)
and 5.x answer alike.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from volagent.objects.meta import Document, PodUid
from volagent.runtime.contract import (
    LABEL_ATTEMPT,
    LABEL_CONTAINER,
    LABEL_POD_NAME,
    LABEL_POD_NAMESPACE,
    LABEL_POD_UID,
    ContainerRejected,
    ContainerSpec,
    ContainerState,
    PodRef,
    Stage,
)
from volagent.runtime.spec import to_oci

CPU_PERIOD_US = 100_000
KILLED_WITH_THE_MACHINE = 255
"""Exit code of a container that ran when the machine went down, as the kubelet reports it."""

_STAGES = {
    "created": Stage.CREATED,
    "configured": Stage.CREATED,
    "initialized": Stage.CREATED,
    "exited": Stage.EXITED,
    "stopped": Stage.EXITED,
    "removing": Stage.EXITED,
}
_KNOWN_MODES = ("none", "host", "bridge", "private", "slirp4netns", "pasta")


def container_name(pod: PodRef, name: str, attempt: int) -> str:
    """The name that people see in `podman ps`; the kubelet's pattern."""
    return f"k8s_{name}_{pod.name}_{pod.namespace}_{pod.uid}_{attempt}"


def needs_image_user(spec: ContainerSpec) -> bool:
    """Whether the image's own user matters for how the container is made."""
    security = spec.security
    return security.uid is None and (security.gid is not None or security.must_not_be_root)


def choose_user(spec: ContainerSpec, image_user: str) -> str:
    """`user[:group]` for the container; "" leaves it to the image. Raises `ContainerRejected`."""
    security = spec.security
    user = "" if security.uid is None else str(security.uid)
    if not user and needs_image_user(spec):
        user = image_user.partition(":")[0] or "0"
        if security.must_not_be_root:
            if not user.isdecimal():
                raise ContainerRejected(
                    "container has runAsNonRoot and image has non-numeric user "
                    f"({user}), cannot verify user is non-root"
                )
            if int(user) == 0:
                raise ContainerRejected("container has runAsNonRoot and image will run as root")
    return f"{user}:{security.gid}" if security.gid is not None else user


def make_body(pod: PodRef, spec: ContainerSpec, attempt: int, network: str, user: str) -> Document:
    """The body of `POST /libpod/containers/create`."""
    security = spec.security
    body: Document = {
        "name": container_name(pod, spec.name, attempt),
        "image": spec.image,
        "labels": {
            LABEL_POD_UID: pod.uid,
            LABEL_POD_NAME: pod.name,
            LABEL_POD_NAMESPACE: pod.namespace,
            LABEL_CONTAINER: spec.name,
            LABEL_ATTEMPT: str(attempt),
        },
        "restart_policy": "no",
        "env": dict(spec.env),
        "mounts": to_oci(spec.mounts),
        "devices": [
            {"path": f"{device.host_path}:{device.container_path}:{device.permissions}"}
            for device in spec.devices
        ],
        "groups": [str(group) for group in security.groups],
        "privileged": security.privileged,
        "read_only_filesystem": security.read_only_root,
        "no_new_privileges": security.no_new_privileges,
        "cap_add": list(security.add_capabilities),
        "cap_drop": list(security.drop_capabilities),
        "selinux_opts": list(security.selinux),
        "stdin": spec.stdin,
        "terminal": spec.tty,
    }
    if spec.command is not None:
        body["entrypoint"] = list(spec.command)
    if spec.args is not None:
        body["command"] = list(spec.args)
    if user:
        body["user"] = user
    if spec.working_dir:
        body["work_dir"] = spec.working_dir
    if spec.hostname and not spec.host_network:
        body["hostname"] = spec.hostname
    body.update(_network("host" if spec.host_network else network))
    limits = _limits(spec)
    if limits:
        body["resource_limits"] = limits
    return body


def _network(mode: str) -> Document:
    if not mode:
        return {}
    if mode in _KNOWN_MODES:
        return {"netns": {"nsmode": mode}}
    return {"netns": {"nsmode": "bridge"}, "networks": {mode: {}}}


def _limits(spec: ContainerSpec) -> Document:
    limits: Document = {}
    if spec.memory_limit_bytes is not None:
        limits["memory"] = {"limit": spec.memory_limit_bytes}
    if spec.cpu_limit_millis is not None:
        quota = spec.cpu_limit_millis * CPU_PERIOD_US // 1000
        limits["cpu"] = {"period": CPU_PERIOD_US, "quota": quota}
    return limits


def read_container(entry: Mapping[str, Any]) -> ContainerState | None:
    """One entry of podman's list; None when it is not one of ours."""
    labels: Mapping[str, str] = entry.get("Labels") or {}
    uid, name = labels.get(LABEL_POD_UID), labels.get(LABEL_CONTAINER)
    attempt = labels.get(LABEL_ATTEMPT, "")
    if not uid or not name or not attempt.isdecimal():
        return None
    # "paused", "stopping", "unknown" and whatever comes later may use their mounts: running.
    stage = _STAGES.get(str(entry.get("State")).lower(), Stage.RUNNING)
    started_at = _moment(entry.get("StartedAt"))
    exit_code: int | None = None
    if stage is Stage.EXITED:
        exit_code = int(entry.get("ExitCode") or 0)
    elif stage is Stage.CREATED and started_at is not None:
        # Podman sets what ran when the machine went down back to "created".
        stage, exit_code = Stage.EXITED, KILLED_WITH_THE_MACHINE
    return ContainerState(
        container_id=entry["Id"],
        pod=PodRef(
            PodUid(uid), labels.get(LABEL_POD_NAMESPACE, ""), labels.get(LABEL_POD_NAME, "")
        ),
        name=name,
        attempt=int(attempt),
        stage=stage,
        exit_code=exit_code,
        started_at=started_at,
        finished_at=_moment(entry.get("ExitedAt")) if stage is Stage.EXITED else None,
        image=entry.get("Image") or "",
        image_id=entry.get("ImageID") or "",
        mounts=tuple(entry.get("Mounts") or ()),
    )


def _moment(value: Any) -> datetime | None:
    """Seconds since 1970; podman's "never" is the year 1."""
    if not isinstance(value, int) or value <= 0:
        return None
    return datetime.fromtimestamp(value, UTC)


def read_event(event: Mapping[str, Any]) -> PodUid | None:
    """The pod whose container an event is about, if it is one of ours."""
    attributes = (event.get("Actor") or {}).get("Attributes") or {}
    uid = attributes.get(LABEL_POD_UID)
    return PodUid(uid) if uid else None
