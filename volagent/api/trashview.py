"""What the server asks the provisioners' trash, for `volagent trash`."""

from typing import Any, Protocol

from volagent.objects.meta import Document


class TrashView(Protocol):
    """Reclaimed data that can still be had back (`control/provision/trash.py`)."""

    async def show(self) -> dict[str, Any]:
        """`items` and `problems`."""

    async def restore(self, id: str) -> Document:
        """The PersistentVolume that is there again. Raises `ApiError`."""

    async def empty(self, ids: list[str]) -> dict[str, Any]:
        """Delete entries for good. Raises `ApiError`."""
