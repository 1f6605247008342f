"""The trash of all provisioners of this process, for `volagent trash`.

A restore is: (1) the volume's object is made again, marked as being restored and still naming its
last claim by uid, so that nobody gets it yet; (2) the backend puts the data back; (3) the mark and
the uid come off, so that a new claim of the old one's name, or anybody who is given it, can have
the volume. Interrupted anywhere it is asked for again. The volume is kept from now on (`Retain`).
"""

from typing import Any

import msgspec

from volagent.client.contract import PERSISTENT_VOLUMES, AlreadyExists, Client, Invalid, NotFound
from volagent.control.provision.documents import RESTORING, restored_volume
from volagent.drivers.errors import DriverError, Rejected
from volagent.drivers.provisioning.contract import KeepsTrash, ProvisionerTable, TrashEntry
from volagent.objects.meta import Document
from volagent.observe.logs import get_logger

_log = get_logger("trash")


class TrashService:
    """Lists, restores and empties."""

    def __init__(self, provisioners: ProvisionerTable, client: Client) -> None:
        self._provisioners = provisioners
        self._client = client

    async def show(self) -> dict[str, Any]:
        """`items`: every entry, the oldest first; `problems`: backends that do not answer."""
        entries: list[TrashEntry] = []
        problems: list[str] = []
        for name, provisioner in self._provisioners.items():
            if not isinstance(provisioner, KeepsTrash):
                continue
            try:
                entries += await provisioner.list_trash()
            except DriverError as error:
                problems.append(f"{name}: {error}")
        entries.sort(key=lambda entry: (entry.deleted_at, entry.id))
        return {"items": [_describe(entry) for entry in entries], "problems": problems}

    async def restore(self, id: str) -> Document:
        """Have a volume back; its PersistentVolume. Raises `Invalid`, `NotFound`, `ApiError`."""
        backend, entry = await self._find(id)
        volume = restored_volume(entry.manifest, id)
        name = volume["metadata"]["name"]
        try:
            await self._client.create(PERSISTENT_VOLUMES, volume)  # (1)
        except AlreadyExists:
            await self._check_interrupted(name, id)
        try:
            await backend.restore(id)  # (2)
        except Rejected as error:
            await self._withdraw(name)
            raise Invalid(f"cannot restore {id}: {_tell(error)}") from error
        except DriverError as error:
            raise Invalid(f"cannot restore {id}: {_tell(error)}; try again") from error
        nobody = {"uid": None, "resourceVersion": None}
        change = {
            "metadata": {"annotations": {RESTORING: None}},
            "spec": {"claimRef": nobody if volume["spec"].get("claimRef") else None},
        }
        restored = await self._client.patch(PERSISTENT_VOLUMES, name, change)  # (3)
        _log.info("volume restored", volume=name, entry=id)
        return restored

    async def empty(self, ids: list[str]) -> dict[str, Any]:
        """Delete entries for good. Raises `NotFound`, `Invalid`."""
        for id in ids:
            backend, _ = await self._find(id)
            try:
                await backend.purge(id)
            except DriverError as error:
                raise Invalid(f"cannot delete {id}: {_tell(error)}") from error
            _log.info("trash emptied", entry=id)
        return {"deleted": ids}

    async def _find(self, id: str) -> tuple[KeepsTrash, TrashEntry]:
        for provisioner in self._provisioners.values():
            if not isinstance(provisioner, KeepsTrash):
                continue
            try:
                entries = await provisioner.list_trash()
            except DriverError:
                continue  # told by `show`; another backend may have the entry
            for entry in entries:
                if entry.id == id:
                    return provisioner, entry
        raise NotFound(f'"{id}" is not in the trash; `volagent trash list` shows what is')

    async def _check_interrupted(self, name: str, id: str) -> None:
        """A volume of that name may be there only as what an interrupted restore has made."""
        found = await self._client.get(PERSISTENT_VOLUMES, name)
        if (found["metadata"].get("annotations") or {}).get(RESTORING) != id:
            raise Invalid(f"cannot restore {id}: a PersistentVolume {name} exists; delete it first")

    async def _withdraw(self, name: str) -> None:
        try:
            await self._client.patch(PERSISTENT_VOLUMES, name, {"metadata": {"finalizers": None}})
            await self._client.delete(PERSISTENT_VOLUMES, name)
        except NotFound:
            return


def _describe(entry: TrashEntry) -> dict[str, Any]:
    described: dict[str, Any] = msgspec.to_builtins(entry)
    capacity = (entry.manifest.get("spec") or {}).get("capacity") or {}
    del described["manifest"]
    return {**described, "capacity": capacity.get("storage", "")}


def _tell(error: DriverError) -> str:
    return f"{error.message}; {error.remedy}" if error.remedy else error.message
