"""The API of an agent's own socket: questions about objects go to its server, as the node.

So `volagent get` and `volagent apply` work on any VM, with the rights that its agent has.
"""

import ssl
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

from volagent.api.apply_managers import OURSELVES, Writer
from volagent.client.contract import (
    PODS,
    BadRequest,
    Listing,
    Resource,
    Selection,
    WatchEvent,
)
from volagent.client.http import HttpClient
from volagent.objects.meta import Document


class RemoteClient(HttpClient):
    """A `ServedClient` that passes everything on; the server knows the writer by its connection.

    Pods are those of the node: others may not be listed by it.
    """

    def __init__(self, servers: Sequence[str], node: str, tls: ssl.SSLContext) -> None:
        super().__init__(servers, tls=tls)
        self._own_pods = f"spec.nodeName={node}"

    async def list(
        self, resource: Resource,
        selection: Selection = Selection(),  # noqa: B008  # a frozen value
        *, resource_version: str = "", limit: int = 0, continue_token: str = "",
    ) -> Listing:  # fmt: skip
        """See `Client.list`."""
        return await super().list(
            resource, self._narrow(resource, selection),
            resource_version=resource_version, limit=limit, continue_token=continue_token,
        )  # fmt: skip

    def watch(
        self, resource: Resource,
        selection: Selection = Selection(),  # noqa: B008  # a frozen value
        *, resource_version: str, bookmarks: bool = False,
    ) -> AsyncIterator[Sequence[WatchEvent]]:  # fmt: skip
        """See `Client.watch`."""
        return super().watch(
            resource, self._narrow(resource, selection),
            resource_version=resource_version, bookmarks=bookmarks,
        )  # fmt: skip

    def _narrow(self, resource: Resource, selection: Selection) -> Selection:
        terms = [term for term in selection.field_selector.split(",") if term]
        if resource != PODS or self._own_pods in terms:
            return selection
        return replace(selection, field_selector=",".join([*terms, self._own_pods]))

    async def create(
        self, resource: Resource, document: Document, namespace: str = "", *,
        dry_run: bool = False, writer: Writer = OURSELVES,
    ) -> Document:  # fmt: skip
        """See `Client.create`."""
        del writer
        return await super().create(resource, document, namespace, dry_run=dry_run)

    async def update(
        self, resource: Resource, document: Document, namespace: str = "", *,
        subresource: str = "", dry_run: bool = False, writer: Writer = OURSELVES,
    ) -> Document:  # fmt: skip
        """See `Client.update`."""
        del writer
        return await super().update(
            resource, document, namespace, subresource=subresource, dry_run=dry_run
        )

    async def patch(
        self, resource: Resource, name: str, patch: Any, namespace: str = "", *,
        content_type: str = "application/merge-patch+json", subresource: str = "",
        dry_run: bool = False, writer: Writer = OURSELVES,
    ) -> Document:  # fmt: skip
        """See `Client.patch`."""
        del writer
        return await super().patch(
            resource, name, patch, namespace,
            content_type=content_type, subresource=subresource, dry_run=dry_run,
        )  # fmt: skip

    async def apply(
        self, resource: Resource, config: Document, namespace: str, writer: Writer, *,
        force: bool = False, may_create: bool = True, subresource: str = "", dry_run: bool = False,
    ) -> tuple[Document, bool]:  # fmt: skip
        """Raises `BadRequest`."""
        raise BadRequest("this is an agent's socket: apply on the server (kubectl, its kubeconfig)")
