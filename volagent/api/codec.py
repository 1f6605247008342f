"""Between stored bytes and documents.

What is stored is the document without its `resourceVersion`, which is the store's own revision and
is put in when a document is read. Documents of recent writes are kept, so that the writer and all
watchers share one instead of decoding it each: nobody changes a shared document.
"""

import msgspec

from volagent.objects.meta import Document
from volagent.store.contract import Change, Stored

RECENT_DOCUMENTS = 256
"""Decoded documents kept; the newest, so that watchers in the same process find them."""

_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder()


class Codec:
    """Encodes and decodes the objects of one store."""

    def __init__(self) -> None:
        self._recent: dict[int, Document] = {}

    def encode(self, document: Document) -> bytes:
        """The bytes to store. The document must be private: it loses its `resourceVersion`."""
        document["metadata"].pop("resourceVersion", None)
        return _ENCODER.encode(document)

    def decode(self, stored: Stored) -> Document:
        """A private copy, with its `resourceVersion`."""
        document: Document = _DECODER.decode(stored.value)
        document["metadata"]["resourceVersion"] = str(stored.mod_revision)
        return document

    def shared(self, stored: Stored) -> Document:
        """The document as everybody shares it."""
        document = self._recent.get(stored.mod_revision)
        if document is None:
            document = self.decode(stored)
            self.remember(stored.mod_revision, document)
        return document

    def departed(self, change: Change, stored: Stored) -> Document:
        """What left at a change, as the object was, in the change's `resourceVersion`."""
        document = self.decode(stored)
        document["metadata"]["resourceVersion"] = str(change.revision)
        return document

    def remember(self, revision: int, document: Document) -> None:
        """Share the document that was written at a revision."""
        self._recent[revision] = document
        if len(self._recent) > RECENT_DOCUMENTS:
            del self._recent[next(iter(self._recent))]


def private_copy(document: Document) -> Document:
    """A copy that shares nothing, so that it may be changed. For JSON documents only."""
    copy: Document = msgspec.to_builtins(document)
    return copy
