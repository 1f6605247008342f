"""A backend in memory that outlives the controllers, and provisioners over it that misbehave.

`FakeStorage` is what a crash of the controller leaves alone. `FakeProvisioner` keeps the contract
of `drivers/provisioning/contract.py` on it; its `Mishaps` decide call by call what goes wrong. The
fake passes the contract's suite (`tests/contract/provisioners/`) as the real ones do.
"""

import asyncio
from dataclasses import dataclass, field, replace
from datetime import timedelta

from volagent.aio.clock import format_time
from volagent.drivers.contract import Done
from volagent.drivers.errors import Rejected
from volagent.drivers.provisioning.contract import OutOfSpace, ProvisionedVolume, TrashEntry

SERVER = "10.0.0.9"


@dataclass(frozen=True)
class Kept:
    """One volume in the storage, with what its owner marker says."""

    owner: str
    size_bytes: int
    whole: bool = True


@dataclass
class FakeStorage:
    """Volumes by name, and the trash."""

    room_bytes: int = 1 << 50
    volumes: dict[str, Kept] = field(default_factory=dict)
    trash: dict[str, tuple[Kept, TrashEntry, float]] = field(default_factory=dict)
    made: list[str] = field(default_factory=list)
    """The name of every volume that was made, in order, made again included."""

    @property
    def used_bytes(self) -> int:
        return sum(kept.size_bytes for kept in self.volumes.values())


class Mishaps:
    """Nothing goes wrong."""

    async def before(self, call: str, name: str) -> None:
        """Before anything is done: may raise, hang or die."""

    async def between(self, call: str, name: str) -> None:
        """With half of it done."""

    async def after(self, call: str, name: str) -> None:
        """When it is done, before the answer."""

    def lies(self, name: str) -> bool:
        """Whether a volume is called made that is not."""
        return False


class FakeProvisioner:
    """Makes volumes in a `FakeStorage`."""

    def __init__(self, name, storage, clock, *, node="", mishaps=None, on_reclaim=None):
        self.name = name
        self.node = node
        self.storage = storage
        self.clock = clock
        self.mishaps = mishaps or Mishaps()
        self.on_reclaim = on_reclaim
        """Awaited with every request right before the data goes."""

    def check(self, parameters, mode, access_modes):
        unknown = parameters.keys() - {"tier", "csi.storage.k8s.io/fstype"}
        if unknown:
            raise Rejected(f'unknown parameter "{min(unknown)}"', remedy="the fake has: tier")

    async def create(self, request):
        await self.mishaps.before("create", request.name)
        found = self.storage.volumes.get(request.name)
        if found is not None and found.owner != request.owner:
            raise Rejected(f"{request.name} belongs to {found.owner}")
        if found is None:
            if self.storage.used_bytes + request.capacity_bytes > self.storage.room_bytes:
                raise OutOfSpace(
                    f"{request.capacity_bytes} bytes do not fit", remedy="free some space"
                )
            found = Kept(request.owner, request.capacity_bytes, whole=False)
            if not self.mishaps.lies(request.name):
                self.storage.made.append(request.name)
                self.storage.volumes[request.name] = found
        await self.mishaps.between("create", request.name)
        if request.name in self.storage.volumes:
            self.storage.volumes[request.name] = replace(found, whole=True)
        await self.mishaps.after("create", request.name)
        return ProvisionedVolume(
            source={"nfs": {"server": SERVER, "path": f"/{request.name}"}},
            capacity_bytes=found.size_bytes,
            node_affinity=self._affinity(),
            labels={"made-by": "fake"},
            annotations={"fake.test/place": request.name},
            evidence="in memory",
        )

    async def reclaim(self, request):
        await self.mishaps.before("reclaim", request.name)
        if self.on_reclaim is not None:
            await self.on_reclaim(request)
        place = request.source["nfs"]["path"].removeprefix("/")
        found = self.storage.volumes.get(place)
        if found is None:
            return Done(evidence="it was gone")
        if found.owner != request.owner:
            raise Rejected(
                f"{place} belongs to {found.owner}, not to {request.owner}",
                remedy="see who put it there",
            )
        del self.storage.volumes[place]
        if request.keep_s:
            id = f"{self.name}/{place}-{len(self.storage.trash)}"
            now = self.clock.wall()
            entry = TrashEntry(
                id=id, name=request.name, claim=_claim_of(request.manifest),
                deleted_at=format_time(now),
                expires_at=format_time(now + timedelta(seconds=request.keep_s)),
                size_bytes=found.size_bytes, where=place, manifest=request.manifest,
            )  # fmt: skip
            self.storage.trash[id] = (found, entry, self.clock.monotonic() + request.keep_s)
        await self.mishaps.after("reclaim", request.name)
        return Done(evidence="moved to the trash" if request.keep_s else "deleted")

    async def discard(self, request):
        await self.mishaps.before("discard", request.name)
        found = self.storage.volumes.get(request.name)
        if found is not None and found.owner != request.owner:
            raise Rejected(f"{request.name} belongs to {found.owner}")
        self.storage.volumes.pop(request.name, None)
        await self.mishaps.after("discard", request.name)
        return Done(evidence="deleted")

    async def list_trash(self):
        await self.mishaps.before("list", "")
        return [entry for _, entry, _ in self.storage.trash.values()]

    async def restore(self, id):
        await self.mishaps.before("restore", id)
        if id not in self.storage.trash:
            raise Rejected(f"{id} is not in the trash")
        kept, entry, _ = self.storage.trash[id]
        if entry.where in self.storage.volumes:
            raise Rejected(f"something else is at {entry.where}")
        del self.storage.trash[id]
        self.storage.volumes[entry.where] = kept
        await self.mishaps.after("restore", id)
        return entry.manifest

    async def purge(self, id):
        await self.mishaps.before("purge", id)
        self.storage.trash.pop(id, None)
        return Done(evidence="deleted")

    async def sweep(self):
        await self.mishaps.before("sweep", "")
        now_s = self.clock.monotonic()
        left = {id: each for id, each in self.storage.trash.items() if each[2] > now_s}
        self.storage.trash = left
        return min((expires_s - now_s for _, _, expires_s in left.values()), default=None)

    def _affinity(self):
        if not self.node:
            return None
        expression = {"key": "kubernetes.io/hostname", "operator": "In", "values": [self.node]}
        return {"required": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}}


def _claim_of(manifest):
    reference = manifest.get("spec", {}).get("claimRef") or {}
    return f"{reference.get('namespace', '')}/{reference.get('name', '')}"


async def hang():
    """Never answer."""
    await asyncio.Event().wait()
