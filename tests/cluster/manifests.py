"""The objects that scenarios declare, as JSON documents."""

from typing import Any

Json = dict[str, Any]


def pod(name: str, volumes: list[Json], *, mounts: list[Json] | None = None, **spec: Any) -> Json:
    """A pod whose one container mounts each volume at `/<volume>`, or as `mounts` says."""
    if mounts is None:
        mounts = [{"name": each["name"], "mountPath": f"/{each['name']}"} for each in volumes]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "containers": [{"name": "main", "image": "busybox", "volumeMounts": mounts}],
            "volumes": volumes,
            **spec,
        },
    }


def nfs(name: str, server: str, path: str, **more: Any) -> Json:
    """An inline NFS volume."""
    return {"name": name, "nfs": {"server": server, "path": path, **more}}


def claim_volume(name: str, claim: str, **more: Any) -> Json:
    """A volume of a pod that uses a claim."""
    return {"name": name, "persistentVolumeClaim": {"claimName": claim, **more}}


def scratch(name: str, medium: str = "") -> Json:
    """An emptyDir."""
    return {"name": name, "emptyDir": {"medium": medium}}


def bound_pair(
    name: str,
    source: Json,
    *,
    mount_options: tuple[str, ...] = (),
    access_mode: str = "ReadWriteMany",
    capacity: str = "64Mi",
) -> tuple[Json, Json]:
    """A volume `pv-<name>` and a claim `<name>` that name each other."""
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"pv-{name}"},
        "spec": {
            "capacity": {"storage": capacity},
            "accessModes": [access_mode],
            "storageClassName": "",
            "persistentVolumeReclaimPolicy": "Retain",
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": "default",
                "name": name,
            },
            **({"mountOptions": list(mount_options)} if mount_options else {}),
            **source,
        },
    }
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "accessModes": [access_mode],
            "storageClassName": "",
            "volumeName": f"pv-{name}",
            "resources": {"requests": {"storage": capacity}},
        },
    }
    return volume, claim


def image_source(name: str, file: str, fs_type: str = "ext4") -> Json:
    """An image file, made and formatted when it is missing, as the source of a volume."""
    return {
        "csi": {
            "driver": "image.volagent.dev",
            "volumeHandle": name,
            "fsType": fs_type,
            "volumeAttributes": {"path": file},
        }
    }


def secret(name: str, **values: str) -> Json:
    """A secret from plain strings."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": "default"},
        "stringData": values,
    }
