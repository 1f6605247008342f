"""Block devices on a real kernel: `Devices`.

Rule one: nothing is formatted that is not provably blank. blkid must find no signature, what it
does not know must not be there either (`blank.py`), every read must succeed, and all that is asked
again while others are kept out (exclusive open, then a lock that mkfs inherits, so that it lasts as
long as mkfs even when the agent is killed). One exception keeps an interrupted format from blocking
an image for ever: the remains of a format that *we* began on a blank image, as noted on that image,
count as blank as long as nothing in them has a signature.

Every device is a backend of its own: a sick disk delays nobody else.
"""

import asyncio
import errno
import fcntl
import os
import time
from typing import TYPE_CHECKING, Final

from volagent.host import block_devices, filesystems, images, loop, partitions
from volagent.host.contract import BlockDevice, CheckReport, Signature
from volagent.host.errors import Busy, HostError, Unsupported

if TYPE_CHECKING:
    from volagent.host.process import Helpers, Outcome

PROBE_TIMEOUT_S: Final = 60.0
FORMAT_TIMEOUT_S: Final = 600.0
CHECK_TIMEOUT_S: Final = 3600.0
FLUSH_TIMEOUT_S: Final = 300.0
GROW_TIMEOUT_S: Final = 600.0
GROWN_BYTES_MIN: Final = 1 << 20
"""A file system may leave this much at the end of its device: less than a group of blocks."""
LOCK_WAIT_S: Final = 10.0
"""udev locks a device while its rules look at it: 0.1 s, and seconds on a busy machine."""
LOCK_PAUSE_FIRST_S: Final = 0.02
LOCK_PAUSE_MAX_S: Final = 0.25


