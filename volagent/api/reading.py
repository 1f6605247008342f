"""Get, list and watch: the reading half of the registry.

Lists are of one revision, also across the pages of a limited one: the continue token names the
revision and the last key. Watches translate the store's changes into what the watcher's selection
makes of them: an object that leaves the selection is DELETED, one that enters it is ADDED.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator, Iterator, Sequence

import msgspec

from volagent.aio.slices import in_slices
from volagent.api.codec import Codec
from volagent.api.refusals import STORE_ERRORS, not_found, read_revision
from volagent.api.resources import Traits
from volagent.api.selectors import Matcher, compile_selection
from volagent.client.contract import BadRequest, Gone, Listing, Selection, WatchEvent
from volagent.objects.annotations import SUCCESSOR_OF
from volagent.objects.meta import Document
from volagent.store.contract import Change, Store, Stored

BOOKMARK_AFTER_S = 60.0
"""A watcher that asked for bookmarks is told the revision after so long without a change."""
SHARED_BATCHES = 16
"""Batches kept for watchers of the same objects who read the same changes."""


_Found = list[Stored]
_Items = list[Document]


class _Page(msgspec.Struct, frozen=True):
    """What a continue token says."""

    revision: int
    start_after: str


def key_of(traits: Traits, namespace: str, name: str) -> str:
    """The store's key of an object."""
    prefix = traits.prefix
    return f"{prefix}{namespace}/{name}" if traits.resource.namespaced else f"{prefix}{name}"


class Reader:
    """Reads the objects of a store as documents."""

    def __init__(self, store: Store, codec: Codec) -> None:
        self._store = store
        self._codec = codec
        self._batches: dict[tuple[str, int, int], Sequence[WatchEvent]] = {}

    async def get(self, traits: Traits, name: str, namespace: str) -> Document:
        """One object. Raises `NotFound`."""
        with STORE_ERRORS:
            stored = await self._store.get(key_of(traits, namespace, name))
        if stored is None:
            raise not_found(traits, name)
        return self._codec.shared(stored)

    async def list(
        self,
        traits: Traits,
        selection: Selection,
        *,
        resource_version: str = "",
        limit: int = 0,
        continue_token: str = "",
    ) -> Listing:
        """All objects that fit, at one revision.

        `resource_version` is the oldest that will do. Raises `Gone`, `Timeout`, `BadRequest`.
        """
        matcher = compile_selection(traits, selection)
        prefix = _prefix(traits, selection)
        wanted = read_revision(resource_version) if resource_version else 0
        if continue_token:
            if wanted:
                raise BadRequest("specifying resource version is not allowed when using continue")
            page = _read_token(continue_token, prefix)
            found, revision = await self._page(prefix, page)
        else:
            with STORE_ERRORS:
                found, revision = await self._store.list(
                    prefix, at_revision=wanted if wanted > self._store.revision else 0
                )
        if resource_version == "0":
            limit = 0  # as kube-apiserver does: any revision will do, so nobody pages
        return await self._take(found, revision, matcher, limit)

    async def _page(self, prefix: str, page: _Page) -> tuple[_Found, int]:
        try:
            with STORE_ERRORS:
                return await self._store.list(
                    prefix, at_revision=page.revision, start_after=page.start_after
                )
        except Gone as error:
            raise Gone(
                "The provided continue parameter is too old to display a consistent list result. "
                "You must start a new list without the continue parameter."
            ) from error

    async def _take(
        self, found: _Found, revision: int, matcher: Matcher | None, limit: int
    ) -> Listing:
        items: _Items = []
        last = ""
        if matcher is not None:
            for needle in matcher.needles:
                found = [stored for stored in found if needle in stored.value]
        async for index, stored in in_slices(enumerate(found)):
            if limit and len(items) == limit:
                token = _write_token(_Page(revision, last))
                remaining = len(found) - index if matcher is None else None
                return Listing(items, str(revision), token, remaining)
            document = self._codec.decode(stored)
            last = stored.key
            if matcher is None or matcher(document):
                items.append(document)
        return Listing(items, str(revision))

    async def watch(
        self, traits: Traits, selection: Selection, *, resource_version: str, bookmarks: bool
    ) -> AsyncIterator[Sequence[WatchEvent]]:
        """Changes after a revision; from "" or "0" on, first what is there, as ADDED.

        Raises `Gone`, `Timeout`, `BadRequest`, `Unavailable`.
        """
        matcher = compile_selection(traits, selection)
        prefix = _prefix(traits, selection)
        after = read_revision(resource_version) if resource_version else 0
        with STORE_ERRORS:
            if after == 0:
                listing = await self.list(traits, selection)
                after = int(listing.resource_version)
                if listing.items:
                    yield [WatchEvent("ADDED", item) for item in listing.items]
            changes = self._store.watch(
                prefix, after, idle_s=BOOKMARK_AFTER_S if bookmarks else None
            )
            async for batch in changes:
                if not batch:
                    yield (_bookmark(traits, self._store.revision),)
                elif matcher is None:
                    yield self._share(prefix, batch)
                else:
                    events = [
                        event
                        for change in batch
                        if _may_concern(change, matcher)
                        for event in self._events(change, matcher)
                    ]
                    if events:
                        yield events

    def _share(self, prefix: str, batch: Sequence[Change]) -> Sequence[WatchEvent]:
        """All changes of a batch: one and the same value for everybody who reads just these."""
        place = (prefix, batch[0].revision, batch[-1].revision)
        events = self._batches.get(place)
        if events is None:
            events = self._batches[place] = [
                event for change in batch for event in self._events(change, None)
            ]
            if len(self._batches) > SHARED_BATCHES:
                del self._batches[next(iter(self._batches))]
        return events

    def _events(self, change: Change, matcher: Matcher | None) -> Iterator[WatchEvent]:
        """What a change is to a watcher: two events when one object has taken another's place."""
        previous, current = change.previous, change.current
        if previous is not None and current is not None:
            succeeded = _succeeded_by(self._codec.shared(current))
            old = self._codec.shared(previous) if succeeded else None
            if old is not None and old["metadata"]["uid"] == succeeded:
                # In the version before, so that who breaks off in between is told both again.
                gone = self._codec.departed(change, previous)
                gone["metadata"]["resourceVersion"] = str(change.revision - 1)
                if matcher is None or matcher(gone):
                    yield WatchEvent("DELETED", gone)
                change = Change(change.key, change.revision, None, current)
        event = self._event(change, matcher)
        if event is not None:
            yield event

    def _event(self, change: Change, matcher: Matcher | None) -> WatchEvent | None:
        """What a change is to a watcher, or None."""
        codec = self._codec
        previous, current = change.previous, change.current
        if current is None:
            assert previous is not None
            gone = codec.departed(change, previous)
            return WatchEvent("DELETED", gone) if matcher is None or matcher(gone) else None
        document = codec.shared(current)
        if previous is None:
            fits = matcher is None or matcher(document)
            return WatchEvent("ADDED", document) if fits else None
        if matcher is None:
            return WatchEvent("MODIFIED", document)
        fitted = matcher(codec.shared(previous))
        if matcher(document):
            return WatchEvent("MODIFIED" if fitted else "ADDED", document)
        return WatchEvent("DELETED", codec.departed(change, previous)) if fitted else None


