"""An LVM thin pool with a thin volume for each disk of a storage node, by LVM's own commands.

What is ours has our name and three tags: `volagent`, the volume, and the directory that it is of
(`host/pool_marker.py`); a fourth says whose the volume was when it was made. A logical volume that
has our name without the tags is neither used nor removed. Everything is looked up when it is asked
for, so what an interrupted call has left is found, and may be asked for again.

LVM locks the volume group, and keeps what it has begun in its metadata: what a power cut has
interrupted is finished by the next command. What changes something is never killed, whatever
becomes of the daemon or of its patience: a disk that is being copied would stand still for good.
Errors are `HostError`: `Busy` when somebody has the device open, ENOSPC, EEXIST for a name that is
not ours, `Unsupported`.
"""

import errno
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from volagent.host.child import OUTPUT_MAX_BYTES
from volagent.host.errors import Busy, HostError, Unsupported
from volagent.host.thin_names import device_of, name_of

if TYPE_CHECKING:
    from volagent.host.process import Helpers, Outcome

TAG: Final = "volagent"
_OWNER: Final = f"{TAG}.owner="
TIMEOUT_S: Final = 120.0
"""A removal waits for the blocks to be given back; LVM asks a device that is in use for 5 s."""
ACTIVATE_TIMEOUT_S: Final = 900.0
"""The pool's metadata is checked before (thin_check): that takes as long as it is large."""
_UNDISTURBED: Final = ("setsid", "--fork", "--wait")
"""In a session of its own, where the end of whoever waits for it does not reach it."""
_NO_PROGRAM: Final = 127
_AT_ONCE: Final = 64
"""Names in one command."""
_POOL_FIELDS: Final = "segtype,zero,lv_size,vg_extent_size,data_percent,metadata_percent"
_VOLUME_FIELDS: Final = "lv_uuid,lv_size,lv_tags,pool_lv,lv_time"


