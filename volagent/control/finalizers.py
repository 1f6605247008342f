"""Finalizers put on and taken off, each write on the version that was read.

Several controllers hold the same object; a lost race is decided again on what is there now, so that
what one of them has just done in a backend need not be done again.
"""

from volagent.client.contract import Client, Conflict, NotFound, Resource
from volagent.objects.meta import Document

ATTEMPTS = 16
"""Lost races in a row; more mean that somebody writes the object without end."""


async def take_off(
    client: Client, resource: Resource, document: Document, finalizer: str
) -> Document | None:
    """Take a finalizer off the object that `document` is a version of; None when that one is gone.

    Raises `ApiError`.
    """
    return await _change(client, resource, document, finalizer, wanted=False)


async def put_on(
    client: Client, resource: Resource, document: Document, finalizer: str
) -> Document | None:
    """Put a finalizer on; None when the object is gone, or going and so beyond holding.

    Raises `ApiError`.
    """
    return await _change(client, resource, document, finalizer, wanted=True)


async def _change(
    client: Client, resource: Resource, document: Document, finalizer: str, *, wanted: bool
) -> Document | None:
    metadata = document["metadata"]
    uid, name, namespace = metadata["uid"], metadata["name"], metadata.get("namespace", "")
    for _ in range(ATTEMPTS):
        metadata = document["metadata"]
        held = list(metadata.get("finalizers") or ())
        if metadata["uid"] != uid or (wanted and "deletionTimestamp" in metadata):
            return None
        if (finalizer in held) is wanted:
            return document
        changed = [*held, finalizer] if wanted else [one for one in held if one != finalizer]
        change = {"resourceVersion": metadata["resourceVersion"], "finalizers": changed}
        try:
            return await client.patch(resource, name, {"metadata": change}, namespace)
        except Conflict:
            pass  # somebody else wrote: look again
        except NotFound:
            return None
        try:
            document = await client.get(resource, name, namespace)
        except NotFound:
            return None
    raise Conflict(f'{resource.plural} "{name}" changes faster than its finalizers can be written')
