"""A local copy of a resource, kept current: list once, watch from there, list again when lost.

Readers see typed views and never wait. `on_change` is called for each change, in order, on the
loop's thread, after the copy was updated; it must return quickly, and whatever it raises ends
`run`. An object that cannot be decoded is reported and left out (or stays as it was last
understood); its siblings are unaffected. An object that was replaced by another one of the same
name is reported as gone and then as new.

A kind that is `newer` than the server counts as one without objects, and is asked for again now and
then. That any other kind is not served is an error: whoever goes by an empty list may tear down.

When the connection breaks, the watch resumes at the last version seen; only when that is too old
is everything listed again, and then only what really changed is reported.
"""

import asyncio
import random
from collections.abc import Callable, Collection
from typing import Generic, TypeVar

import msgspec

from volagent.aio.backoff import BackOff
from volagent.aio.slices import in_slices
from volagent.client.contract import (
    ApiError,
    Client,
    Forbidden,
    Gone,
    NotFound,
    Resource,
    Selection,
)
from volagent.objects.meta import Document
from volagent.observe.logs import get_logger

T = TypeVar("T")

Key = tuple[str, str]
"""Namespace ("" for cluster-scoped kinds) and name."""
Listener = Callable[[Key, T | None, T | None], None]
"""Called with the key, what was there, and what is there now."""

RETRY = BackOff(first_s=0.1, max_s=10.0)

_log = get_logger("informer")


def _ignore(_key: Key, _old: object, _new: object) -> None:
    """Nobody listens."""


class Informer(Generic[T]):
    """Follows the objects of one resource that fit a selection."""

    def __init__(
        self,
        client: Client,
        resource: Resource,
        selection: Selection,
        decode: Callable[[Document], T],
        on_change: Listener[T] = _ignore,
    ) -> None:
        self._client = client
        self._resource = resource
        self._selection = selection
        self._decode = decode
        self.on_change = on_change
        self.synced = asyncio.Event()
        """Set once the first list is in the copy, or it goes by what `seed` was given."""
        self.listed = asyncio.Event()
        """Set once the first list is in the copy: what is not in it does not exist."""
        self._objects: dict[Key, T] = {}
        self._versions: dict[Key, tuple[str, str]] = {}
        self._version = ""
        self._failures = 0

    def get(self, namespace: str, name: str) -> T | None:
        """An object, or None. `namespace` is "" for cluster-scoped kinds."""
        return self._objects.get((namespace, name))

    def values(self) -> Collection[T]:
        """All objects, as a live view: copy it before awaiting anything."""
        return self._objects.values()

    def seed(self, objects: dict[Key, T]) -> None:
        """Go by these until the first list, which replaces them. Before that only."""
        self._objects = dict(objects)
        self._versions = dict.fromkeys(objects, ("", ""))
        self.synced.set()

    async def run(self) -> None:
        """Keep the copy current, for ever."""
        while True:
            try:
                if not self._version:
                    await self._list()
                await self._follow()
            except Gone:
                self._version = ""
                if self._failures == 0:
                    self._failures = 1
                    continue
            except ApiError as error:
                _log.warning(
                    "watch interrupted", resource=self._resource.plural, error=error.message
                )
            self._failures += 1
            await asyncio.sleep(RETRY.delay_s(self._failures, random.random()))

    async def _list(self) -> None:
        try:
            listing = await self._client.list(self._resource, self._selection)
        except (NotFound, Forbidden):
            if self._resource.newer:
                self._have_list()
            raise
        gone = set(self._versions)
        async for document in in_slices(listing.items):
            gone.discard(self._take(document))
        for key in gone:
            self._forget(key)
        self._version = listing.resource_version
        self._have_list()

    def _have_list(self) -> None:
        self.synced.set()
        self.listed.set()

    async def _follow(self) -> None:
        changes = self._client.watch(
            self._resource, self._selection, resource_version=self._version, bookmarks=True
        )
        async for batch in changes:
            for event in batch:
                if event.type == "DELETED":
                    self._forget(_key_of(event.object))
                elif event.type != "BOOKMARK":
                    self._take(event.object)
            self._version = batch[-1].object["metadata"]["resourceVersion"]
            self._failures = 0

    def _take(self, document: Document) -> Key:
        metadata = document["metadata"]
        key = (metadata.get("namespace", ""), metadata["name"])
        version = (metadata.get("uid", ""), metadata["resourceVersion"])
        known = self._versions.get(key)
        if known == version:
            return key
        try:
            new = self._decode(document)
        except (msgspec.MsgspecError, ValueError, TypeError) as error:
            _log.warning(
                "object not understood", kind=self._resource.kind, namespace=key[0], name=key[1],
                error=str(error),
            )  # fmt: skip
            return key
        if known is not None and known[0] and known[0] != version[0]:
            self._forget(key)
        old = self._objects.get(key)
        self._versions[key] = version
        self._objects[key] = new
        self.on_change(key, old, new)
        return key

    def _forget(self, key: Key) -> None:
        self._versions.pop(key, None)
        old = self._objects.pop(key, None)
        if old is not None:
            self.on_change(key, old, None)


def _key_of(document: Document) -> Key:
    metadata = document["metadata"]
    return metadata.get("namespace", ""), metadata["name"]