@dataclass(frozen=True, slots=True)
class PoolState:
    """A thin pool as it is now."""

    size_bytes: int
    extent_bytes: int
    """Volumes are multiples of that."""
    data_percent: float
    metadata_percent: float
    """Full metadata makes the pool read-only, whatever room its data has."""
    zeroes: bool
    """Whether a block is zeroed before a volume gets it, so that a new one is blank."""

    def round_up(self, size_bytes: int) -> int:
        """The size that a volume of at least so much has."""
        return -(-size_bytes // self.extent_bytes) * self.extent_bytes


@dataclass(frozen=True, slots=True)
class ThinVolume:
    """A thin volume of ours."""

    uuid: str
    size_bytes: int
    owner: str
    made_s: int
    """Seconds since 1970."""


class ThinPool:
    """One thin pool, for the volumes of one directory."""

    def __init__(self, helpers: "Helpers", name: str, store: str) -> None:
        """`name` is `VG/POOL`, `store` the identity of the directory."""
        self.name = name
        self.group, _, self._pool = name.partition("/")
        self._store = store
        self._helpers = helpers

    def device(self, volume: str) -> str:
        """Where a volume is when it is active."""
        return device_of(self.group, volume)

    async def fetch_state(self) -> PoolState:
        """How full the pool is; it is activated when it is not. Raises `HostError`."""
        state = await self.look()
        if state is None:
            await self._activate([self.name])
            state = await self.look()
        if state is None:
            raise HostError("lvs", self.name, errno.ENODEV, "the pool is not active")
        return state

    async def look(self) -> PoolState | None:
        """The same, and nothing is changed: None of a pool that is not active."""
        rows = await self._report(_POOL_FIELDS, self.name)
        found = rows[0] if rows else {"segtype": "nothing"}
        if found["segtype"] != "thin-pool":
            kind = found["segtype"]
            raise HostError("lvs", self.name, errno.ENODEV, f"is {kind}, no thin pool")
        if not found["data_percent"]:
            return None
        return PoolState(
            int(found["lv_size"]), int(found["vg_extent_size"]), float(found["data_percent"]),
            float(found["metadata_percent"] or 0), found["zero"] == "zero",
        )  # fmt: skip

    async def count_promised(self) -> int:
        """The sizes of all volumes in the pool together, of others' too. Raises `HostError`."""
        # As plain words: a report of a thousand volumes would be longer than what is kept of one.
        done = await self._run(
            "lvs", "--noheadings", "--units", "b", "--nosuffix", "--options", "lv_size",
            "--select", f"pool_lv={self._pool}", self.group,
        )  # fmt: skip
        if len(done.stdout) >= OUTPUT_MAX_BYTES:
            raise HostError("lvs", self.name, errno.EOVERFLOW, "more volumes than can be counted")
        return sum(map(int, done.stdout.split()))

    async def find(self, volume: str) -> ThinVolume | None:
        """A volume of ours. Raises `HostError`: EEXIST when something else has its name."""
        name = name_of(volume)
        rows = await self._report(_VOLUME_FIELDS, "--select", f'lv_name="{name}"', self.group)
        if not rows:
            return None
        row = rows[0]
        tags = row["lv_tags"].split(",")
        if not row["pool_lv"] or not {*self._tags(volume)} <= {*tags}:
            detail = f"it has not the tags {', '.join(self._tags(volume))} of a thin volume"
            raise HostError("lvs", f"{self.group}/{name}", errno.EEXIST, detail)
        owners = [each.removeprefix(_OWNER) for each in tags if each.startswith(_OWNER)]
        return ThinVolume(
            row["lv_uuid"], int(row["lv_size"]), "".join(owners[:1]), int(row["lv_time"])
        )

    async def create(self, volume: str, owner: str, size_bytes: int) -> None:
        """Make an empty volume, which must not be there. Raises `HostError`."""
        await self._run(
            "lvcreate", "--yes", "--type", "thin", "--thinpool", self._pool,
            "--virtualsize", f"{size_bytes}b", *self._naming(volume, owner),
            "--wipesignatures", "n", self.group,
        )  # fmt: skip

    async def copy(self, origin: str, volume: str, owner: str) -> None:
        """Make a volume, which must not be there, that shares the blocks of another.

        What is written to the original waits for that moment. Raises `HostError`.
        """
        await self._run(
            "lvcreate", "--yes", "--snapshot", *self._naming(volume, owner),
            f"{self.group}/{name_of(origin)}",
        )  # fmt: skip

    async def grow(self, volume: str, size_bytes: int) -> None:
        """Make a volume larger than it is, in use, too. Raises `HostError`."""
        await self._run(
            "lvextend", "--yes", "--size", f"{size_bytes}b", f"{self.group}/{name_of(volume)}"
        )

    async def remove(self, volume: str) -> bool:
        """Remove a volume; False when there is none. Raises `Busy`, `HostError`."""
        found = await self.find(volume)
        if found is None:
            return False
        name = f"{self.group}/{name_of(volume)}"
        # By its uuid, too: it is that one, whatever happened since it was looked at.
        await self._run("lvremove", "--yes", "--select", f"lv_uuid={found.uuid}", name)
        if await self.find(volume) is not None:
            raise HostError("lvremove", name, errno.EBUSY, "succeeded, and yet it is there")
        return True

    async def activate(self, volumes: Sequence[str]) -> None:
        """Let volumes have their devices, and go on where a killed command has stopped them.

        Raises `HostError` when one has not, the others have theirs.
        """
        names = [f"{self.group}/{name_of(volume)}" for volume in volumes]
        failed: HostError | None = None
        for start in range(0, len(names), _AT_ONCE):
            try:
                await self._activate(names[start : start + _AT_ONCE])
            except HostError as error:
                failed = failed or error
        if failed is not None:
            raise failed

    async def _activate(self, names: Sequence[str]) -> None:
        await self._run(
            "lvchange", "--activate", "y", "--ignoreactivationskip", *names,
            timeout_s=ACTIVATE_TIMEOUT_S,
        )  # fmt: skip

    def _tags(self, volume: str) -> tuple[str, ...]:
        return TAG, f"{TAG}.volume={volume}", f"{TAG}.store={self._store}"

    def _naming(self, volume: str, owner: str) -> tuple[str, ...]:
        tags = (*self._tags(volume), f"{_OWNER}{owner}")
        flags = tuple(word for tag in tags for word in ("--addtag", tag))
        return ("--name", name_of(volume), *flags, "--setactivationskip", "n")

    async def _report(self, fields: str, *what: str) -> list[dict[str, str]]:
        done = await self._run(
            "lvs", "--reportformat", "json", "--units", "b", "--nosuffix",
            "--config", 'report/time_format="%s"', "--options", fields, *what,
        )  # fmt: skip
        try:
            answer: dict[str, Any] = json.loads(done.stdout)
            rows: list[dict[str, str]] = answer["report"][0]["lv"]
        except (ValueError, LookupError) as error:
            raise HostError("lvs", self.name, 0, f"is no report: {error!r}") from error
        return rows

    async def _run(self, program: str, *words: str, timeout_s: float = TIMEOUT_S) -> "Outcome":
        argv = (program, *words) if program == "lvs" else (*_UNDISTURBED, program, *words)
        missing = f"{program} is not installed: apt-get install lvm2 thin-provisioning-tools"
        try:
            done = await self._helpers.run(argv, backend=f"lvm:{self.group}", timeout_s=timeout_s)
        except Unsupported as error:
            raise Unsupported(program, self.name, error.errno, missing) from error
        if done.returncode == _NO_PROGRAM:
            raise Unsupported(program, self.name, errno.ENOENT, missing)
        if done.returncode:
            raise _explain(program, words[-1], done.complaint)
        return done


def _explain(program: str, subject: str, said: str) -> HostError:
    """What LVM means: it has one exit status for everything."""
    if " in use" in said or "contains a filesystem" in said:
        return Busy(program, subject, errno.EBUSY, said)
    if "free space" in said.lower() or "nsufficient" in said:
        return HostError(program, subject, errno.ENOSPC, said)
    if " not found" in said or "Failed to find" in said:
        return HostError(program, subject, errno.ENODEV, said)
    return HostError(program, subject, 0, said)
