"""The tags of volumes: whose they are, and the trash. Pure.

A volume cannot be moved or renamed, so being in the trash is a set of tags on it, written by one
call: when it was deleted, when that expires, and the PersistentVolume that it was, compressed and
cut into pieces, since a tag holds 256 characters. Whoever takes the tags off has it back.
"""

import base64
import binascii
import json
import zlib
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from volagent.aio.clock import format_time, parse_time
from volagent.drivers.provisioning.contract import VolumeRequest
from volagent.objects.annotations import VOLUME_OWNER
from volagent.objects.meta import Document

CLUSTER: Final = "KubernetesCluster"
CLAIM_NAME: Final = "kubernetes.io/created-for/pvc/name"
CLAIM_NAMESPACE: Final = "kubernetes.io/created-for/pvc/namespace"
VOLUME_NAME: Final = "kubernetes.io/created-for/pv/name"
OWNER: Final = VOLUME_OWNER
DELETED: Final = "volagent.dev/trash-deleted"
EXPIRES: Final = "volagent.dev/trash-expires"
_MANIFEST: Final = "volagent.dev/trash-manifest-"
_PIECE_CHARS: Final = 250
_PIECES_MAX: Final = 30
"""Of the 50 tags that a volume may have, the rest is left to others."""


def marks_of(request: VolumeRequest, cluster: str) -> dict[str, str]:
    """The tags of a new volume: Kubernetes' own, and the owner marker."""
    return {
        "Name": f"kubernetes-dynamic-{request.name}",
        CLUSTER: cluster,
        CLAIM_NAME: request.claim_name,
        CLAIM_NAMESPACE: request.claim_namespace,
        VOLUME_NAME: request.name,
        OWNER: request.owner,
    }


def trash_tags(manifest: Document, deleted: datetime, expires: datetime) -> dict[str, str] | None:
    """The tags that put a volume into the trash; None for a manifest that they cannot hold."""
    text = json.dumps(manifest, separators=(",", ":")).encode()
    coded = base64.b64encode(zlib.compress(text, 9)).decode()
    pieces = [coded[i : i + _PIECE_CHARS] for i in range(0, len(coded), _PIECE_CHARS)]
    if len(pieces) > _PIECES_MAX:
        return None
    return {
        DELETED: format_time(deleted),
        EXPIRES: format_time(expires),
        **{f"{_MANIFEST}{number:02}": piece for number, piece in enumerate(pieces)},
    }


def is_trashed(tags: Mapping[str, str]) -> bool:
    """Whether a volume is in the trash."""
    return EXPIRES in tags


def trash_names(tags: Mapping[str, str]) -> list[str]:
    """The tags to be taken off to have a volume back."""
    return [name for name in tags if name in (DELETED, EXPIRES) or name.startswith(_MANIFEST)]


def expiry_of(tags: Mapping[str, str]) -> datetime | None:
    """When a volume of the trash goes for good; None when its tag cannot be read."""
    try:
        return parse_time(tags[EXPIRES])
    except (KeyError, ValueError):
        return None


def manifest_of(tags: Mapping[str, str]) -> Document:
    """The PersistentVolume that a volume in the trash was; {} when the tags were damaged."""
    names = sorted(name for name in tags if name.startswith(_MANIFEST))
    coded = "".join(tags[name] for name in names)
    try:
        text = zlib.decompress(base64.b64decode(coded, validate=True))
        manifest = json.loads(text)
    except (binascii.Error, zlib.error, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}
