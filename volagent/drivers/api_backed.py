"""secret, configMap, downwardAPI and projected: content from the API, shown as files.

What is shown is rendered by `payload.py`; here it is put in place, and brought up to date by one
atomic swap while containers read. The four kinds differ in their names, their fields and in where
they stand: a configMap in a plain directory (as the kubelet has it), the others, which hold
secrets, in a tmpfs that is kept out of swap. One class serves them all, since they differ in data
only. The containers get them read-only; only the agent writes.
"""

from dataclasses import dataclass

from volagent.drivers.binding import refuse_cover
from volagent.drivers.contract import (
    Done,
    DriverName,
    HeldDevice,
    HeldMount,
    Mounted,
    Options,
    Phase,
    Publication,
    VolumeMode,
    VolumeSource,
    VolumeSpec,
)
from volagent.drivers.failures import explain_busy, explain_failure
from volagent.drivers.options import decode_options
from volagent.drivers.tmpfs import ensure_tmpfs, remove_mount_point, unmount_tmpfs
from volagent.host.contract import Host, TmpfsOptions
from volagent.host.errors import Absent, Busy, HostError
from volagent.objects.volumes import DownwardItem, KeyToPath, Projection

PARENT_MODE = 0o755
DIRECTORY_MODE = 0o777
SETGID = 0o2000
STICKY = 0o1000
TMPFS_MAX_BYTES = 64 << 20
"""Room for dozens of objects of the API's largest size (1 MiB), old and new side by side."""


class SecretOptions(Options, frozen=True, rename="camel"):
    """Fields of `secret`."""

    secret_name: str = ""
    items: tuple[KeyToPath, ...] | None = None
    default_mode: int | None = None
    optional: bool | None = None


class ConfigMapOptions(Options, frozen=True, rename="camel"):
    """Fields of `configMap`."""

    name: str = ""
    items: tuple[KeyToPath, ...] | None = None
    default_mode: int | None = None
    optional: bool | None = None


class DownwardAPIOptions(Options, frozen=True, rename="camel"):
    """Fields of `downwardAPI`."""

    items: tuple[DownwardItem, ...] | None = None
    default_mode: int | None = None


class ProjectedOptions(Options, frozen=True, rename="camel"):
    """Fields of `projected`."""

    sources: tuple[Projection, ...] | None = None
    default_mode: int | None = None


@dataclass(frozen=True, slots=True)
class ApiBackedDriver:
    """Shows rendered content in a pod's directory."""

    host: Host
    name: DriverName
    options: type[Options]
    in_memory: bool

    def read_options(self, source: VolumeSource) -> Options:
        """The fields, checked for their names and types; their meaning is `payload.py`'s."""
        return decode_options(source, self.options)

    def phases(self, options: Options, mode: VolumeMode) -> tuple[Phase, ...]:
        """Only published."""
        return (Phase.PUBLISH,)

    def backend(self, options: Options) -> str:
        """This node."""
        return "local"

    async def publish(
        self,
        volume: VolumeSpec,
        use: Publication,
        *,
        staged: HeldMount | None,
        device: HeldDevice | None,
    ) -> Mounted:
        """Make the directory if need be, and let it show the payload, all at once."""
        payload, target = use.payload, use.target
        assert payload is not None
        trees = self.host.trees
        mode = DIRECTORY_MODE | (SETGID if use.fs_group is not None else 0)
        mount_id = 0
        try:
            trees.ensure_dir(target.rpartition("/")[0], mode=PARENT_MODE)
            if self.in_memory:
                mount_id = ensure_tmpfs(
                    self.host,
                    target,
                    TmpfsOptions(
                        size_bytes=TMPFS_MAX_BYTES,
                        mode=mode | STICKY,
                        gid=use.fs_group or 0,
                        no_swap=True,
                    ),
                )
            elif not trees.ensure_dir(target, mode=mode, gid=use.fs_group):
                foreign = self.host.mounts.find_mount_at(target)
                if foreign is not None:
                    raise refuse_cover(foreign)
            trees.write_payload(target, payload, gid=use.fs_group)
        except HostError as error:
            raise explain_failure(error, target) from error
        held = HeldMount(target, mount_id, fingerprint=payload.fingerprint)
        count = len(payload.files)
        return Mounted("1 file" if count == 1 else f"{count} files", held)

    async def unpublish(self, published: HeldMount) -> Done:
        """Take the directory away; the content is the API's."""
        path = published.path
        if self.in_memory:
            await unmount_tmpfs(self.host, published)
            await remove_mount_point(self.host, path)
            return Done("unmounted")
        try:
            await self.host.trees.remove_tree(path)
        except Absent:
            return Done("gone already")
        except Busy as error:
            raise await explain_busy(self.host, error, path) from error
        return Done("removed")


def make_api_backed_drivers(host: Host) -> tuple[ApiBackedDriver, ...]:
    """The four kinds."""
    return (
        ApiBackedDriver(host, DriverName("kubernetes.io/secret"), SecretOptions, True),
        ApiBackedDriver(host, DriverName("kubernetes.io/configmap"), ConfigMapOptions, False),
        ApiBackedDriver(host, DriverName("kubernetes.io/downward-api"), DownwardAPIOptions, True),
        ApiBackedDriver(host, DriverName("kubernetes.io/projected"), ProjectedOptions, True),
    )
