"""Manifests that several tests apply."""

from typing import Any

import yaml

Json = dict[str, Any]

CLASS: Json = {
    "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
    "metadata": {
        "name": "fast", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
    },
    "provisioner": "example.com/fast", "parameters": {"type": "ssd"}, "allowVolumeExpansion": True,
}  # fmt: skip
VOLUME: Json = {
    "apiVersion": "v1", "kind": "PersistentVolume",
    "metadata": {"name": "pv1", "labels": {"a": "b", "c": "d"}},
    "spec": {
        "capacity": {"storage": "1024Mi"}, "accessModes": ["ReadWriteMany"],
        "storageClassName": "fast", "nfs": {"server": "10.0.0.1", "path": "/x"},
    },
}  # fmt: skip
CLAIM: Json = {
    "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"},
    "spec": {
        "accessModes": ["ReadWriteMany"], "storageClassName": "fast",
        "resources": {"requests": {"storage": "1Gi"}},
    },
}  # fmt: skip
POD: Json = {
    "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "labels": {"app": "web"}},
    "spec": {
        "nodeName": "vm-1",
        "containers": [
            {
                "name": "main", "image": "busybox:1.36", "ports": [{"containerPort": 80}],
                "volumeMounts": [{"name": "d", "mountPath": "/d"}],
            }
        ],
        "volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}],
    },
}  # fmt: skip
NODE: Json = {
    "apiVersion": "v1", "kind": "Node", "metadata": {"name": "vm-1"},
    "status": {
        "capacity": {"cpu": "2", "memory": "1Gi"},
        "conditions": [{"type": "Ready", "status": "True", "reason": "AgentReady"}],
        "nodeInfo": {"kubeletVersion": "v1"},
    },
}  # fmt: skip
EVERYTHING = (CLASS, VOLUME, CLAIM, NODE, POD)


def manifest(*objects: Json) -> str:
    """Objects as one YAML stream."""
    return yaml.safe_dump_all(objects)


def changed(document: Json, *path: str, value: Any = None) -> Json:
    """The document with a member set, or, without a value, left out."""
    name, *rest = path
    copy = {**document}
    if rest:
        copy[name] = changed(document.get(name, {}), *rest, value=value)
    elif value is None:
        copy.pop(name)
    else:
        copy[name] = value
    return copy
