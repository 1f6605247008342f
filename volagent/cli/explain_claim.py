"""`volagent explain pvc/NAME`: what a claim waits for, and why each volume does not do."""

from collections.abc import Iterator
from typing import Any

import msgspec

from volagent.cli.connection import Api
from volagent.cli.errors import Refused
from volagent.control.bind.explain import explain_claim
from volagent.objects.meta import Document
from volagent.objects.pod import read_pod
from volagent.objects.storage import PersistentVolume, PersistentVolumeClaim, StorageClass

PREFIXES = ("pvc/", "persistentvolumeclaim/", "persistentvolumeclaims/")
SHOWN = 20
"""Rejected volumes on the terminal; `-o json` has all."""


def claim_named(text: str) -> str:
    """The claim that an argument names, or ""."""
    for prefix in PREFIXES:
        if text.startswith(prefix):
            return text.removeprefix(prefix)
    return ""


def fetch_explanation(api: Api, namespace: str, name: str) -> Document:
    """Everything that is known about a claim. Raises `Refused`."""
    base = f"/api/v1/namespaces/{namespace}"
    try:
        claim = api.get(f"{base}/persistentvolumeclaims/{name}")
    except Refused as refusal:
        raise refusal.during(f"explain claim {namespace}/{name}") from refusal
    volumes = api.get("/api/v1/persistentvolumes")["items"]
    classes = api.get("/apis/storage.k8s.io/v1/storageclasses")["items"]
    pods = api.get(f"{base}/pods")["items"]
    selector = {"fieldSelector": f"involvedObject.uid={claim['metadata']['uid']}"}
    events = api.get(f"{base}/events", selector)["items"]
    explanation = explain_claim(
        msgspec.convert(claim, PersistentVolumeClaim),
        [msgspec.convert(each, PersistentVolume) for each in volumes],
        [msgspec.convert(each, StorageClass) for each in classes],
        [read_pod(each) for each in pods],
    )
    told = [{"reason": event["reason"], "message": event["message"]} for event in events]
    return {**explanation, "events": told}


def format_claim(document: Document) -> Iterator[str]:
    """The lines of a claim's explanation. Pure."""
    yield f"claim {document['claim']} is {document['phase']}" + _volume(document)
    made_by = f", made by {document['provisioner']}" if document["provisioner"] else ""
    yield f"  class     {document['class'] or '(none)'}{made_by}"
    yield f"  pods      {', '.join(document['pods']) or '(none)'}"
    if document["waits"]:
        yield f"  waits     {document['waits']}"
    if document["remedy"]:
        yield f"  remedy    {document['remedy']}"
    rejected: list[Any] = document["rejected"]
    if rejected:
        yield "  volumes that do not do, the nearest first:"
    for entry in rejected[:SHOWN]:
        yield f"    {entry['volume']}: {entry['reason']}"
    if len(rejected) > SHOWN:
        yield f"    and {len(rejected) - SHOWN} more (-o json shows all)"
    for event in document["events"]:
        yield f"  {event['reason']}: {event['message']}"


def _volume(document: Document) -> str:
    return f" to {document['volume']}" if document["volume"] else ""
