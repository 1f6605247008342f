"""Pods and observed containers, briefly."""

from datetime import UTC, datetime, timedelta

import msgspec

from volagent.objects.meta import PodUid
from volagent.objects.pod import Pod
from volagent.objects.storage import ConfigMap, Secret
from volagent.runtime.contract import (
    ContainerSpec,
    ContainerState,
    NodeFacts,
    PodRef,
    PullPolicy,
    Stage,
)
from volagent.runtime.env import Objects

UID = PodUid("11111111-2222-3333-4444-555555555555")
REF = PodRef(UID, "default", "web")
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
FACTS = NodeFacts("vm-1", "10.0.0.9", allocatable_cpu="4", allocatable_memory="8Gi")


def make_pod(*containers, init=(), status=None, metadata=None, **spec) -> Pod:
    return msgspec.convert(
        {
            "metadata": {
                "name": "web", "namespace": "default", "uid": UID,
                "labels": {"app": "shop"}, **(metadata or {}),
            },
            "spec": {"containers": list(containers), "initContainers": list(init), **spec},
            "status": status or {},
        },
        Pod,
    )  # fmt: skip


def make_container(name="main", **fields):
    return {"name": name, "image": "app:1", **fields}


def make_objects(secrets=None, config_maps=None) -> Objects:
    made = {name: Secret(data=data) for name, data in (secrets or {}).items()}
    maps = {name: ConfigMap(data=data) for name, data in (config_maps or {}).items()}
    return Objects(made.get, maps.get, FACTS)


def make_specs(pod: Pod) -> dict[str, ContainerSpec]:
    every = (*(pod.spec.init_containers or ()), *pod.spec.containers)
    return {
        container.name: ContainerSpec(container.name, "app:1", PullPolicy.IF_NOT_PRESENT)
        for container in every
    }


def running(name="main", attempt=0) -> ContainerState:
    return ContainerState(
        f"{name}-{attempt}", REF, name, attempt, Stage.RUNNING, started_at=BEGAN, image="app:1"
    )


def created(name="main", attempt=0) -> ContainerState:
    return ContainerState(f"{name}-{attempt}", REF, name, attempt, Stage.CREATED, image="app:1")


def ended(name="main", exit_code=0, attempt=0, *, ran_s=1.0, out_of_memory=False):
    return ContainerState(
        f"{name}-{attempt}", REF, name, attempt, Stage.EXITED, exit_code, out_of_memory, BEGAN,
        BEGAN + timedelta(seconds=ran_s), "app:1",
    )  # fmt: skip
