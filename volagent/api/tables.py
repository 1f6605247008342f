"""Answers in the shape that the caller asked for: plain objects, or server-side tables.

`kubectl get` asks for tables (`Accept: application/json;as=Table;v=v1;g=meta.k8s.io`), so what it
shows is decided here and is the same for every client.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from volagent.api.columns import columns_of, describe_cells
from volagent.api.routes import Target
from volagent.api.watchstream import Shape, as_given
from volagent.client.contract import Listing, Resource, WatchEvent
from volagent.objects.meta import Document


def wants_table(request: web.BaseRequest) -> bool:
    """Whether the first type that the caller accepts and that is served is a table."""
    accept = request.headers.get("Accept")
    if not accept or "as=" not in accept:
        return False
    for choice in accept.split(","):
        media, *given = (part.strip() for part in choice.split(";"))
        parameters = {name: value for name, _, value in (part.partition("=") for part in given)}
        if media not in ("application/json", "*/*"):
            continue
        if "as" not in parameters:
            return False
        if parameters["as"] == "Table" and parameters.get("g") == "meta.k8s.io":
            return True
    return False


def shape_object(
    request: web.BaseRequest, target: Target, document: Document, include_object: str = ""
) -> Document:
    """One object as the caller wants to see it."""
    if not wants_table(request) or document.get("kind") == "Status":
        return document
    version = document["metadata"].get("resourceVersion", "")
    return table_of(target.resource, Listing([document], version), include_object)


def table_of(resource: Resource, listing: Listing, include_object: str = "") -> Document:
    """A `Table` with a row for each object."""
    metadata: Document = {"resourceVersion": listing.resource_version}
    if listing.continue_token:
        metadata["continue"] = listing.continue_token
        if listing.remaining is not None:
            metadata["remainingItemCount"] = listing.remaining
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": columns_of(resource),
        "rows": _rows(resource, listing.items, include_object),
    }


def choose_watch_shape(request: web.BaseRequest, target: Target, include_object: str = "") -> Shape:
    """How the events of a watch are sent: as they are, or each with a table of one row."""
    if not wants_table(request):
        return as_given
    return _TableEvents(target.resource, include_object)


class _TableEvents:
    """Wraps each event's object into a table; only the first has column definitions."""

    def __init__(self, resource: Resource, include_object: str) -> None:
        self._resource = resource
        self._include_object = include_object
        self._columns_sent = False

    def __call__(self, events: Sequence[WatchEvent]) -> Sequence[Any]:
        return [WatchEvent(event.type, self._wrap(event)) for event in events]

    def _wrap(self, event: WatchEvent) -> Document:
        if event.type == "BOOKMARK":
            return event.object
        version = event.object["metadata"].get("resourceVersion", "")
        table = table_of(self._resource, Listing([event.object], version), self._include_object)
        if self._columns_sent:
            table["columnDefinitions"] = None
        self._columns_sent = True
        return table


def _rows(resource: Resource, items: Sequence[Document], include_object: str) -> list[Document]:
    now = datetime.now(UTC)
    rows = []
    for item in items:
        try:
            cells = describe_cells(resource, item, now)
        except (AttributeError, TypeError):
            # A field that no rule checks may hold anything; one odd object must not hide the rest.
            cells = [item["metadata"]["name"], *["<invalid>"] * (len(columns_of(resource)) - 1)]
        row: Document = {"cells": cells}
        if include_object == "Object":
            row["object"] = item
        elif include_object != "None":
            row["object"] = {
                "kind": "PartialObjectMetadata",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": item["metadata"],
            }
        rows.append(row)
    return rows
