"""One local copy of each kind for all parts of a process that follow it.

Every controller needs claims, volumes, classes, and so does the node; each object is listed,
watched and decoded once.
Readers see frozen views, and copies of different kinds may be apart by a moment: who writes does
so on the version it has read, and who deletes asks the server first.

Life: construct, let everybody add their listeners, then `run`; `synced` when a server has listed
every kind that somebody asked for. What is lent is run by its borrower, who may have begun before,
and may go by what it remembers: to all others, that is not synced. A listener that raises ends
`run`.
"""

import asyncio
from collections.abc import Callable, Collection
from typing import Any, Generic, TypeVar

import msgspec

from volagent.aio.tasks import Supervisor
from volagent.client.contract import (
    CLAIMS,
    NODES,
    PERSISTENT_VOLUMES,
    PODS,
    STORAGE_CLASSES,
    Client,
    Resource,
    Selection,
)
from volagent.client.informer import Informer, Key, Listener
from volagent.objects.meta import Document
from volagent.objects.pod import Pod
from volagent.objects.storage import Node, PersistentVolume, PersistentVolumeClaim, StorageClass

T = TypeVar("T")


class Followed(Generic[T]):
    """The objects of one kind, for any number of listeners."""

    def __init__(
        self,
        client: Client,
        resource: Resource,
        decode: Callable[[Document], T],
        selection: Selection = Selection(),  # noqa: B008  # a frozen value
    ) -> None:
        self._listeners: list[Listener[T]] = []
        self.informer: Informer[T] = Informer(client, resource, selection, decode, self._spread)

    def listen(self, listener: Listener[T]) -> None:
        """Hear of every change from now on: key, what was there, what is there now.

        Called on the loop's thread after the copy was changed; must return quickly.
        """
        self._listeners.append(listener)

    def get(self, namespace: str, name: str) -> T | None:
        """An object, or None; `namespace` is "" for cluster-scoped kinds."""
        return self.informer.get(namespace, name)

    def values(self) -> Collection[T]:
        """All objects, as a live view: copy it before awaiting anything."""
        return self.informer.values()

    def _spread(self, key: Key, old: T | None, new: T | None) -> None:
        for listener in self._listeners:
            listener(key, old, new)


def _as(view: type[T]) -> Callable[[Document], T]:
    return lambda document: msgspec.convert(document, view)


class SharedCopies:
    """What the controllers of one process know of the cluster."""

    def __init__(self, client: Client, *, pods_of_node: str = "", only_node: str = "") -> None:
        """`pods_of_node`: an agent may read the pods of its own node only. `only_node`: nobody
        here asks for other Nodes; each change of one would be told to every agent."""
        self.client = client
        own = f"spec.nodeName={pods_of_node}" if pods_of_node else ""
        me = f"metadata.name={only_node}" if only_node else ""
        self._selections = {
            PODS: Selection(field_selector=own), NODES: Selection(field_selector=me),
        }  # fmt: skip
        self._all: dict[tuple[Resource, Selection], Followed[Any]] = {}
        self._lent: list[Followed[Any]] = []
        self.claims = self.follow(CLAIMS, PersistentVolumeClaim)
        self.volumes = self.follow(PERSISTENT_VOLUMES, PersistentVolume)
        self.classes = self.follow(STORAGE_CLASSES, StorageClass)
        self.pods = self.follow(PODS, Pod)
        self.nodes = self.follow(NODES, Node)

    def follow(
        self, resource: Resource, view: type[T], selection: Selection | None = None
    ) -> Followed[T]:
        """Follow a kind, or share the copy that exists. Before `run` only.

        `selection`: of a kind of which all of `self` follow more.
        """
        chosen = selection or self._selections.get(resource, Selection())
        followed = self._all.get((resource, chosen))
        if followed is None:
            followed = self._all[resource, chosen] = Followed(
                self.client, resource, _as(view), chosen
            )
        return followed

    def lend(
        self, resource: Resource, view: type[T], selection: Selection | None = None
    ) -> Followed[T]:
        """As `follow`, for the one who needs it before `run`, and runs its informer."""
        followed = self.follow(resource, view, selection)
        self._lent.append(followed)
        return followed

    @property
    def is_synced(self) -> bool:
        """Whether every kind has been listed."""
        return all(followed.informer.listed.is_set() for followed in self._all.values())

    async def wait_synced(self) -> None:
        """Wait until every kind has been listed."""
        for followed in self._all.values():
            await followed.informer.listed.wait()

    async def run(self) -> None:
        """Keep the copies current that are not lent, for ever."""
        async with Supervisor() as tasks:
            loops = [
                tasks.start_loop(f"copy of {resource.plural}", followed.informer.run())
                for (resource, _), followed in self._all.items()
                if followed not in self._lent
            ]
            await asyncio.wait(loops)
