"""emptyDir: scratch space that lives and dies with its pod, on disk, in memory or in huge pages.

Never wiped while the pod lives: publishing again finds what is there. Facts: a directory on disk is
0777 (2777 with fsGroup), a tmpfs 1777 (3777). `sizeLimit` is the size of a tmpfs, so the kernel
enforces it; for a directory no kernel interface does on every file system, which the evidence says.
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
from volagent.drivers.errors import Rejected
from volagent.drivers.failures import explain_busy, explain_failure
from volagent.drivers.options import decode_options
from volagent.drivers.tmpfs import ensure_tmpfs, unmount_tmpfs
from volagent.host.contract import Host, OwnershipPolicy, Propagation, TmpfsOptions
from volagent.host.errors import Absent, Busy, HostError, NotEmpty
from volagent.objects.quantity import QuantityError, parse_bytes

EMPTY_DIR = DriverName("kubernetes.io/empty-dir")
PARENT_MODE = 0o755
DIRECTORY_MODE = 0o777
SETGID = 0o2000
STICKY = 0o1000
MEMORY = "Memory"
HUGE_PAGES = "HugePages"
DEFAULT_HUGE_PAGE_BYTES = 2 << 20
"""`medium: HugePages` without a size: the default of x86-64 and of arm64 with 4 KiB pages."""

OWNERSHIP_TIMEOUT_S = 10.0


class EmptyDirSource(Options, frozen=True, rename="camel"):
    """The source as declared."""

    medium: str = ""
    size_limit: str | int | None = None


class EmptyDirOptions(Options, frozen=True):
    """The source, checked."""

    in_memory: bool = False
    size_limit_bytes: int | None = None
    """None: no limit."""
    huge_page_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class EmptyDirDriver:
    """Makes a pod's scratch directory."""

    host: Host
    name: DriverName = EMPTY_DIR

    def read_options(self, source: VolumeSource) -> Options:
        """Raises `Rejected` for an unknown medium or an unusable limit."""
        declared = decode_options(source, EmptyDirSource)
        limit = _read_limit(declared.size_limit)
        medium = declared.medium
        if medium in ("", MEMORY):
            return EmptyDirOptions(bool(medium), limit)
        if medium.startswith(HUGE_PAGES):
            return EmptyDirOptions(True, limit, _read_page_size(medium))
        raise Rejected(
            f'emptyDir: unknown storage medium "{medium}"',
            remedy=f'"" (disk), {MEMORY}, {HUGE_PAGES} or {HUGE_PAGES}-<size>',
        )

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
        """Make the directory, or find the one that is there with what the pod wrote."""
        options = volume.options
        assert isinstance(options, EmptyDirOptions)
        target = use.target
        try:
            self.host.trees.ensure_dir(target.rpartition("/")[0], mode=PARENT_MODE)
            if options.in_memory:
                return await self._publish_in_memory(options, use)
            setgid = SETGID if use.fs_group is not None else 0
            self.host.trees.ensure_dir(target, mode=DIRECTORY_MODE | setgid, gid=use.fs_group)
        except HostError as error:
            raise explain_failure(error, target) from error
        evidence = "directory on disk"
        if options.size_limit_bytes is not None:
            evidence += f"; sizeLimit of {options.size_limit_bytes} bytes is not enforced on disk"
        return Mounted(evidence, HeldMount(target))

    async def _publish_in_memory(self, options: EmptyDirOptions, use: Publication) -> Mounted:
        page_bytes = options.huge_page_bytes
        mode = DIRECTORY_MODE if page_bytes is not None else DIRECTORY_MODE | STICKY
        if use.fs_group is not None and page_bytes is None:
            mode |= SETGID
        mount_id = ensure_tmpfs(
            self.host,
            use.target,
            TmpfsOptions(
                size_bytes=options.size_limit_bytes,
                mode=mode,
                gid=use.fs_group or 0,
                huge_page_bytes=page_bytes,
                propagation=Propagation.SHARED,  # for containers with `mountPropagation`
            ),
        )
        if page_bytes is not None and use.fs_group is not None:
            # hugetlbfs, unlike tmpfs, drops the setgid bit of its `mode` option.
            await self.host.trees.set_ownership(
                use.target,
                gid=use.fs_group,
                policy=OwnershipPolicy.ON_ROOT_MISMATCH,
                timeout_s=OWNERSHIP_TIMEOUT_S,
            )
        kind = "tmpfs" if page_bytes is None else f"huge pages of {page_bytes} bytes"
        limit = options.size_limit_bytes
        size = f"at most {limit} bytes" if limit is not None else "at most what the kernel allows"
        return Mounted(f"{kind}, {size}", HeldMount(use.target, mount_id))

    async def unpublish(self, published: HeldMount) -> Done:
        """Remove the directory with everything in it."""
        trees, path = self.host.trees, published.path
        await unmount_tmpfs(self.host, published)
        try:
            if published.mount_id:
                try:
                    trees.remove_dir(path)
                    return Done("unmounted")
                except NotEmpty:
                    pass  # scratch too: written while nothing was mounted there
            await trees.remove_tree(path)
        except Absent:
            return Done("gone already")
        except Busy as error:
            raise await explain_busy(self.host, error, path) from error
        return Done("removed with its content")


def _read_limit(size_limit: str | int | None) -> int | None:
    if size_limit is None:
        return None
    try:
        limit = parse_bytes(size_limit)
    except QuantityError as error:
        raise Rejected(f"emptyDir.sizeLimit: {error}", remedy="such as 64Mi") from error
    if limit < 0:
        raise Rejected("emptyDir.sizeLimit: must be greater than or equal to 0")
    return limit or None  # 0 is no limit; to tmpfs and the kubelet alike


def _read_page_size(medium: str) -> int:
    _, dash, size = medium.partition("-")
    if not dash and medium == HUGE_PAGES:
        return DEFAULT_HUGE_PAGE_BYTES
    try:
        page_bytes = parse_bytes(size)
    except QuantityError as error:
        raise Rejected(f"emptyDir.medium {medium}: {error}", remedy="HugePages-2Mi") from error
    if page_bytes <= 0 or page_bytes & (page_bytes - 1):
        raise Rejected(f"emptyDir.medium {medium}: no page has this size", remedy="HugePages-2Mi")
    return page_bytes
