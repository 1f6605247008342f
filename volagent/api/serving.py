"""What the HTTP side needs of a client beyond `Client`: who writes, and server-side apply."""

from typing import Any, Protocol

from volagent.api.apply_managers import OURSELVES, Writer
from volagent.client.contract import Client, Resource
from volagent.objects.meta import Document


class ServedClient(Client, Protocol):
    """A `Client` whose writes know their author (`writer`)."""

    async def create(
        self,
        resource: Resource,
        document: Document,
        namespace: str = "",
        *,
        dry_run: bool = False,
        writer: Writer = OURSELVES,
    ) -> Document:
        """See `Client.create`."""

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
        """See `Client.update`."""

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
        """See `Client.patch`."""

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
        """Make the fields so that `config` names; the object, and whether it is new.

        Raises `Conflict` for fields that others set otherwise, unless `force` is given; `Forbidden`
        when there is no such object and the caller may not create one.
        """
