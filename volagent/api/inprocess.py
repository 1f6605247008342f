"""The `Client` of everybody who lives in the server's process: straight to the store, no HTTP.

Callers are trusted: who may do what is asked where requests come in (`api/auth.py`).
"""

from collections.abc import AsyncIterator, Callable, Sequence
from os import urandom
from typing import Any

from volagent.aio.clock import Clock
from volagent.api.apply import Applier
from volagent.api.apply_managers import OURSELVES, Writer
from volagent.api.codec import Codec
from volagent.api.deletion import Deleter
from volagent.api.housekeeping import Housekeeping
from volagent.api.identity import Entropy
from volagent.api.reading import Reader
from volagent.api.redeclare import Redeclarer
from volagent.api.registry import Admits, Registry
from volagent.api.resources import traits_of
from volagent.api.tokens import TokenIssuer, fulfil_request
from volagent.client.contract import NAMESPACES, Listing, Resource, Selection, WatchEvent
from volagent.objects.meta import Document
from volagent.objects.storage import Node
from volagent.store.contract import Store


class InProcessClient:
    """A `Client` over a store; `housekeeping` has to be bootstrapped and run beside it."""

    def __init__(
        self,
        store: Store,
        admission: Admits,
        clock: Clock,
        *,
        token_key: bytes,
        default_node_name: str = "",
        entropy: Entropy = urandom,
    ) -> None:
        """`default_node_name`: the one VM that pods without a node are assigned to. `entropy`:
        what uids are made of."""
        codec = Codec()
        self._reader = Reader(store, codec)
        self._registry = Registry(
            store, codec, admission, clock, default_node_name=default_node_name, entropy=entropy
        )
        self._deleter = Deleter(self._registry)
        self._redeclarer = Redeclarer(self._registry)
        self._applier = Applier(self._registry)
        self.housekeeping = Housekeeping(self._registry, self._reader, clock)
        self.issuer = TokenIssuer(token_key, clock)

    async def get(self, resource: Resource, name: str, namespace: str = "") -> Document:
        """One object. Raises `NotFound`."""
        return await self._reader.get(traits_of(resource), name, namespace)

    async def list(
        self,
        resource: Resource,
        selection: Selection = Selection(),  # noqa: B008  # a frozen value
        *,
        resource_version: str = "",
        limit: int = 0,
        continue_token: str = "",
    ) -> Listing:
        """All objects that fit, at one revision."""
        return await self._reader.list(
            traits_of(resource),
            selection,
            resource_version=resource_version,
            limit=limit,
            continue_token=continue_token,
        )

    def watch(
        self,
        resource: Resource,
        selection: Selection = Selection(),  # noqa: B008  # a frozen value
        *,
        resource_version: str,
        bookmarks: bool = False,
    ) -> AsyncIterator[Sequence[WatchEvent]]:
        """Changes after a revision, in order, as batches of one or more."""
        return self._reader.watch(
            traits_of(resource),
            selection,
            resource_version=resource_version,
            bookmarks=bookmarks,
        )

    async def issue_token(
        self, service_account: str, namespace: str, request: Document
    ) -> Document:
        """A service account token: the `TokenRequest` with `status.token` and its expiry."""
        return await fulfil_request(self, self.issuer, service_account, namespace, request)

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
        """Give a pod its node, once."""
        await self._registry.bind_pod(
            name, namespace, node, uid=uid, resource_version=resource_version, dry_run=dry_run
        )

    async def redeclare_pod(self, name: str, namespace: str, *, uid: str) -> Document:
        """Declare a pod again whose node is lost, in one write."""
        return await self._redeclarer.redeclare(name, namespace, uid)

    def leave_to_scheduler(self, only_node: Callable[[], Node | None]) -> None:
        """A scheduler runs: from now on only pods that ask for nothing are placed as they are
        created, on the node that `only_node` names; the others wait for it."""
        self._registry.only_node = only_node

    async def create(
        self,
        resource: Resource,
        document: Document,
        namespace: str = "",
        *,
        dry_run: bool = False,
        writer: Writer = OURSELVES,
    ) -> Document:
        """Store a new object, durable on return."""
        created = await self._registry.create(
            resource, document, namespace, dry_run=dry_run, writer=writer
        )
        if resource == NAMESPACES and not dry_run:
            await self.housekeeping.equip_namespace(created["metadata"]["name"])
        return created

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
        """Replace; with a `resourceVersion` only if it is the current one."""
        return await self._registry.update(
            resource,
            document,
            namespace,
            subresource=subresource,
            dry_run=dry_run,
            writer=writer,
        )

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
        """Change a part. A patch without effect writes nothing."""
        return await self._registry.patch(
            resource,
            name,
            patch,
            namespace,
            content_type=content_type,
            subresource=subresource,
            dry_run=dry_run,
            writer=writer,
        )

    async def apply(
        self,
        resource: Resource,
        config: Document,
        namespace: str,
        writer: Writer,
        *,
        force: bool = False,
        may_create: bool = True,
        subresource: str = "",
        dry_run: bool = False,
    ) -> tuple[Document, bool]:
        """Server-side apply; the object, and whether it is new. Raises `Conflict`."""
        applied, is_new = await self._applier.apply(
            resource,
            config,
            namespace,
            writer,
            force=force,
            may_create=may_create,
            subresource=subresource,
            dry_run=dry_run,
        )
        if is_new and resource == NAMESPACES and not dry_run:
            await self.housekeeping.equip_namespace(applied["metadata"]["name"])
        return applied, is_new

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str = "",
        *,
        grace_period_seconds: int | None = None,
        uid: str = "",
        resource_version: str = "",
        dry_run: bool = False,
    ) -> Document:
        """Delete, gracefully where the kind has grace or finalizers."""
        return await self._deleter.delete(
            resource,
            name,
            namespace,
            grace_period_seconds=grace_period_seconds,
            uid=uid,
            resource_version=resource_version,
            dry_run=dry_run,
        )
