"""A Container Device Interface file per pod: its volumes for whoever starts containers.

`podman run --device volagent.dev/pod=NAMESPACE_NAME IMAGE` (containerd and CRI-O alike) gets the
mounts of the pod's first container; `..._CONTAINER` gets those of a named one, init containers
included. `_` occurs in no Kubernetes name, so a device's name says exactly one thing.

A file holds paths and nothing else, is readable by everybody (rootless podman), is replaced by one
rename, and is written only when it changes. Names are of validated objects, so a file cannot lie
outside its directory. Plain calls on a small local directory: microseconds, on any one thread.
"""

import contextlib
import errno
import os
from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from volagent.objects.meta import PodUid
from volagent.objects.pod import Pod
from volagent.runtime.contract import DeviceSpec, OciMount

CDI_VERSION = "0.5.0"
"""What podman 4.3 reads (device nodes with a `hostPath` are new in it)."""
KIND = "volagent.dev/pod"
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
_PREFIX, _SUFFIX = "volagent.dev-pod-", ".json"

Handed = tuple[tuple[OciMount, ...], tuple[DeviceSpec, ...]]
"""What one container is handed."""


def device_name(pod: Pod, container: str = "") -> str:
    """`NAMESPACE_NAME`, or `NAMESPACE_NAME_CONTAINER`."""
    name = f"{pod.metadata.namespace}_{pod.metadata.name}"
    return f"{name}_{container}" if container else name


def render(pod: Pod, handed: Mapping[str, Handed]) -> bytes:
    """The file of a pod, from what each of its containers is handed."""
    edits = {name: _edits(mounts, devices) for name, (mounts, devices) in handed.items()}
    devices = [
        {"name": device_name(pod, name), "containerEdits": edit} for name, edit in edits.items()
    ]
    if pod.spec.containers and pod.spec.containers[0].name in edits:
        first = edits[pod.spec.containers[0].name]
        devices.insert(0, {"name": device_name(pod), "containerEdits": first})
    return msgspec.json.encode({"cdiVersion": CDI_VERSION, "kind": KIND, "devices": devices})


def _edits(mounts: tuple[OciMount, ...], devices: tuple[DeviceSpec, ...]) -> dict[str, Any]:
    edits: dict[str, Any] = {
        "mounts": [
            {
                "hostPath": mount.source,
                "containerPath": mount.destination,
                "type": "bind",
                "options": mount.options,
            }
            for mount in mounts
        ]
    }
    if devices:
        edits["deviceNodes"] = [
            {
                "path": device.container_path,
                "hostPath": device.host_path,
                "type": "b",
                "permissions": device.permissions,
            }
            for device in devices
        ]
    return edits


class CdiDirectory:
    """The files of this node's pods. A pod that was declared again has the name's file at once:
    what its predecessor withdraws later is no longer its own.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._written: dict[str, tuple[PodUid, int]] = {}
        """By device name: whose file it is, and a hash of what is in it."""

    def write(self, pod: Pod, handed: Mapping[str, Handed]) -> bool:
        """Have the pod's file say this; True when it had to be written. Raises `OSError`."""
        name, content = device_name(pod), render(pod, handed)
        mine = (PodUid(pod.metadata.uid), hash(content))
        known = self._written.get(name)
        if known == mine:
            return False
        same = known[1] == mine[1] if known is not None else self._reads(name, content)
        if not same:
            self._replace(name, content)
        self._written[name] = mine
        return not same

    def remove(self, pod: Pod) -> None:
        """Withdraw the pod's file, unless it belongs to a successor. Raises `OSError`."""
        name = device_name(pod)
        known = self._written.get(name)
        if known is not None and known[0] != pod.metadata.uid:
            return
        self._written.pop(name, None)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._file(name))

    def prune(self, known: Collection[str]) -> int:
        """Remove files of pods that are gone, given the device names of those that are not."""
        try:
            files = os.listdir(self._path)
        except FileNotFoundError:
            return 0
        keep = {f"{_PREFIX}{name}{_SUFFIX}" for name in known}
        stale = [
            file for file in files if file.startswith((_PREFIX, f".{_PREFIX}")) and file not in keep
        ]
        for file in stale:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{self._path}/{file}")
        return len(stale)

    def _file(self, name: str) -> str:
        return f"{self._path}/{_PREFIX}{name}{_SUFFIX}"

    def _reads(self, name: str, content: bytes) -> bool:
        """Whether the file says this already (after a restart)."""
        try:
            with open(self._file(name), "rb") as file:
                return file.read(len(content) + 1) == content
        except FileNotFoundError:
            return False

    def _replace(self, name: str, content: bytes) -> None:
        # A leading dot and no .json at the end: CDI readers do not take it for a file of theirs.
        draft = f"{self._path}/.{_PREFIX}{name}"
        try:
            descriptor = os.open(draft, _NEW_FILE, 0o644)
        except FileNotFoundError:
            os.makedirs(self._path, mode=0o755, exist_ok=True)
            descriptor = os.open(draft, _NEW_FILE, 0o644)
        try:
            os.fchmod(descriptor, 0o644)  # whatever the umask
            if os.write(descriptor, content) != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), draft)
        finally:
            os.close(descriptor)
        os.rename(draft, self._file(name))