def _may_concern(change: Change, matcher: Matcher) -> bool:
    """Whether one of the two versions can fit, without decoding them."""
    held = (change.current, change.previous)
    return any(stored is not None and matcher.may_fit(stored.value) for stored in held)


def _succeeded_by(document: Document) -> str:
    """The uid of the object whose place this one took, or ""."""
    annotations = document["metadata"].get("annotations")
    return annotations.get(SUCCESSOR_OF, "") if annotations else ""


def _prefix(traits: Traits, selection: Selection) -> str:
    if selection.namespace and traits.resource.namespaced:
        return f"{traits.prefix}{selection.namespace}/"
    return traits.prefix


def _bookmark(traits: Traits, revision: int) -> WatchEvent:
    resource = traits.resource
    return WatchEvent(
        "BOOKMARK",
        {
            "kind": resource.kind,
            "apiVersion": resource.api_version,
            "metadata": {"resourceVersion": str(revision), "creationTimestamp": None},
        },
    )


def _write_token(page: _Page) -> str:
    return urlsafe_b64encode(msgspec.json.encode(page)).decode().rstrip("=")


def _read_token(token: str, prefix: str) -> _Page:
    try:
        text = urlsafe_b64decode(token.encode("ascii") + b"=" * (-len(token) % 4))
        page = msgspec.json.decode(text, type=_Page)
    except (ValueError, msgspec.MsgspecError) as error:
        raise BadRequest("continue key is not valid") from error
    if not page.start_after.startswith(prefix) or page.revision <= 0:
        raise BadRequest("continue key is not valid")
    return page
