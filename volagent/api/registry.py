"""The writing half of the API's semantics over a store: create, update, patch.

What kube-apiserver promises is kept here for every caller, in-process or over HTTP: identity and
times are stamped, status and spec have their own doors, a stale `resourceVersion` is a `Conflict`,
a write without effect writes nothing. Defaults and validation come from an `Admits` that is passed
in. How objects are deleted is in `api/deletion.py`.

A write is decided on a private copy and stored by compare-and-swap; where the caller named no
revision, a lost race is simply decided again on what is there now. Nothing here locks or waits
except for the store.
"""

from collections.abc import Callable
from dataclasses import dataclass
from os import urandom
from typing import Any, Protocol

from volagent.aio.clock import Clock, format_time
from volagent.api import lifecycle
from volagent.api.apply_managers import OURSELVES, Writer, track_create, track_update
from volagent.api.codec import Codec, private_copy
from volagent.api.identity import Entropy, checked_name, make_name, make_uid
from volagent.api.patch import apply_patch
from volagent.api.placement import (
    bind_pod,
    drop_placement,
    place_pod,
    place_simple_pod,
)
from volagent.api.reading import key_of
from volagent.api.refusals import (
    STORE_ERRORS,
    already_exists,
    invalid,
    modified_meanwhile,
    namespace_ending,
    not_found,
    wrong_uid,
)
from volagent.api.resources import Traits, traits_of
from volagent.client.contract import (
    NAMESPACES,
    NODES,
    PODS,
    WITH_STATUS,
    BadRequest,
    NotFound,
    Resource,
)
from volagent.objects.meta import Document
from volagent.objects.storage import Node
from volagent.store.contract import KeyExists, Mismatch, Store, Stored

ATTEMPTS = 64
"""How often a write without a revision is decided again when others keep winning the race."""
NAME_ATTEMPTS = 8
"""How many generated names are tried."""

_NAMESPACE_TRAITS = traits_of(NAMESPACES)
_NODE_TRAITS = traits_of(NODES)
_POD_TRAITS = traits_of(PODS)


class Admits(Protocol):
    """Defaults and validation. Neither argument is changed in place."""

    def prepare_create(self, resource: Resource, document: Document) -> Document:
        """The document as it is to be stored. Raises `ApiError`."""

    def prepare_update(
        self, resource: Resource, old: Document, new: Document, *, subresource: str = ""
    ) -> Document:
        """The new document as it is to be stored. Raises `ApiError`."""


Made = tuple[Document, list[Document] | None]
"""A new document, and its `managedFields` where whoever made it knows them already."""


@dataclass(frozen=True, slots=True)
class Change:
    """A change that is to be made, as often as it takes."""

    make: Callable[[Document], Made]
    subresource: str
    dry_run: bool
    writer: Writer


