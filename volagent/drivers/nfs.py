"""nfs: an export of a server, mounted for each pod by itself.

Whatever may be mounted at a pod's directory is never touched from this process, not even by a
`stat`: its server may be dead. What stands there is read from the mount table; mounting and
unmounting happen in children with a bound, behind the bulkhead of their server (`nfs:<server>`).

Unmounting a dead server's mount goes in three bounded steps: umount, `umount -f` (gives up the
requests that wait), and, when even that does not come back, MNT_DETACH: the mount leaves the pod
at once, and the kernel goes on trying to write what it holds. That last step is said in the
evidence. A *live* server's mount that is busy is never torn away; its holders are named.
"""

import errno
import re
from dataclasses import dataclass
from typing import Final

from volagent.drivers.binding import (
    DETACH,
    DIRECTORY_MODE,
    STACKED_MAX,
    explain_contents,
    find_standing,
    refuse_cover,
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
from volagent.drivers.failures import explain_busy, explain_failure
from volagent.drivers.options import decode_options
from volagent.host.contract import Host, MountEntry, MountId
from volagent.host.errors import Absent, Busy, HostError, NotEmpty, NotTried, TimedOut, Unsupported

NFS: Final = DriverName("kubernetes.io/nfs")
FS_TYPE: Final = "nfs"

# A host name, or an IPv4 or IPv6 address with an optional zone. No comma, space, slash, quote:
# nothing that mount.nfs could read as an option or as a second server.
_SERVER: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\.?")
_IPV6: Final = re.compile(r"[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*(%[A-Za-z0-9._-]+)?")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")

_REMEDIES: Final = {
    errno.EACCES: "allow this node in the server's exports, and run `exportfs -ra` there",
    errno.EPERM: "allow this node in the server's exports; the server may want a port below 1024",
    errno.ENOENT: "make and export that directory on the server: `showmount -e SERVER`",
    errno.ETIMEDOUT: "see whether the server is up and reachable (port 2049)",
    errno.ECONNREFUSED: "start the NFS server there, or correct the address",
    errno.EHOSTUNREACH: "see whether the server's name and address are right, and reachable",
    errno.ENETUNREACH: "see whether this node has a route to the server",
    errno.EPROTONOSUPPORT: "ask for a version that the server has: mountOptions [vers=4.1]",
    errno.ESTALE: "the export was replaced on the server: run `exportfs -ra` there",
}


class NfsOptions(Options, frozen=True, rename="camel"):
    """The source as Kubernetes has it."""

    server: str
    path: str
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class NfsDriver:
    """Mounts exports of NFS servers."""

    host: Host
    mount_timeout_s: float
    unmount_timeout_s: float
    """Of each step of taking down; there are up to three."""
    name: DriverName = NFS

    def read_options(self, source: VolumeSource) -> Options:
        """Raises `Rejected` for a server or a path that could mean something else to mount.nfs."""
        options = decode_options(source, NfsOptions)
        server, path = options.server, options.path
        bare = server[1:-1] if server.startswith("[") and server.endswith("]") else server
        if not (_SERVER.fullmatch(server) or _IPV6.fullmatch(bare)):
            raise Rejected(
                f"nfs.server: {server!r} is no host name or address",
                remedy="such as nfs.example.org, 192.0.2.10 or 2001:db8::10",
            )
        if not path.startswith("/") or ".." in path.split("/") or _CONTROL.search(path):
            raise Rejected(
                f"nfs.path: {path!r} is not an absolute path without '..'",
                remedy="the path as the server exports it",
            )
        return NfsOptions(bare, path, options.read_only)

    def phases(self, options: Options, mode: VolumeMode) -> tuple[Phase, ...]:
        """Only published."""
        if mode is VolumeMode.BLOCK:
            raise Rejected("volumeMode Block is not possible with nfs", remedy="use Filesystem")
        return (Phase.PUBLISH,)

    def backend(self, options: Options) -> str:
        """The server."""
        assert isinstance(options, NfsOptions)
        return f"nfs:{options.server}"

    async def publish(
        self,
        volume: VolumeSpec,
        use: Publication,
        *,
        staged: HeldMount | None,
        device: HeldDevice | None,
    ) -> Mounted:
        """Mount the export at the pod's directory."""
        options = volume.options
        assert isinstance(options, NfsOptions)
        source, target = format_source(options), use.target
        standing = find_standing(self.host, target)
        if standing is not None:
            return _keep(standing, source, volume.backend)
        try:
            self.host.trees.ensure_dir(target, mode=DIRECTORY_MODE)
            mount_id = await self.host.mounts.mount_network(
                source,
                target,
                fs_type=FS_TYPE,
                options=choose_options(volume, use),
                backend=volume.backend,
                timeout_s=self.mount_timeout_s,
            )
        except HostError as error:
            failure = _explain_mount(error, volume, options)
            if not isinstance(failure, Uncertain):
                remove_quietly(self.host, target)
            raise failure from error
        entry = self.host.mounts.find_mount(mount_id)
        number = entry.device if entry is not None else ""
        return Mounted(
            f"{source} mounted", HeldMount(target, mount_id, volume.backend, device=number)
        )

    async def unpublish(self, published: HeldMount) -> Done:
        """Unmount, by force if the server is dead, and remove the pod's directory."""
        path, how = published.path, "removed"
        held = self.host.mounts.find_mount(MountId(published.mount_id))
        standing = held if held is not None and held.mount_point == path else None
        try:
            for _ in range(STACKED_MAX):
                if standing is not None:
                    how = await self._unmount(published)
                try:
                    remove_target(self.host, path)
                    break
                except Busy:
                    standing = find_standing(self.host, path)
                    if standing is None or not standing.fs_type.startswith(FS_TYPE):
                        raise
            else:
                raise Transient(f"mounts keep appearing at {path}", remedy="see who mounts there")
        except Busy as error:
            raise await explain_busy(self.host, error, path) from error
        except NotEmpty as error:
            raise explain_contents(error, path) from error
        return Done(how)

    async def _unmount(self, published: HeldMount) -> str:
        """Three steps, each bounded; what was done, in words. Raises `Busy` of a live server."""
        path, backend = published.path, published.backend
        unmount, timeout_s = self.host.mounts.unmount_slowly, self.unmount_timeout_s
        try:
            await unmount(path, backend=backend, timeout_s=timeout_s, force=False, lazy=False)
            return "unmounted"
        except Absent:
            return "was not mounted any more"
        except TimedOut:
            pass  # (1) the server does not answer
        try:
            await unmount(path, backend=backend, timeout_s=timeout_s, force=True, lazy=False)
            return "unmounted by force: the server did not answer, unwritten data is lost"
        except Absent:
            return "unmounted late: the server did not answer in time"
        except (TimedOut, Busy):
            pass  # (2) requests that cannot be given up
        try:
            await unmount(
                path, backend=f"{DETACH} {backend}", timeout_s=timeout_s, force=False, lazy=True
            )  # (3)
        except Absent:
            return "unmounted late: the server did not answer in time"
        except TimedOut as error:
            raise Uncertain(
                f"not even detaching came back: {error}",
                remedy="see why the server is dead; if it never returns, restart this node",
            ) from error
        return "lazily detached: the server did not answer, data may be in flight"


def format_source(options: NfsOptions) -> str:
    """`server:path`, with the brackets that an IPv6 address needs."""
    server = f"[{options.server}]" if ":" in options.server else options.server
    return f"{server}:{options.path}"


def choose_options(volume: VolumeSpec, use: Publication) -> tuple[str, ...]:
    """The declared mount options, `ro` when nobody may write, and one attempt per call.

    mount.nfs would go on trying for two minutes by itself; the node's back-off does that better,
    and says why. An option given by the user wins.
    """
    chosen = list(volume.mount_options)
    words = [word for option in chosen for word in option.split(",")]
    if (volume.read_only or use.read_only) and "ro" not in words:
        chosen.append("ro")
    if not any(word.startswith("retry=") for word in words):
        chosen.append("retry=0")
    return tuple(chosen)


def _keep(standing: MountEntry, source: str, backend: str) -> Mounted:
    """What stands there already, if it is the export that is wanted."""
    if standing.source != source or not standing.fs_type.startswith(FS_TYPE):
        raise refuse_cover(standing)
    held = HeldMount(standing.mount_point, standing.mount_id, backend, device=standing.device)
    return Mounted(f"{source} is mounted already", held)


def _explain_mount(error: HostError, volume: VolumeSpec, options: NfsOptions) -> DriverError:
    """Who has to do what about a mount that failed. mount.nfs leaves nothing when it fails."""
    remedy = _REMEDIES.get(error.errno, "").replace("SERVER", options.server)
    if isinstance(error, NotTried):
        return Transient(str(error), remedy=remedy)
    if isinstance(error, TimedOut):
        return Uncertain(str(error), remedy=remedy)
    if isinstance(error, Unsupported) and error.errno != errno.EPROTONOSUPPORT:
        if "helper program" in error.detail:
            remedy = "apt-get install nfs-common"
        else:
            remedy = "this kernel has no NFS client: modprobe nfs, or install a kernel that has one"
        return Transient(str(error), remedy=remedy)
    if error.errno == errno.EINVAL:
        return Rejected(
            f"{error} (mountOptions: {', '.join(volume.mount_options) or 'none'})",
            remedy="correct mountOptions of the PersistentVolume, or the server's path",
        )
    if error.errno in _REMEDIES:
        return Transient(str(error), remedy=remedy)
    return explain_failure(error, format_source(options))
