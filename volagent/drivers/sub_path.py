"""subPath: one directory or file of a volume, bound where no container can exchange it.

Not a kind of volume that anybody declares: the node wants one for each `subPath` of a container,
once the volume itself is published, and takes it down before it. Everything inside the volume
belongs to the pod's author and may change under our hands, so the path is resolved by descriptors
(`Mounts.bind_sub_path`) and only the bound result is handed to the runtime. When the volume's
server can hang, all of that happens in a child process with a bound, and what stands at the target
is read from the mount table: this process touches neither.
"""

import errno
from dataclasses import dataclass
from functools import partial
from typing import Final

from msgspec.structs import replace

from volagent.drivers.binding import (
    DETACH,
    STACKED_MAX,
    explain_contents,
    find_standing,
    remove_quietly,
    remove_target,
)
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
from volagent.drivers.errors import DriverError, Rejected, Transient, Uncertain
from volagent.drivers.failures import explain_busy
from volagent.host.contract import BindOptions, Host, MountId, Propagation
from volagent.host.errors import Absent, Busy, Escapes, HostError, NotEmpty, NotTried, TimedOut

SUB_PATH_DRIVER: Final = DriverName("volagent.dev/sub-path")
LOCAL: Final = "local"
BIND_TIMEOUT_S: Final = 30.0
UNMOUNT_TIMEOUT_S: Final = 10.0
_BIND: Final = BindOptions(recursive=True, propagation=Propagation.SHARED)
"""With what is mounted below, and a peer group of its own, as `mountPropagation` needs."""


class SubPathOptions(Options, frozen=True):
    """What to bind."""

    root: str
    """The published volume."""
    sub_path: str
    backend: str = LOCAL
    named_by_user: bool = False
    """The root is a path of this VM (hostPath): links on the way to it are followed."""


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
        options, target = volume.options, use.target
        assert isinstance(options, SubPathOptions)
        held = HeldMount(target, backend="" if options.backend == LOCAL else options.backend)
        await self._clear(held)
        try:
            mount_id = await self._bind(options, held)
        except HostError as error:
            failure = _explain_bind(error, options)
            if not isinstance(failure, Uncertain):
                remove_quietly(self.host, target)
            raise failure from error
        return Mounted(f"subPath {options.sub_path}", replace(held, mount_id=mount_id))

    async def _clear(self, held: HeldMount) -> None:
        """A bind that stands although no record tells of it may show anything: it goes first."""
        mounts = self.host.mounts
        find = partial(find_standing, self.host) if held.backend else mounts.find_mount_at
        standing = find(held.path)
        if standing is not None:
            await self.unpublish(replace(held, mount_id=standing.mount_id))

    async def _bind(self, options: SubPathOptions, held: HeldMount) -> MountId:
        mounts, target = self.host.mounts, held.path
        if not held.backend:
            return mounts.bind_sub_path(
                options.root, options.sub_path, target, _BIND, None,
                follow_links=options.named_by_user,
            )  # fmt: skip
        return await mounts.bind_sub_path_slowly(
            options.root, options.sub_path, target, _BIND, None,
            backend=held.backend, timeout_s=BIND_TIMEOUT_S, follow_links=options.named_by_user,
        )  # fmt: skip

    async def unpublish(self, published: HeldMount) -> Done:
        """Unmount the bind and remove the placeholder on which it stood."""
        host, path, how = self.host, published.path, "removed"
        try:
            if published.mount_id and published.backend:
                how = await self._unmount_slowly(published)
            elif published.mount_id:
                how = self._unmount(published)
            remove_target(host, path)
        except Busy as error:
            raise await explain_busy(host, error, path) from error
        except NotEmpty as error:
            raise explain_contents(error, path) from error
        return Done(how)

    def _unmount(self, published: HeldMount) -> str:
        try:
            self.host.mounts.unmount(published.path, expect=MountId(published.mount_id))
        except Absent:
            return "was not mounted any more"
        return "unbound"

    async def _unmount_slowly(self, published: HeldMount) -> str:
        """All that stands there, if the one that is held does: whoever binds may be late."""
        path, how = published.path, "was not mounted any more"
        held = self.host.mounts.find_mount(MountId(published.mount_id))
        standing = held if held is not None and held.mount_point == path else None
        for _ in range(STACKED_MAX):
            if standing is None:
                break
            how = await self._unmount_one(path, published.backend)
            standing = find_standing(self.host, path)
        return how

    async def _unmount_one(self, path: str, backend: str) -> str:
        """Never by force: that would abort the requests of everybody who uses the server."""
        unmount = self.host.mounts.unmount_slowly
        try:
            await unmount(
                path, backend=backend, timeout_s=UNMOUNT_TIMEOUT_S, force=False, lazy=False
            )
            return "unbound"
        except Absent:
            return "was not mounted any more"
        except TimedOut:
            pass  # the server is dead; the volume itself is still mounted, so nothing can be lost
        try:
            await unmount(
                path, backend=f"{DETACH} {backend}", timeout_s=UNMOUNT_TIMEOUT_S,
                force=False, lazy=True,
            )  # fmt: skip
        except Absent:
            return "unbound late: the server did not answer in time"
        except TimedOut as error:
            raise Uncertain(
                f"not even detaching came back: {error}",
                remedy="see why the server is dead; if it never returns, restart this node",
            ) from error
        return "lazily detached: the server did not answer"


def _explain_bind(error: HostError, options: SubPathOptions) -> DriverError:
    """Who has to do what about a sub-path that cannot be bound."""
    text = f"failed to prepare subPath `{options.sub_path}`: {error}"
    match error:
        case Escapes():
            return Rejected(
                f"subPath `{options.sub_path}` leads outside of the volume: {error}",
                remedy="remove the link that points outside, or use another subPath",
            )
        case Absent() | NotTried():
            return Transient(text)
        case TimedOut():
            return Uncertain(text, remedy=f"see why {options.backend} does not answer")
        case HostError(errno=errno.ENOTDIR):
            return Transient(text, remedy="something on the way in the volume is not a directory")
        case HostError(errno=errno.EROFS):
            return Transient(text, remedy="make the directory in the volume: it is read-only here")
        case _:
            return Uncertain(text)
