"""Documents of the server as typed views."""

import msgspec

from volagent.objects.meta import Document
from volagent.objects.storage import PersistentVolume, PersistentVolumeClaim


def read_claim(document: Document) -> PersistentVolumeClaim:
    """A claim as the server has it."""
    return msgspec.convert(document, PersistentVolumeClaim)


def read_volume(document: Document) -> PersistentVolume:
    """A volume as the server has it."""
    return msgspec.convert(document, PersistentVolume)
