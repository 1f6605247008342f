"""Defaults and rules of every kind: what a document must be before it is stored.

`prepare_create` and `prepare_update` are pure: they return a new document (sharing what did not
change) and never write into their arguments. The rules of each kind are in `validate_<kind>.py`.
"""

from volagent.objects.meta import Document


def prepare_create(kind: str, document: Document) -> Document:
    """The document of a new object with defaults filled in.

    Raises `InvalidObject`, `MalformedObject`.
    """
    return document


def prepare_update(kind: str, old: Document, new: Document, *, subresource: str = "") -> Document:
    """The document that replaces `old`, with defaults filled in.

    Raises `InvalidObject`, `MalformedObject`, `RefusedChange`.
    """
    return new
