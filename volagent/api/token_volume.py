"""The volume that every pod gets unless it declines: its service account's token. Pure, but for the
volume's random name.

Source: Kubernetes' ServiceAccount admission plug-in.
"""

from typing import Any

from volagent.api.identity import make_name
from volagent.objects.meta import Document

MOUNT_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
LIFE_S = 3607
"""As the kubelet's: an odd number tells who asked."""
MODE = 0o644
ROOT_CA = "kube-root-ca.crt"
"""The configMap with the API's certificate authority, in every namespace that has one."""


def add_token_volume(pod: Document) -> Document:
    """The pod with the volume, mounted in every container that has nothing at its place."""
    spec = pod["spec"]
    groups = {
        group: spec[group] for group in ("initContainers", "containers") if spec.get(group)
    }  # fmt: skip
    if not any(_lacks(container) for group in groups.values() for container in group):
        return pod
    name = make_name("kube-api-access-")
    changed: dict[str, Any] = {
        group: [_mount(container, name) for container in containers]
        for group, containers in groups.items()
    }
    volumes = [*(spec.get("volumes") or ()), _describe(name)]
    return {**pod, "spec": {**spec, **changed, "volumes": volumes}}


def _lacks(container: Document) -> bool:
    mounts = container.get("volumeMounts") or ()
    return all(mount.get("mountPath") != MOUNT_PATH for mount in mounts)


def _mount(container: Document, name: str) -> Document:
    if not _lacks(container):
        return container
    mount = {"name": name, "mountPath": MOUNT_PATH, "readOnly": True}
    return {**container, "volumeMounts": [*(container.get("volumeMounts") or ()), mount]}


def _describe(name: str) -> Document:
    field = {"apiVersion": "v1", "fieldPath": "metadata.namespace"}
    return {
        "name": name,
        "projected": {
            "defaultMode": MODE,
            "sources": [
                {"serviceAccountToken": {"expirationSeconds": LIFE_S, "path": "token"}},
                {"configMap": {
                    "name": ROOT_CA, "items": [{"key": "ca.crt", "path": "ca.crt"}],
                    "optional": True,
                }},
                {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": field}]}},
            ],
        },
    }  # fmt: skip
