"""What servers say about this node's disks, and what is said to them: Fencings, promise, Node.

The promise is the annotation `volagent.dev/fences-itself` of the Node. It is there only while a
watchdog is armed, and it names the boot: whoever reads it for another one must not count on it.
"""

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

import msgspec

from volagent.client.contract import FENCINGS, NODES, ApiError, Client, NotFound, Selection
from volagent.client.informer import Informer, Key
from volagent.drivers.contract import VolumeKey
from volagent.node.attachment import AttachmentGate
from volagent.node.register import NodeReporter
from volagent.objects.fencing import FENCES_ITSELF, Fencing
from volagent.objects.meta import Document
from volagent.observe.logs import get_logger

NO_FENCINGS_RETRY_S: Final = 300.0
"""A server of the version before this one has none."""
RETRY_S: Final = 5.0

_log = get_logger("fence")


@dataclass(frozen=True, slots=True)
class Promise:
    """This machine is reset when its agent falls silent."""

    within_s: int
    """At the latest, counted from the last renewal of the lease that was sent."""
    by: str
    boot_id: str

    def encode(self) -> str:
        """The annotation's value."""
        document = {"withinSeconds": self.within_s, "by": self.by, "bootID": self.boot_id}
        return msgspec.json.encode(document).decode()


def _ignore(_: Collection[Fencing]) -> None:
    """Nobody listens yet."""


class FenceWord:
    """Asks and tells servers about one node."""

    def __init__(
        self, client: Client, node: str, gate: AttachmentGate, reporter: NodeReporter,
        go_on: Callable[[set[VolumeKey]], None],
    ) -> None:  # fmt: skip
        """`go_on` is told which volumes may go on."""
        self.on_proven: Callable[[Collection[Fencing]], None] = _ignore
        self.promise_s: int | None = None
        """What is promised at this moment."""
        self._client = client
        self._node = node
        self._gate = gate
        self._reporter = reporter
        self._go_on = go_on
        self._proven: dict[str, Fencing] = {}
        """By name; a name is never used again."""

    async def read_fencings(self) -> None:
        """Learn, and act upon, what this node was fenced off. Raises `ApiError`."""
        try:
            listing = await self._client.list(FENCINGS, self._selection)
            found = [msgspec.convert(each, Fencing) for each in listing.items]
        except NotFound:
            found = []
        self._proven = {
            each.metadata.name: each
            for each in found
            if each.proven and each.spec.node_name == self._node
        }
        self._act()

    async def settle(self, promise: Promise | None) -> Document:
        """See that the Node says what is promised now; the Node, read then. Raises `ApiError`."""
        node = await self._client.get(NODES, self._node)
        told = (node["metadata"].get("annotations") or {}).get(FENCES_ITSELF)
        wanted = promise.encode() if promise is not None else None
        if told != wanted:
            change = {"metadata": {"annotations": {FENCES_ITSELF: wanted}}}
            node = await self._client.patch(NODES, self._node, change)
            _log.info("promise to the cluster", promise=wanted)
        self.promise_s = promise.within_s if promise is not None else None
        return node

    def resume(self, node: Document) -> None:
        """From now on this Node says what may be touched."""
        self._reporter.resume(node)

    async def follow(self) -> None:
        """Hear of Fencings while a server is reached, too, for ever."""
        while True:
            try:
                await self._client.list(FENCINGS, self._selection)
                break
            except NotFound:
                await asyncio.sleep(NO_FENCINGS_RETRY_S)
            except ApiError:
                await asyncio.sleep(RETRY_S)
        await Informer(self._client, FENCINGS, self._selection, _decode, self._changed).run()

    @property
    def _selection(self) -> Selection:
        return Selection(field_selector=f"spec.nodeName={self._node}")

    def _changed(self, key: Key, _old: Fencing | None, new: Fencing | None) -> None:
        """Only its end lifts a Fencing: what is heard may be older than what was read."""
        name = key[1]
        if new is None:
            if self._proven.pop(name, None) is not None:
                self._act()
        elif new.proven and name not in self._proven:
            self._proven[name] = new
            self._act()

    def _act(self) -> None:
        proven = self._proven.values()
        self._go_on(self._gate.keep_out({each.spec.volume for each in proven}))
        self.on_proven(tuple(proven))


def _decode(document: Document) -> Fencing:
    return msgspec.convert(document, Fencing)
