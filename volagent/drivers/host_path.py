"""hostPath: a path of this VM, handed over as it is.

Nothing is mounted and nothing is left under the pod's directory: the path itself is recorded, so
that the hand-over finds it, and taking the volume down touches nothing. A path is looked at only
when its declaration asks for a check, and so that a dead server behind it delays nothing else.
Texts as in the kubelet's `pkg/volume/hostpath`, except that a missing path is called missing.
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
from volagent.drivers.failures import explain_failure
from volagent.drivers.options import decode_options
from volagent.host.contract import FileKind, Host
from volagent.host.errors import Absent, HostError

HOST_PATH = DriverName("kubernetes.io/host-path")
NEW_DIRECTORY_MODE = 0o755
NEW_FILE_MODE = 0o644
INSPECT_TIMEOUT_S = 10.0

_KINDS = {
    "Directory": (FileKind.DIRECTORY, "a directory"),
    "DirectoryOrCreate": (FileKind.DIRECTORY, "a directory"),
    "File": (FileKind.FILE, "a file"),
    "FileOrCreate": (FileKind.FILE, "a file"),
    "Socket": (FileKind.SOCKET, "a socket file"),
    "CharDevice": (FileKind.CHARACTER_DEVICE, "a character device"),
    "BlockDevice": (FileKind.BLOCK_DEVICE, "a block device"),
}


class HostPathOptions(Options, frozen=True):
    """The source: where, and what must be there ("": anything, unchecked)."""

    path: str
    type: str | None = None


@dataclass(frozen=True, slots=True)
class HostPathDriver:
    """Checks a path of this VM and lets it be handed over."""

    host: Host
    name: DriverName = HOST_PATH

    def read_options(self, source: VolumeSource) -> Options:
        """Raises `Rejected` for a path with `..` or an unknown type."""
        options = decode_options(source, HostPathOptions)
        path = options.path
        if not path.startswith("/") or "\0" in path:
            raise Rejected(f"invalid HostPath `{path}`: must be an absolute path")
        parts = path.split("/")
        if ".." in parts:
            raise Rejected(f"invalid HostPath `{path}`: must not contain '..'")
        if options.type and options.type not in _KINDS:
            raise Rejected(
                f"hostPath: {options.type} is an invalid volume type",
                remedy=f'"" or one of {", ".join(_KINDS)}',
            )
        clean = "/" + "/".join(part for part in parts if part not in ("", "."))
        return HostPathOptions(clean, options.type)

    def phases(self, options: Options, mode: VolumeMode) -> tuple[Phase, ...]:
        """Only published."""
        return (Phase.PUBLISH,)

    def backend(self, options: Options) -> str:
        """The path itself: it may lead to a server's file system, and that server may be dead."""
        assert isinstance(options, HostPathOptions)
        return f"hostPath:{options.path}"

    async def publish(
        self,
        volume: VolumeSpec,
        use: Publication,
        *,
        staged: HeldMount | None,
        device: HeldDevice | None,
    ) -> Mounted:
        """Check the path, and make what the type says is to be made."""
        options = volume.options
        assert isinstance(options, HostPathOptions)
        held = HeldMount(options.path, backend=volume.backend)
        if not options.type:
            return Mounted("not checked", held)
        wanted, words = _KINDS[options.type]
        try:
            found = await self._inspect(options.path, volume.backend)
            if found is None and options.type.endswith("OrCreate"):
                await self._make(options.path, wanted, volume.backend)
                return Mounted(f"{words}, made now", held)
        except HostError as error:
            raise explain_failure(error, options.path) from error
        if found is None:
            raise Transient(
                f"hostPath type check failed: {options.path} does not exist",
                remedy=f"make {words} at {options.path} on this node",
            )
        if found is not wanted:
            raise Transient(
                f"hostPath type check failed: {options.path} is not {words} (it is a "
                f"{found.value})",
                remedy="correct the path or its type",
            )
        return Mounted(words, held)

    async def _inspect(self, path: str, backend: str) -> FileKind | None:
        return await self.host.trees.inspect_slowly(
            path, backend=backend, timeout_s=INSPECT_TIMEOUT_S
        )

    async def _make(self, path: str, wanted: FileKind, backend: str) -> None:
        trees = self.host.trees
        if wanted is FileKind.DIRECTORY:
            missing = [path]
            while parent := missing[-1].rpartition("/")[0]:
                if await self._inspect(parent, backend) is not None:
                    break
                missing.append(parent)
            for directory in reversed(missing):
                trees.ensure_dir(directory, mode=NEW_DIRECTORY_MODE, follow_links=True)
            return
        try:
            trees.ensure_file(path, mode=NEW_FILE_MODE, follow_links=True)
        except Absent as error:
            parent = path.rpartition("/")[0]
            raise Transient(
                f"hostPath type check failed: {path} cannot be made, {parent} does not exist",
                remedy=f"make the directory {parent} on this node",
            ) from error

    async def unpublish(self, published: HeldMount) -> Done:
        """Nothing: the path is the VM's."""
        return Done("nothing was mounted")
