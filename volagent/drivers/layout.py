"""Where things are on disk: the kubelet's layout under the root directory. Pure.

Names come from validated objects (DNS labels, UUIDs, checked driver names), so a joined path
cannot leave the root; `Layout` checks that once more where it is built.
"""

import hashlib
from dataclasses import dataclass

from volagent.drivers.contract import DriverName
from volagent.objects.meta import PodUid


def directory_name(driver: DriverName) -> str:
    """`kubernetes.io/nfs` → `kubernetes.io~nfs`."""
    return driver.replace("/", "~")


def _checked(part: str) -> str:
    if not part or part in (".", "..") or "/" in part or "\0" in part:
        raise ValueError(f"not usable as a file name: {part!r}")
    return part


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths under the agent's root directory (default `/var/lib/kubelet`)."""

    root: str

    @property
    def pods(self) -> str:
        """The directory of all pods."""
        return f"{self.root}/pods"

    def pod(self, uid: PodUid) -> str:
        """A pod's own directory."""
        return f"{self.root}/pods/{_checked(uid)}"

    def volume(self, uid: PodUid, driver: DriverName, name: str) -> str:
        """A pod's directory for a volume."""
        return f"{self.pod(uid)}/volumes/{_checked(directory_name(driver))}/{_checked(name)}"

    def csi_volume(self, uid: PodUid, name: str) -> str:
        """A pod's directory for a CSI volume; its parent belongs to the volume too."""
        return f"{self.pod(uid)}/volumes/kubernetes.io~csi/{_checked(name)}/mount"

    def block_link(self, uid: PodUid, driver: DriverName, name: str) -> str:
        """A pod's link to a raw device."""
        return f"{self.pod(uid)}/volumeDevices/{_checked(directory_name(driver))}/{_checked(name)}"

    def sub_path(self, uid: PodUid, volume: str, container: str, index: int) -> str:
        """Where one container's subPath of a volume is bound."""
        return f"{self.pod(uid)}/volume-subpaths/{_checked(volume)}/{_checked(container)}/{index}"

    def device_stage(self, driver: DriverName, name: str) -> str:
        """The global mount of a block volume: `plugins/<driver>/mounts/<name>`."""
        return f"{self.root}/plugins/{driver}/mounts/{_checked(name)}"

    def csi_stage(self, driver: DriverName, handle: str) -> str:
        """The global mount of a CSI volume: `csi/<driver>/<sha256 of the handle>/globalmount`."""
        digest = hashlib.sha256(handle.encode()).hexdigest()
        return f"{self.root}/plugins/kubernetes.io/csi/{_checked(driver)}/{digest}/globalmount"
