"""A directory in which volumes are made, each in a directory of its own: of this VM, or exported.

Owner markers are in `.volagent`, the trash is beside the data, nothing is entered through a link or
another mount (`host/exports.py`). Where the calls run is given: for a local file system in the pool
of threads (`in_pool`), for a server's in processes that can be killed (`nfs_mount.py`).
"""

import errno
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from volagent.aio.clock import Clock, format_time
from volagent.drivers.contract import Done
from volagent.drivers.errors import DriverError, Rejected, Transient, Uncertain
from volagent.drivers.provisioning.contract import OutOfSpace, TrashEntry
from volagent.host import exports, shown
from volagent.host.errors import Absent, HostError
from volagent.host.process import Helpers
from volagent.objects.meta import Document
from volagent.objects.node_affinity import HOSTNAME

PURGE_BUDGET_S = 30.0
"""Deleting goes on in the next call after so long, so that a large tree keeps no thread busy."""
FOUND_KEEP_S = 86400
"""How long files are kept that somebody has put into a volume that was never one."""
REMEMBER_S = 30 * 86400.0
"""How long it is remembered that a volume was deleted."""
TIDY_EVERY_S = 3600.0
"""How often it is looked for what is remembered too long, and what was not finished."""

Json = dict[str, Any]
Perform = Callable[[Json], Awaitable[Json]]
"""Does one request of `host/exports.py`. Raises `HostError`."""
RemoveOutside = Callable[[str], Awaitable[None]]
"""Removes what an entry of the trash has elsewhere, by its name, before its directory goes: of any
provisioner that has volumes in it. Raises `DriverError`."""


@dataclass(frozen=True, slots=True)
class Made:
    """A volume's directory."""

    path: str
    project: int = 0
    """The number whose quota limits it; 0: it is not limited."""
    unlimited: str = ""
    """Why its size is not enforced, when that was asked for."""


