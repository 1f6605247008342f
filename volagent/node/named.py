"""The objects of one kind that this node's pods name, each watched by itself.

An agent may read a secret because a pod of its node uses it, and may not list secrets. So each is
followed by its name from the moment a pod refers to it until no pod does. As of `Followed` kinds:
`get` answers from memory, who listens hears of changes on the loop's thread.
"""

import asyncio
from collections.abc import Callable, Collection, Coroutine
from typing import Any, Generic, TypeVar

from volagent.client.contract import Client, Resource, Selection
from volagent.client.informer import Informer, Key, Listener
from volagent.objects.meta import Document

T = TypeVar("T")
StartTask = Callable[[str, Coroutine[Any, Any, None]], asyncio.Task[None]]


def _ignore(_key: Key, _old: object, _new: object) -> None:
    """Nobody listens."""


class NamedObjects(Generic[T]):
    """Follows objects by name."""

    def __init__(
        self, client: Client, resource: Resource, decode: Callable[[Document], T], start: StartTask
    ) -> None:
        self._client = client
        self._resource = resource
        self._decode = decode
        self._start = start
        self._followed: dict[Key, tuple[Informer[T], asyncio.Task[None]]] = {}
        self._remembered: dict[Key, T] | None = None
        self._listener: Listener[T] = _ignore

    def listen(self, listener: Listener[T]) -> None:
        """Have this one hear of every change from now on, in place of the one before."""
        self._listener = listener

    def get(self, namespace: str, name: str) -> T | None:
        """An object; None when there is none, or it has not been read yet."""
        followed = self._followed.get((namespace, name))
        return followed[0].get(namespace, name) if followed is not None else None

    def remember(self, objects: dict[Key, T]) -> None:
        """No server answers: what is followed next is as these say, or missing."""
        self._remembered = objects

    def follow(self, wanted: Collection[Key]) -> None:
        """Follow exactly these."""
        for key in self._followed.keys() - set(wanted):
            self._followed.pop(key)[1].cancel()
        for namespace, name in sorted(set(wanted) - self._followed.keys()):
            selection = Selection(namespace=namespace, field_selector=f"metadata.name={name}")
            informer = Informer(
                self._client, self._resource, selection, self._decode, self._changed
            )
            if self._remembered is not None:
                known = self._remembered.get((namespace, name))
                informer.seed({} if known is None else {(namespace, name): known})
            task = self._start(f"{self._resource.plural} {namespace}/{name}", informer.run())
            self._followed[namespace, name] = (informer, task)
        self._remembered = None

    async def wait_synced(self) -> None:
        """Wait until everything that is followed now has been read once."""
        for informer, _ in tuple(self._followed.values()):
            await informer.synced.wait()

    def close(self) -> None:
        """Follow nothing any more. Idempotent."""
        self.follow(())

    def _changed(self, key: Key, old: T | None, new: T | None) -> None:
        self._listener(key, old, new)
