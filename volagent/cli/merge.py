"""What must be sent so that a stored object becomes what a manifest says. Pure.

Three documents meet: what was applied last (kept in an annotation of the object), what is wanted
now, and what is stored. A key that was applied and is no longer wanted is deleted; a key that was
never applied belongs to somebody else and stays; a list is replaced as a whole, but only when what
is stored does not say everything that is wanted (a server may have filled in defaults).
"""

import base64
from typing import Any

import msgspec

from volagent.objects.meta import Document

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
"""The annotation that kubectl uses, so that both tools may be used on one object."""
_ENCODER = msgspec.json.Encoder(order="sorted")
_SECRET_FIELDS = ("data", "stringData")


def normalise(document: Document) -> Document:
    """What the server would make of it at once: a Secret's `stringData` becomes `data`."""
    plain = document.get("stringData")
    if document.get("kind") != "Secret" or not isinstance(plain, dict):
        return document
    if not all(isinstance(value, str) for value in plain.values()):
        return document  # the server names the field that is no text
    data = dict(document.get("data") or {})
    for key, value in plain.items():
        data[key] = base64.b64encode(value.encode()).decode()
    return {key: value for key, value in document.items() if key != "stringData"} | {"data": data}


def annotate(document: Document) -> Document:
    """The document with itself in the annotation; a Secret's values are left out of it."""
    metadata = dict(document.get("metadata") or {})
    annotations = dict(metadata.get("annotations") or {})
    annotations.pop(LAST_APPLIED, None)
    bare = {**document, "metadata": {**metadata, "annotations": annotations}}
    if document.get("kind") == "Secret":
        for name in _SECRET_FIELDS:
            if isinstance(bare.get(name), dict):
                bare[name] = dict.fromkeys(bare[name], "")
    annotations = {**annotations, LAST_APPLIED: _ENCODER.encode(bare).decode() + "\n"}
    return {**document, "metadata": {**metadata, "annotations": annotations}}


def read_last_applied(stored: Document) -> Document:
    """What was applied last; empty when that is not known."""
    text = ((stored.get("metadata") or {}).get("annotations") or {}).get(LAST_APPLIED, "")
    try:
        last = msgspec.json.decode(text) if text else {}
    except msgspec.DecodeError:
        return {}
    return last if isinstance(last, dict) else {}


def plan_patch(last: Any, wanted: Document, stored: Document) -> dict[str, Any]:
    """The merge patch from `stored` to `wanted`; empty when nothing is to be done."""
    patch: dict[str, Any] = {}
    last = last if isinstance(last, dict) else {}
    for key in last:
        if key not in wanted and key in stored:
            patch[key] = None
    for key, value in wanted.items():
        found = stored.get(key)
        if isinstance(value, dict) and isinstance(found, dict):
            below = plan_patch(last.get(key), value, found)
            if below:
                patch[key] = below
        elif not covers(found, value):
            patch[key] = value
    return patch


def covers(stored: Any, wanted: Any) -> bool:
    """Whether `stored` says everything that `wanted` says."""
    if isinstance(wanted, dict):
        if not isinstance(stored, dict):
            return not wanted and stored is None  # an empty table may be stored as nothing
        return all(covers(stored.get(key), value) for key, value in wanted.items())
    if isinstance(wanted, list):
        if stored is None:
            return not wanted
        if not isinstance(stored, list) or len(stored) != len(wanted):
            return False
        return all(covers(one, other) for one, other in zip(stored, wanted, strict=True))
    return bool(stored == wanted) and isinstance(stored, bool) == isinstance(wanted, bool)