class RealDevices:
    """`Devices` on this machine."""

    def __init__(self, *, helpers: "Helpers") -> None:
        self._helpers = helpers
        self._attaching = asyncio.Lock()

    async def create_image(self, path: str, *, size_bytes: int) -> bool:
        """Make a sparse file of that size when there is none."""

        def create() -> bool:
            return images.create(path, size_bytes=size_bytes)

        return await self._helpers.run_in_pool(create)

    async def grow_image(self, path: str, *, size_bytes: int) -> bool:
        """Make an image file at least this large."""

        def grow() -> bool:
            return images.grow(path, size_bytes=size_bytes)

        return await self._helpers.run_in_pool(grow)

    async def attach_loop(self, path: str, *, read_only: bool) -> BlockDevice:
        """The loop device of an image file."""

        def attach() -> BlockDevice:
            return loop.attach(path, read_only=read_only)

        # One at a time: others would only find the kernel's free device taken and try again.
        async with self._attaching:
            return await self._helpers.run_in_pool(attach)

    async def detach_loop(self, device: BlockDevice) -> None:
        """Give a loop device back, if it still is the one described."""
        await self._helpers.run_in_pool(loop.detach, device)

    def find_loops(self) -> dict[str, BlockDevice]:
        """All loop devices in use."""
        return loop.find_loops()

    def identify(self, path: str) -> BlockDevice:
        """The block device at a path."""
        return block_devices.identify(path)

    def find_disk(self, serial: str) -> BlockDevice | None:
        """The disk with this serial number."""
        return block_devices.find_disk(serial)

    async def find_partition(self, disk: BlockDevice, number: int) -> BlockDevice:
        """A partition of a disk, or of a map."""
        return await partitions.find_partition(self._helpers, disk, number)

    async def flush(self, device: BlockDevice) -> None:
        """Write out what is cached for a device that nobody holds."""
        await self._helpers.call(
            "flush_device", {"path": device.path, "identity": device.identity},
            backend=_backend(device.path), timeout_s=FLUSH_TIMEOUT_S,
        )  # fmt: skip

    async def probe(self, device: str) -> Signature:
        """What is on a device."""
        found = await self._find_signature(device)
        if found is not None:
            return found
        answer = await self._helpers.call(
            "find_content", {"path": device}, backend=_backend(device), timeout_s=PROBE_TIMEOUT_S
        )
        offset = answer["offset"]
        if offset is None or await self._helpers.run_in_pool(images.is_marked, device):
            return Signature(blank=True)
        return Signature(blank=False, found=f"unknown data (at byte {offset})")

    async def _find_signature(self, device: str) -> Signature | None:
        """What blkid's library finds, or blkid itself where there is no such library."""
        try:
            answer = await self._helpers.call(
                "find_signature", {"path": device},
                backend=_backend(device), timeout_s=PROBE_TIMEOUT_S,
            )  # fmt: skip
        except Unsupported:
            outcome = await self._run(filesystems.blkid_command(device), device, PROBE_TIMEOUT_S)
            said = outcome.stderr.decode(errors="replace")
            return filesystems.read_blkid(device, outcome.returncode, outcome.stdout, said)
        return filesystems.read_facts(answer["facts"])

    async def make_filesystem(self, device: BlockDevice, *, fs_type: str) -> None:
        """Format a blank device."""
        maker = filesystems.find_maker(fs_type, device.path, device.size_bytes)
        program = maker.argv[0]
        lock = await self._lock(device)
        try:
            found = await self.probe(device.path)
            if not found.blank:
                detail = f"refused: it holds {found.fs_type or found.found}"
                raise HostError(program, device.path, errno.EEXIST, detail)
            await self._helpers.run_in_pool(images.mark_formatting, device.path)
            outcome = await self._run(
                (*maker.argv, device.path), device.path, FORMAT_TIMEOUT_S, maker.package, lock
            )
            if outcome.returncode != 0:
                raise HostError(program, device.path, 0, outcome.complaint)
            found = await self.probe(device.path)
            if found.fs_type != fs_type:
                detail = f"succeeded, and yet the device holds {found.fs_type or found.found!r}"
                raise HostError(program, device.path, errno.EIO, detail)
            await self._helpers.run_in_pool(images.unmark_formatting, device.path)
        finally:
            os.close(lock)

    async def _lock(self, device: BlockDevice) -> int:
        """`_lock`, as soon as nobody else has one. Raises `Busy`."""
        ends_s = time.monotonic() + LOCK_WAIT_S
        pause_s = LOCK_PAUSE_FIRST_S
        while (lock := await self._helpers.run_in_pool(_lock, device)) is None:
            if time.monotonic() > ends_s:
                detail = "somebody else is formatting it"
                raise Busy("flock", device.path, errno.EWOULDBLOCK, detail)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, LOCK_PAUSE_MAX_S)
        return lock

    async def check_filesystem(self, device: BlockDevice, *, fs_type: str) -> CheckReport:
        """Replay and repair what is safe to repair, unmounted."""
        command = filesystems.check_command(fs_type, device.path)
        if command is None:
            return CheckReport(clean=True, detail="checked by mounting it")
        if device.read_only:
            return CheckReport(clean=True, detail="not checked: the device is read-only")
        package = filesystems.MAKERS["ext4"].package
        outcome = await self._run(command, device.path, CHECK_TIMEOUT_S, package)
        return filesystems.read_check(device.path, outcome.returncode, outcome.words)

    async def grow(self, device: BlockDevice, *, fs_type: str, mounted_at: str) -> bool:
        """Let the file system fill its device, online."""
        size_bytes = device.size_bytes
        if device.identity.startswith("loop:"):
            size_bytes = await self._helpers.run_in_pool(loop.take_new_size, device)
        before = await self._helpers.run_in_pool(_read_size, device.path, fs_type)
        if size_bytes - before < GROWN_BYTES_MIN:
            return False
        command, package = filesystems.grow_command(fs_type, device.path, mounted_at)
        blocks = os.statvfs(mounted_at).f_blocks
        outcome = await self._run(command, device.path, GROW_TIMEOUT_S, package)
        if outcome.returncode != 0:
            raise HostError(command[0], device.path, 0, outcome.complaint)
        return os.statvfs(mounted_at).f_blocks > blocks

    async def _run(
        self,
        argv: tuple[str, ...],
        device: str,
        timeout_s: float,
        package: str = "util-linux",
        inherit: int | None = None,
    ) -> "Outcome":
        try:
            return await self._helpers.run(
                argv, backend=_backend(device), timeout_s=timeout_s, inherit=inherit
            )
        except Unsupported as error:
            detail = f"{argv[0]} is not installed: apt-get install {package}"
            raise Unsupported(argv[0], device, error.errno, detail) from error


def _backend(device: str) -> str:
    return f"device:{device}"


def _lock(device: BlockDevice) -> int | None:
    """A descriptor that keeps other agents, and udev, away from a device; None while another does.

    Raises `Busy` when the device is in use, `HostError`.

    Held as an advisory lock (systemd's "Locking Block Device Access"), not by the exclusive open,
    which mkfs must be able to make itself.
    """
    try:
        exclusive = os.open(device.path, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC)
    except OSError as error:
        kind = Busy if error.errno == errno.EBUSY else HostError
        raise kind("open", device.path, error.errno or 0, "exclusively") from error
    try:
        found = block_devices.identify(device.path)
        if (found.number, found.identity) != (device.number, device.identity):
            detail = f"this is {found.identity} now, not {device.identity}"
            raise HostError("open", device.path, errno.ESTALE, detail)
        return _take_lock(device.path)
    finally:
        os.close(exclusive)


def _take_lock(path: str) -> int | None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        if isinstance(error, BlockingIOError):
            return None
        raise HostError("flock", path, error.errno or 0) from error
    return fd


def _read_size(path: str, fs_type: str) -> int:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise HostError("open", path, error.errno or 0) from error
    try:
        return filesystems.read_size(fs_type, os.pread(fd, filesystems.SUPERBLOCKS_BYTES, 0))
    except OSError as error:
        raise HostError("read", path, error.errno or 0) from error
    finally:
        os.close(fd)
