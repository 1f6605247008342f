"""The trash of all provisioners of this process, for `volagent trash`.

A restore is: (1) the volume's object is made again, marked as being restored and still naming its
last claim by uid, so that nobody gets it yet; (2) the backend puts the data back; (3) the mark and
the uid come off, so that a new claim of the old one's name can have the volume, or anybody who is
given it. Interrupted anywhere it is asked for again, by the same id. The volume is kept from now on
(`Retain`).
"""

import asyncio
from typing import Any

import msgspec

from volagent.client.contract import (
    PERSISTENT_VOLUMES,
    AlreadyExists,
    Client,
    Conflict,
    Invalid,
    NotFound,
    Unavailable,
)
from volagent.control.provision.asking import tell_failure
from volagent.control.provision.documents import end_of_restore, restored_volume
from volagent.drivers.errors import DriverError, Rejected, Uncertain
from volagent.drivers.provisioning.contract import KeepsTrash, ProvisionerTable, TrashEntry
from volagent.objects.annotations import RESTORING
from volagent.objects.meta import Document
from volagent.observe.logs import get_logger

ANSWER_TIMEOUT_S = 20.0
"""A backend that has not listed its trash by then is left out, and named: somebody waits for the
others'. Less than the command line waits for an answer."""
ATTEMPTS = 8
"""Lost races in a row before a restore is left to be asked for again."""

_log = get_logger("trash")


class TrashService:
    """Lists, restores and empties."""

    def __init__(self, provisioners: ProvisionerTable, client: Client) -> None:
        self._trashes = {
            name: provisioner
            for name, provisioner in provisioners.items()
            if isinstance(provisioner, KeepsTrash)
        }
        self._client = client

    async def show(self) -> dict[str, Any]:
        """`items`: every entry, the oldest first; `problems`: backends that do not answer."""
        answers = await asyncio.gather(
            *(_list(trash) for trash in self._trashes.values()), return_exceptions=True
        )
        entries: list[TrashEntry] = []
        problems: list[str] = []
        for name, answer in zip(self._trashes, answers, strict=True):
            match answer:
                case list():
                    entries += answer
                case DriverError():
                    problems.append(f"{name}: {tell_failure(answer)}")
                case error:
                    raise error
        entries.sort(key=lambda entry: (entry.deleted_at, entry.id))
        return {"items": [_describe(entry) for entry in entries], "problems": problems}

    async def restore(self, id: str) -> Document:
        """Have a volume back; its PersistentVolume.

        Raises `NotFound`, `Invalid`, `Unavailable`, `ApiError`.
        """
        trash, entry = await self._find(id)
        if entry is None:
            volume = await self._find_interrupted(id)
        else:
            volume = await self._make_again(entry)  # (1)
            await self._put_back(trash, entry)  # (2)
        restored = await self._release(volume)  # (3)
        _log.info("volume restored", volume=volume["metadata"]["name"], entry=id)
        return restored

    async def empty(self, ids: list[str]) -> dict[str, Any]:
        """Delete entries for good. Raises `NotFound`, `Invalid`, `Unavailable`."""
        for id in ids:
            trash, entry = await self._find(id)
            if entry is None:
                raise _not_there(id)
            try:
                await trash.purge(id)
            except Rejected as error:
                raise Invalid(f"cannot delete {id}: {tell_failure(error)}") from error
            except DriverError as error:
                raise Unavailable(
                    f"cannot delete {id}: {tell_failure(error)}; try again"
                ) from error
            _log.info("trash emptied", entry=id)
        return {"deleted": ids}

    async def _find(self, id: str) -> tuple[KeepsTrash, TrashEntry | None]:
        """The trash that an id belongs to, by its name, and the entry if it is there."""
        for name, trash in self._trashes.items():
            if not id.startswith(f"{name}/"):
                continue
            try:
                entries = await _list(trash)
            except DriverError as error:
                raise Unavailable(f"the trash of {name}: {tell_failure(error)}") from error
            return trash, next((entry for entry in entries if entry.id == id), None)
        raise _not_there(id)

    async def _make_again(self, entry: TrashEntry) -> Document:
        volume = restored_volume(entry.manifest, entry.id)
        try:
            return await self._client.create(PERSISTENT_VOLUMES, volume)
        except AlreadyExists:
            pass
        name = volume["metadata"]["name"]
        found = await self._client.get(PERSISTENT_VOLUMES, name)
        if _entry_of(found) == entry.id:
            return found  # an earlier restore was interrupted
        raise Invalid(
            f"cannot restore {entry.id}: a PersistentVolume {name} exists; delete it first, or wait"
            " until it is gone"
        )

    async def _put_back(self, trash: KeepsTrash, entry: TrashEntry) -> None:
        try:
            await trash.restore(entry.id)
        except Rejected as error:
            try:
                # Its policy is Retain: the object goes, and no data with it.
                await self._client.delete(PERSISTENT_VOLUMES, entry.manifest["metadata"]["name"])
            except NotFound:
                pass  # somebody else withdrew it
            raise Invalid(f"cannot restore {entry.id}: {tell_failure(error)}") from error
        except DriverError as error:
            text = f"cannot restore {entry.id}: {tell_failure(error)}; try again"
            raise Unavailable(text) from error

    async def _release(self, volume: Document) -> Document:
        """Give the volume to whoever comes. The binder writes its phase at the same time."""
        name = volume["metadata"]["name"]
        for _ in range(ATTEMPTS):
            try:
                return await self._client.patch(PERSISTENT_VOLUMES, name, end_of_restore(volume))
            except Conflict:
                volume = await self._client.get(PERSISTENT_VOLUMES, name)
        raise Unavailable(f"the PersistentVolume {name} is written all the time; try again")

    async def _find_interrupted(self, id: str) -> Document:
        """The volume whose data is back already, of a restore that was interrupted after (2)."""
        for volume in (await self._client.list(PERSISTENT_VOLUMES)).items:
            if _entry_of(volume) == id:
                return volume
        raise _not_there(id)


async def _list(trash: KeepsTrash) -> list[TrashEntry]:
    """A backend's entries. Raises `DriverError`, also for one that does not answer."""
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            return await trash.list_trash()
    except TimeoutError as error:
        raise Uncertain(f"no answer within {ANSWER_TIMEOUT_S:.0f} s") from error


def _describe(entry: TrashEntry) -> dict[str, Any]:
    described: dict[str, Any] = msgspec.to_builtins(entry)
    capacity = (entry.manifest.get("spec") or {}).get("capacity") or {}
    del described["manifest"]
    return {**described, "capacity": capacity.get("storage", "")}


def _entry_of(volume: Document) -> str | None:
    """The trash entry that a volume is being restored from."""
    entry: str | None = (volume["metadata"].get("annotations") or {}).get(RESTORING)
    return entry


def _not_there(id: str) -> NotFound:
    return NotFound(f'"{id}" is not in the trash; `volagent trash list` shows what is')