class Registry:
    """Creates, changes and deletes objects in a store."""

    def __init__(
        self,
        store: Store,
        codec: Codec,
        admission: Admits,
        clock: Clock,
        *,
        default_node_name: str = "",
        entropy: Entropy = urandom,
    ) -> None:
        """`default_node_name`: the one VM that pods without a node are assigned to. `entropy`:
        what uids are made of."""
        self.store = store
        self.codec = codec
        self.clock = clock
        self.entropy = entropy
        self.ending_namespaces: set[str] = set()
        """Namespaces in which nothing can be created any more."""
        self.on_removed: Callable[[str], None] = _ignore
        """Called with the namespace of each object that went while some namespace ends."""
        self.on_written: Callable[[Traits, str], None] = _ignore_written
        """Called with the key of each object with a limited life that was written."""
        self.only_node: Callable[[], Node | None] | None = None
        """Set where a scheduler runs: the node on which a pod that asks for nothing can go at once,
        if there is just that one. All other pods are the scheduler's then."""
        self._admission = admission
        self._default_node_name = default_node_name

    async def create(
        self,
        resource: Resource,
        document: Document,
        namespace: str = "",
        *,
        dry_run: bool = False,
        writer: Writer = OURSELVES,
        managed_fields: list[Document] | None = None,
    ) -> Document:
        """Store a new object; see `Client.create`. `managed_fields` are those of an apply."""
        traits = traits_of(resource)
        new = private_copy(document)
        metadata = lifecycle.check_envelope(traits, new, namespace)
        metadata.pop("managedFields", None)
        if metadata.pop("resourceVersion", ""):
            raise BadRequest("resourceVersion should not be set on objects to be created")
        base = metadata.get("generateName")
        generated = bool(base) and not metadata.get("name")
        lifecycle.begin(traits, new, make_uid(self.entropy), self.clock.wall())
        for _ in range(NAME_ATTEMPTS):
            if generated:
                new["metadata"]["name"] = make_name(str(base))
            try:
                return await self._create(traits, new, namespace, dry_run, writer, managed_fields)
            except KeyExists:
                if not generated:
                    break
            except Mismatch:
                continue  # its namespace has changed since it was looked at
        raise already_exists(traits, new["metadata"]["name"])

    async def _create(
        self,
        traits: Traits,
        new: Document,
        namespace: str,
        dry_run: bool,
        writer: Writer,
        managed_fields: list[Document] | None,
    ) -> Document:
        name = new["metadata"].get("name", "")
        beside: Stored | None = None
        if traits.resource.namespaced:
            beside = await self._check_namespace(traits, namespace, name)
        prepared = self._admission.prepare_create(traits.resource, new)
        name = checked_name(traits, prepared)
        if traits.resource is PODS:
            prepared = await self._place(prepared)
        if writer.named and managed_fields is None:
            managed_fields = track_create(prepared, writer, self.now())
        if managed_fields is not None:
            prepared["metadata"]["managedFields"] = managed_fields
        key = key_of(traits, namespace, name)
        with STORE_ERRORS:
            if dry_run:
                if await self.store.get(key) is not None:
                    raise KeyExists(key)
                return prepared
            if namespace in self.ending_namespaces:
                raise namespace_ending(traits, name, namespace)
            value = self.codec.encode(prepared)
            revision = await self.store.create(key, value, beside=beside)
        return self._written(traits, key, revision, prepared)

    async def _place(self, pod: Document) -> Document:
        pod = drop_placement(pod)
        if self.only_node is not None:
            node = self.only_node()
            return pod if node is None else place_simple_pod(pod, node)
        if not self._default_node_name:
            return pod
        labels = await self._node_labels() if pod["spec"].get("nodeSelector") else {}
        return place_pod(pod, self._default_node_name, labels)

    async def bind_pod(
        self,
        name: str,
        namespace: str,
        node: str,
        *,
        uid: str = "",
        resource_version: str = "",
        dry_run: bool = False,
    ) -> None:
        """Give a pod its node; see `Client.bind_pod`."""

        def bind(current: Document) -> Made:
            metadata = current["metadata"]
            if uid and uid != metadata["uid"]:
                raise wrong_uid(_POD_TRAITS, name, uid, metadata["uid"])
            if resource_version and resource_version != metadata["resourceVersion"]:
                raise modified_meanwhile(_POD_TRAITS, name)
            bound = bind_pod(current, node, format_time(self.clock.wall()))
            return {**bound, "metadata": dict(bound["metadata"])}, None

        change = Change(bind, WITH_STATUS, dry_run, OURSELVES)
        await self.change(_POD_TRAITS, name, namespace, change)

    async def update(
        self,
        resource: Resource,
        document: Document,
        namespace: str = "",
        *,
        subresource: str = "",
        dry_run: bool = False,
        writer: Writer = OURSELVES,
    ) -> Document:
        """Replace an object; see `Client.update`."""
        traits = traits_of(resource)
        given = private_copy(document)
        metadata = lifecycle.check_envelope(traits, given, namespace)
        name = checked_name(traits, given)
        uid: str = metadata.get("uid") or ""

        def replace(current: Document) -> Made:
            held: str = current["metadata"]["uid"]
            if uid and uid != held:
                raise wrong_uid(traits, name, uid, held)
            return {**given, "metadata": dict(metadata)}, None

        change = Change(replace, subresource, dry_run, writer)
        try:
            return await self.change(traits, name, namespace, change)
        except NotFound:
            if not traits.creates_on_update or subresource or metadata.get("resourceVersion"):
                raise
        return await self.create(resource, document, namespace, dry_run=dry_run, writer=writer)

    async def patch(
        self,
        resource: Resource,
        name: str,
        patch: Any,
        namespace: str = "",
        *,
        content_type: str = "application/merge-patch+json",
        subresource: str = "",
        dry_run: bool = False,
        writer: Writer = OURSELVES,
    ) -> Document:
        """Change a part of an object; see `Client.patch`."""
        traits = traits_of(resource)
        patch = private_copy(patch)

        def change(current: Document) -> Made:
            new = apply_patch(resource, current, patch, content_type)
            metadata = new["metadata"] = dict(new["metadata"])
            held: str = current["metadata"]["uid"]
            if metadata.setdefault("uid", held) != held:
                raise invalid(
                    traits, name, "metadata.uid",
                    f'Invalid value: "{metadata["uid"]}": field is immutable', "FieldValueInvalid",
                )  # fmt: skip
            if metadata.get("name") != name:
                raise BadRequest(
                    f"the name of the object ({metadata.get('name')}) does not match the name on "
                    f"the URL ({name})"
                )
            lifecycle.check_envelope(traits, new, namespace)
            return new, None

        made = Change(change, subresource, dry_run, writer)
        return await self.change(traits, name, namespace, made)

    async def change(self, traits: Traits, name: str, namespace: str, change: Change) -> Document:
        """Store what is made of the current document; decide again when a race is lost."""
        subresource = change.subresource
        if subresource and not (subresource in ("status", WITH_STATUS) and traits.has_status):
            raise NotFound("the server could not find the requested resource")
        key = key_of(traits, namespace, name)
        for _ in range(ATTEMPTS):
            with STORE_ERRORS:
                stored = await self.store.get(key)
            if stored is None:
                raise not_found(traits, name)
            old = self.codec.decode(stored)
            new, managed_fields = change.make(self.codec.decode(stored))
            current = old["metadata"]["resourceVersion"]
            if new["metadata"].get("resourceVersion") not in (None, "", current):
                raise modified_meanwhile(traits, name)
            new = lifecycle.settle(traits, old, new, subresource=subresource)
            part = "" if subresource == WITH_STATUS else subresource
            new = self._admission.prepare_update(traits.resource, old, new, subresource=part)
            if managed_fields is not None:
                new["metadata"]["managedFields"] = managed_fields
            elif "managedFields" in old["metadata"] or "managedFields" in new["metadata"]:
                self._track(old, new, change)
            if new == old:
                return old
            lifecycle.count_generation(traits, old, new)
            if change.dry_run:
                return new
            try:
                return await self.replace(traits, stored, new)
            except Mismatch:
                continue
        raise modified_meanwhile(traits, name)

    async def replace(self, traits: Traits, stored: Stored, new: Document) -> Document:
        """Write a decided change, or the end of an object that this change lets go.

        `new` is given away. Raises `Mismatch` when the object has changed meanwhile.
        """
        if lifecycle.is_over(traits, new):
            await self.remove(traits, stored, new)
            return new
        value = self.codec.encode(new)
        with STORE_ERRORS:
            revision = await self.store.update(stored.key, value, stored.mod_revision)
        return self._written(traits, stored.key, revision, new)

    async def remove(self, traits: Traits, stored: Stored, document: Document) -> None:
        """Delete exactly what is stored. Raises `Mismatch`."""
        with STORE_ERRORS:
            await self.store.delete(stored.key, stored.mod_revision)
        metadata = document["metadata"]
        if traits.resource is NAMESPACES:
            self.ending_namespaces.discard(metadata["name"])
        elif self.ending_namespaces:
            self.on_removed(metadata.get("namespace", ""))

    def _written(self, traits: Traits, key: str, revision: int, document: Document) -> Document:
        document["metadata"]["resourceVersion"] = str(revision)
        self.codec.remember(revision, document)
        if traits.life_s is not None:
            self.on_written(traits, key)
        return document

    def _track(self, old: Document, new: Document, change: Change) -> None:
        """Note in a tracked object who changed what."""
        entries = track_update(old, new, change.writer, self.now(), change.subresource)
        if entries is None:
            new["metadata"].pop("managedFields", None)
        else:
            new["metadata"]["managedFields"] = entries

    def now(self) -> str:
        """The time as objects have it, RFC 3339."""
        return format_time(self.clock.wall())

    async def _check_namespace(self, traits: Traits, namespace: str, name: str) -> Stored:
        """The namespace, as one in which objects may be made."""
        if not namespace:
            raise BadRequest("an empty namespace may not be set during creation")
        with STORE_ERRORS:
            stored = await self.store.get(key_of(_NAMESPACE_TRAITS, "", namespace))
        if stored is None:
            raise not_found(_NAMESPACE_TRAITS, namespace)
        # Which namespaces end by another server's doing is known here a moment later.
        is_marked = "deletionTimestamp" in self.codec.shared(stored)["metadata"]
        if is_marked or namespace in self.ending_namespaces:
            raise namespace_ending(traits, name, namespace)
        return stored

    async def _node_labels(self) -> dict[str, str]:
        with STORE_ERRORS:
            stored = await self.store.get(key_of(_NODE_TRAITS, "", self._default_node_name))
        if stored is None:
            return {}
        labels: dict[str, str] | None = self.codec.shared(stored)["metadata"].get("labels")
        return labels or {}


def _ignore(_namespace: str) -> None:
    """Nobody ends namespaces here."""


def _ignore_written(_traits: Traits, _key: str) -> None:
    """Nobody expires objects here."""
