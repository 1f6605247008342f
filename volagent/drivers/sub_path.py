"""subPath: one directory or file of a volume, bound where no container can exchange it.

Not a kind of volume that anybody declares: the node wants one for each `subPath` of a container,
once the volume itself is published, and takes it down before it. Everything inside the volume
belongs to the pod's author and may change under our hands, so the path is resolved by descriptors
(`Mounts.bind_sub_path`) and only the bound result is handed to the runtime.
"""

from dataclasses import dataclass

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
from volagent.drivers.errors import Rejected, Transient
from volagent.drivers.failures import explain_busy
from volagent.host.contract import BindOptions, FileKind, Host, MountId
from volagent.host.errors import Absent, Busy, Escapes

SUB_PATH_DRIVER = DriverName("volagent.dev/sub-path")
NEW_DIRECTORY_MODE = 0o750


class SubPathOptions(Options, frozen=True):
    """What to bind."""

    root: str
    """The published volume."""
    sub_path: str
    backend: str = "local"


@dataclass(frozen=True, slots=True)
class SubPathDriver:
    """Binds sub-paths of published volumes."""

    host: Host
    name: DriverName = SUB_PATH_DRIVER

    def read_options(self, source: VolumeSource) -> Options:
        """The options as the node made them."""
        return SubPathOptions(**source.body)

    def phases(self, options: Options, mode: VolumeMode) -> tuple[Phase, ...]:
        """Only published."""
        return (Phase.PUBLISH,)

    def backend(self, options: Options) -> str:
        """That of the volume: resolving a path on a dead server hangs."""
        assert isinstance(options, SubPathOptions)
        return options.backend

    async def publish(
        self,
        volume: VolumeSpec,
        use: Publication,
        *,
        staged: HeldMount | None,
        device: HeldDevice | None,
    ) -> Mounted:
        """Bind the path; missing directories are made inside the volume."""
        options = volume.options
        assert isinstance(options, SubPathOptions)
        trees = self.host.trees
        trees.ensure_dir(use.target.rpartition("/")[0], mode=NEW_DIRECTORY_MODE)
        try:
            mount_id = self.host.mounts.bind_sub_path(
                options.root, options.sub_path, use.target, BindOptions(recursive=True),
                NEW_DIRECTORY_MODE,
            )  # fmt: skip
        except Escapes as error:
            raise Rejected(
                f"subPath `{options.sub_path}` leads outside of the volume: {error}",
                remedy="remove the link that points outside, or use another subPath",
            ) from error
        except Absent as error:
            raise Transient(f"failed to prepare subPath `{options.sub_path}`: {error}") from error
        return Mounted(
            f"subPath {options.sub_path}", HeldMount(use.target, mount_id, options.backend)
        )

    async def unpublish(self, published: HeldMount) -> Done:
        """Unmount the bind and remove its placeholder and the directories above it."""
        host, target = self.host, published.path
        try:
            if published.mount_id:
                host.mounts.unmount(target, expect=MountId(published.mount_id))
        except Absent:
            pass
        except Busy as error:
            raise await explain_busy(host, error, target) from error
        if host.trees.inspect(target) is FileKind.DIRECTORY:
            host.trees.remove_dir(target)
        else:
            host.trees.remove_file(target)
        return Done("unbound")
