"""How an object begins, changes and ends, as kube-apiserver has it. Pure.

`begin` stamps a new object; `settle` carries over what a client cannot change; `decide_deletion`
says what a DELETE does. Documents passed in as `new` are private and are changed in place; `old` is
never changed. Source of the deletion rules: apiserver `pkg/registry/rest/delete.go` and
`pkg/registry/core/pod/strategy.go`.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from volagent.aio.clock import format_time, parse_time
from volagent.api.refusals import invalid
from volagent.api.resources import Traits
from volagent.client.contract import NAMESPACES, PODS, WITH_STATUS, BadRequest
from volagent.objects.meta import Document

DEFAULT_GRACE_S = 30
_OPTIONAL = ("labels", "annotations", "finalizers", "ownerReferences")
_KEPT = (
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
)


@dataclass(frozen=True, slots=True)
class Remove:
    """The object goes at once."""


@dataclass(frozen=True, slots=True)
class Mark:
    """The object stays for now, marked as going."""

    document: Document


@dataclass(frozen=True, slots=True)
class Wait:
    """The object is going already, no later than wanted."""


Deletion = Remove | Mark | Wait


def check_envelope(traits: Traits, new: Document, namespace: str) -> dict[str, Any]:
    """Fill in kind, apiVersion and namespace from the request; the metadata.

    Raises `BadRequest` where the document contradicts the request.
    """
    resource = traits.resource
    for field_name, wanted in (("apiVersion", resource.api_version), ("kind", resource.kind)):
        given = new.get(field_name)
        if not given:
            new[field_name] = wanted
        elif given != wanted:
            raise BadRequest(
                f"the {field_name} in the data ({given}) does not match the expected "
                f"{field_name} ({wanted})"
            )
    metadata = new.get("metadata")
    if metadata is None:
        metadata = new["metadata"] = {}
    if not isinstance(metadata, dict):
        raise BadRequest("metadata must be an object")
    if not resource.namespaced:
        if metadata.pop("namespace", ""):
            raise BadRequest("namespace is not allowed on this type")
    elif metadata.setdefault("namespace", namespace) != namespace:
        raise BadRequest(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
    return metadata


def begin(traits: Traits, new: Document, uid: str, now: datetime) -> None:
    """Stamp a new object: identity, time, generation, the status it starts with."""
    metadata = new["metadata"]
    for field_name in ("deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"):
        metadata.pop(field_name, None)
    metadata["uid"] = uid
    metadata["creationTimestamp"] = format_time(now)
    if traits.counts_generation:
        metadata["generation"] = 1
    else:
        metadata.pop("generation", None)
    _drop_empty(metadata)
    if traits.has_status and not traits.keeps_given_status:
        new.pop("status", None)
        if traits.status_phase:
            new["status"] = {"phase": traits.status_phase}
    if traits.resource is NAMESPACES:
        new["spec"] = {**(new.get("spec") or {}), "finalizers": ["kubernetes"]}


def settle(traits: Traits, old: Document, new: Document, *, subresource: str) -> Document:
    """What an update really stores: `new` in what the request may change, `old` in the rest.

    `subresource` is "", "status", or `WITH_STATUS` for both at once. Raises `Invalid` for a
    finalizer that is added while the object is going.
    """
    if subresource and subresource != WITH_STATUS:
        status = new.get("status")
        settled = {**old, "metadata": dict(old["metadata"])}
        if status:
            settled["status"] = status
        else:
            settled.pop("status", None)
        return settled
    before = old["metadata"]
    metadata = new["metadata"] = {**new["metadata"], "name": before["name"]}
    for field_name in _KEPT:
        if field_name in before:
            metadata[field_name] = before[field_name]
        else:
            metadata.pop(field_name, None)
    metadata["resourceVersion"] = before["resourceVersion"]
    _drop_empty(metadata)
    if traits.has_status and not subresource:
        if "status" in old:
            new["status"] = old["status"]
        else:
            new.pop("status", None)
    if "deletionTimestamp" in before:
        _refuse_new_finalizers(traits, before, metadata)
    return new


def count_generation(traits: Traits, old: Document, new: Document) -> None:
    """Count a change of the spec."""
    if traits.counts_generation and new.get("spec") != old.get("spec"):
        new["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1


def is_over(traits: Traits, document: Document) -> bool:
    """Whether nothing keeps an object that is going."""
    metadata = document["metadata"]
    return (
        "deletionTimestamp" in metadata
        and not metadata.get("finalizers")
        and not metadata.get("deletionGracePeriodSeconds")
        and not (traits.resource is NAMESPACES and (document.get("spec") or {}).get("finalizers"))
    )


def decide_deletion(
    traits: Traits, document: Document, grace_s: int | None, now: datetime
) -> Deletion:
    """What deleting an object does now. `grace_s` None: the object's own; a shorter one wins."""
    metadata = document["metadata"]
    if traits.resource is NAMESPACES:
        if "deletionTimestamp" in metadata:
            return Remove() if is_over(traits, document) else Wait()
        marked = _mark(document, now, 0)
        marked["status"] = {**(document.get("status") or {}), "phase": "Terminating"}
        return Mark(marked)
    if grace_s is not None and grace_s < 0:
        grace_s = 1
    if "deletionTimestamp" not in metadata:
        wanted_s = _pod_grace_s(document, grace_s) if traits.resource is PODS else 0
        if wanted_s == 0 and not metadata.get("finalizers"):
            return Remove()
        return Mark(_mark(document, now + timedelta(seconds=wanted_s), wanted_s))
    held_s: int = metadata.get("deletionGracePeriodSeconds") or 0
    if grace_s is None or grace_s >= held_s:
        return Remove() if is_over(traits, document) else Wait()
    if grace_s == 0 and not metadata.get("finalizers"):
        return Remove()
    ends = parse_time(metadata["deletionTimestamp"]) - timedelta(seconds=held_s - grace_s)
    return Mark(_mark(document, ends, grace_s))


def _pod_grace_s(pod: Document, wanted_s: int | None) -> int:
    spec = pod.get("spec") or {}
    phase = (pod.get("status") or {}).get("phase")
    if not spec.get("nodeName") or phase in ("Succeeded", "Failed"):
        return 0  # nobody runs it who would have to be waited for
    if wanted_s is not None:
        return wanted_s
    own_s = spec.get("terminationGracePeriodSeconds")
    return own_s if isinstance(own_s, int) and own_s >= 0 else DEFAULT_GRACE_S


def _mark(document: Document, ends: datetime, grace_s: int) -> Document:
    metadata = {
        **document["metadata"],
        "deletionTimestamp": format_time(ends),
        "deletionGracePeriodSeconds": grace_s,
    }
    if "generation" in metadata:
        metadata["generation"] += 1
    return {**document, "metadata": metadata}


def _refuse_new_finalizers(
    traits: Traits, before: dict[str, Any], metadata: dict[str, Any]
) -> None:
    held = before.get("finalizers") or ()
    added = [one for one in metadata.get("finalizers") or () if one not in held]
    if added:
        quoted = " ".join(f'"{one}"' for one in added)
        raise invalid(
            traits, before["name"], "metadata.finalizers",
            "Forbidden: no new finalizers can be added if the object is being deleted, found new "
            f"finalizers []string{{{quoted}}}",
            "FieldValueForbidden",
        )  # fmt: skip


def _drop_empty(metadata: dict[str, Any]) -> None:
    for field_name in _OPTIONAL:
        if field_name in metadata and not metadata[field_name]:
            del metadata[field_name]