class Export:
    """One directory of volumes, for one provisioner."""

    def __init__(
        self, perform: Perform, clock: Clock, path: str, provisioner: str, *, known_as: str = "",
        remove_outside: RemoveOutside | None = None,
    ) -> None:  # fmt: skip
        """`known_as` is what people call the directory, when that is not its path here."""
        self._perform = perform
        self._clock = clock
        self.path = path
        self.known_as = known_as or path
        self._provisioner = provisioner
        self._remove_outside = remove_outside
        self._tidy_at_s = 0.0

    async def ask(self, do: str, **request: Any) -> Json:
        """One operation. Raises `Rejected`, `OutOfSpace`, `Transient`, `Uncertain`."""
        now_s = self._clock.wall().timestamp()
        asked = {"do": do, "path": self.path, "now_s": now_s, **request}
        try:
            answer = await self._perform(asked)
        except Absent:
            return {"missing": True}  # nothing was ever made here, or its disk is not mounted
        except HostError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise OutOfSpace(str(error), remedy=f"free space in {self.known_as}") from error
            raise Uncertain(str(error), remedy=f"look at {self.known_as}") from error
        refused = answer.get("refused")
        if refused:
            raise Rejected(refused["fact"], remedy=refused["remedy"])
        if answer.get("used"):
            raise Transient(
                f"{self.known_as}/{request['directory']} is still in use: mounted at "
                f"{', '.join(answer['used'])}",
                remedy="stop what uses it; if nothing does, a mount was left behind: umount it",
            )
        if answer.get("full"):
            available = answer["full"]["available_bytes"]
            elsewhere = ", or let the pod go to another node" if self.known_as == self.path else ""
            raise OutOfSpace(
                f"{self.known_as} has {available >> 20} MiB free",
                remedy=f"ask for less, or free space{elsewhere}",
            )
        return answer

    async def make(
        self, *, name: str, owner: str, directory: str, claim: str, capacity_bytes: int,
        room_bytes: int, ownership: Mapping[str, Any], on_delete: str = "delete",
    ) -> str:  # fmt: skip
        """Make a volume's directory, or find it made; its path."""
        record = {
            "name": name, "owner": owner, "directory": directory, "claim": claim,
            "capacity_bytes": capacity_bytes, "on_delete": on_delete,
        }  # fmt: skip
        return (await self._make(record, room_bytes, ownership, limit=False)).path

    async def make_limited(
        self, *, name: str, owner: str, claim: str, capacity_bytes: int,
        ownership: Mapping[str, Any],
    ) -> Made:  # fmt: skip
        """Make a directory of the volume's name, with a limit where there are project quotas."""
        record = {
            "name": name, "owner": owner, "directory": name, "claim": claim,
            "capacity_bytes": capacity_bytes, "on_delete": "delete",
        }  # fmt: skip
        return await self._make(record, capacity_bytes, ownership, limit=True)

    async def _make(
        self, record: Json, room_bytes: int, ownership: Mapping[str, Any], *, limit: bool
    ) -> Made:
        record["provisioner"] = self._provisioner
        record["created"] = format_time(self._clock.wall())
        answer = await self.ask(
            "create", name=record["name"], record=record, ownership=dict(ownership),
            room_bytes=room_bytes, limit=limit,
        )  # fmt: skip
        kept = answer["record"]
        path = f"{self.path}/{kept['directory']}"
        return Made(path, kept["project"], answer.get("unlimited", ""))

    async def reclaim(
        self, *, name: str, owner: str, directory: str, manifest: Document, keep_s: int,
        how: str = "delete",
    ) -> Done:  # fmt: skip
        """Move a volume into the trash; with `keep_s` 0 out of it at once.

        `how` is `delete`, `retain`, `archive`, or "" for what was noted when it was made.
        """
        answer = await self.ask(
            "reclaim", name=name, owner=owner, directory=directory, how=how,
            manifest=manifest, keep_s=keep_s,
        )  # fmt: skip
        if answer.get("missing"):
            raise Rejected(
                f"there are no volumes in {self.path}",
                remedy="is its disk mounted? If the data is gone for good, set the volume's policy"
                " to Retain",
            )
        state = answer["record"]["state"]
        if keep_s == 0 and state in ("trashed", "purging"):
            return await self.purge(name)
        return Done({"trashed": "in the trash", "deleted": "gone already"}.get(state, state))

    async def discard(self, name: str, owner: str) -> Done:
        """Remove what making a volume may have left; content is kept aside for a day."""
        answer = await self.ask("discard", name=name, owner=owner, keep_s=FOUND_KEEP_S, manifest={})
        return Done(str(answer.get("had", "nothing")))

    async def purge(self, name: str, *, now: bool = True) -> Done:
        """Delete an entry of the trash for good."""
        if self._remove_outside is not None:
            if not (await self.ask("condemn", name=name, now=now)).get("condemned"):
                return Done("deleted")
            await self._remove_outside(name)
        while True:
            answer = await self.ask("purge", name=name, budget_s=PURGE_BUDGET_S, now=now)
            if answer.get("done", True):
                return Done("deleted")

    async def purge_entry(self, id: str) -> Done:
        """Delete an entry of the trash, by the id that `list_trash` gave; gone is a success."""
        return await self.purge(self._name_of(id))

    async def list_trash(self) -> list[TrashEntry]:
        """All entries of this provisioner: others may have volumes on the same export."""
        entries: list[TrashEntry] = []
        after = ""
        while True:
            answer = await self.ask("list_trash", after=after)
            found = answer.get("entries", [])
            entries += [
                self._entry_of(record)
                for record in found
                if record["provisioner"] == self._provisioner
            ]
            if not answer.get("more"):
                return entries
            after = found[-1]["name"]

    async def restore(self, id: str) -> Document:
        """Put an entry back; the manifest of its volume."""
        answer = await self.ask("restore", name=self._name_of(id))
        if answer.get("missing"):
            raise Rejected(f"nothing of {id} is in the trash", remedy="see `volagent trash list`")
        manifest: Document = answer["record"]["manifest"]
        return manifest

    async def sweep(self) -> float | None:
        """Delete what has expired; seconds until the next entry does.

        One that cannot be deleted now does not keep the others.
        """
        failed: DriverError | None = None
        while True:
            answer = await self.ask("sweep", **self._choose_tidying())
            for name in answer.get("expired", ()):
                try:
                    await self.purge(name, now=False)
                except DriverError as error:
                    failed = failed or error
            if failed is not None:
                raise failed
            if not answer.get("expired"):
                break
        next_s = answer.get("next_s")
        return None if next_s is None else max(0.0, next_s - self._clock.wall().timestamp())

    def _choose_tidying(self) -> Json:
        """What a sweep is asked beside the trash, from time to time."""
        now_s = self._clock.monotonic()
        if now_s < self._tidy_at_s:
            return {}
        self._tidy_at_s = now_s + TIDY_EVERY_S
        return {"remember_s": REMEMBER_S}

    def _entry_of(self, record: Json) -> TrashEntry:
        return TrashEntry(
            id=f"{self._provisioner}/{record['name']}",
            name=record["name"],
            claim=record["claim"],
            deleted_at=_format(record["deleted_s"]),
            expires_at=_format(record["expires_s"]),
            size_bytes=record["capacity_bytes"] or None,
            where=f"{self.path}/.volagent/trash/{record['name']}",
            manifest=record["manifest"],
        )

    def _name_of(self, id: str) -> str:
        return id.removeprefix(f"{self._provisioner}/")


def in_pool(helpers: Helpers) -> Perform:
    """For directories of local file systems, made when they are missing.

    What a mount shows is not reclaimed: moved or deleted, files would change under their user.
    """

    def perform(request: Json) -> Json:
        if request["do"] == "create":
            os.makedirs(request["path"], mode=0o755, exist_ok=True)
        elif request["do"] == "reclaim":
            uses = shown.find_uses(f"{request['path']}/{request['directory']}")
            if uses:
                return {"used": uses}
        return exports.perform(request)

    async def run(request: Json) -> Json:
        return await helpers.run_in_pool(perform, request)

    return run


def affinity_to(hostname: str) -> Document:
    """The node affinity of volumes that are on one VM."""
    expression = {"key": HOSTNAME, "operator": "In", "values": [hostname]}
    return {"required": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}}


def _format(seconds: float) -> str:
    return format_time(datetime.fromtimestamp(seconds, UTC))
