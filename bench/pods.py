"""The pods of the measurements: a memory and a disk emptyDir, a configMap, a secret."""

import base64
from pathlib import Path
from typing import Any

from bench.daemon import Connection, is_mount

NAMESPACE = "/api/v1/namespaces/default"
SECRET = {
    "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "bench"},
    "data": {
        "user": base64.b64encode(b"admin").decode(),
        "key": base64.b64encode(b"x" * 64).decode(),
    },
}  # fmt: skip
CONFIG_MAP = {
    "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "bench"},
    "data": {"app.conf": "level = 3\n", "motd": "hello\n"},
}  # fmt: skip
FOUR = (
    ("memory", "empty-dir", {"emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}),
    ("disk", "empty-dir", {"emptyDir": {}}),
    ("config", "configmap", {"configMap": {"name": "bench"}}),
    ("secret", "secret", {"secret": {"secretName": "bench"}}),
)
TMPFS_TWICE = (
    ("memory", "empty-dir", {"emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}),
    ("other", "empty-dir", {"emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}),
)


def a_pod(name: str, volumes: tuple[tuple[str, str, Any], ...] = FOUR) -> dict[str, Any]:
    """A pod with one container that mounts every volume."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "nodeName": "bench",
            "containers": [
                {
                    "name": "main",
                    "image": "localhost/none",
                    "volumeMounts": [
                        {"name": volume, "mountPath": f"/{volume}"} for volume, _, _ in volumes
                    ],
                }
            ],
            "volumes": [{"name": volume, **source} for volume, _, source in volumes],
        },
    }


async def declare_sources(connection: Connection) -> None:
    """The secret and the configMap that the pods use."""
    await connection.must("POST", f"{NAMESPACE}/secrets", SECRET)
    await connection.must("POST", f"{NAMESPACE}/configmaps", CONFIG_MAP)


def is_mounted(root: Path, uid: str) -> bool:
    """Whether all four volumes are there, looking only at the file system."""
    base = f"{root}/pods/{uid}/volumes/kubernetes.io~"
    secret, config = Path(f"{base}secret/secret"), Path(f"{base}configmap/config")
    return (
        is_mount(f"{base}empty-dir/memory")
        and Path(f"{base}empty-dir/disk").is_dir()
        and (config / "motd").is_file()
        and is_mount(str(secret))
        and (secret / "key").is_file()
    )
