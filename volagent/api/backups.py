"""A backup of the running server's objects, all at one revision, whatever keeps them."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from volagent.api.refusals import STORE_ERRORS
from volagent.api.resources import TRAITS
from volagent.objects.backup import Snapshot, encode_lines
from volagent.store.contract import Store

LINES_AT_ONCE = 200
"""So many are sent before others have their turn."""


@dataclass(frozen=True, slots=True)
class Backups:
    """Takes them; `read_shared` gives what is no object (see `Snapshot.shared`)."""

    store: Store
    read_shared: Callable[[], dict[str, bytes]]

    async def take(self) -> AsyncIterator[bytes]:
        """The file, in pieces. Raises `ApiError` before the first."""
        with STORE_ERRORS:
            snapshot = await self._read()
        return _send(snapshot)

    async def _read(self) -> Snapshot:
        objects: list[tuple[str, bytes]] = []
        revision = 0
        for traits in TRAITS:
            found, revision = await self.store.list(traits.prefix, at_revision=revision)
            objects += [(stored.key, stored.value) for stored in found]
        return Snapshot(revision, objects, self.read_shared())


async def _send(snapshot: Snapshot) -> AsyncIterator[bytes]:
    piece: list[bytes] = []
    for line in encode_lines(snapshot):
        piece.append(line)
        if len(piece) == LINES_AT_ONCE:
            yield b"".join(piece)
            piece.clear()
    yield b"".join(piece)
