"""Manifests: YAML or JSON files, directories and standard input, as documents with their origin.

Strict where YAML is treacherous: a key that stands twice is an error. Nothing here talks to the
daemon.
"""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from volagent.cli.errors import CommandError, UsageError
from volagent.cli.kinds import DEFAULT_NAMESPACE, describe_object, find_document_kind
from volagent.client.contract import RESOURCES, Resource
from volagent.objects.manifest import ManifestError, read_documents
from volagent.objects.meta import Document

SUFFIXES = (".yaml", ".yml", ".json")
MAX_BYTES = 32 * 1024 * 1024
_ORDER = (
    "Namespace", "ServiceAccount", "ClusterRole", "Role", "ClusterRoleBinding", "RoleBinding",
    "Secret", "ConfigMap", "Node", "StorageClass", "VolumeSnapshotClass", "CSIDriver",
    "PersistentVolume", "VolumeSnapshotContent", "VolumeSnapshot", "PersistentVolumeClaim",
    "Event", "Pod",
)  # fmt: skip
"""What others refer to comes first: a class before its claims, a claim before its pods."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """One declared object."""

    resource: Resource
    namespace: str
    name: str
    document: Document = field(repr=False)
    origin: str
    """`file:line`."""

    def describe(self) -> str:
        """`pod default/web`."""
        return describe_object(self.resource, self.namespace, self.name)


def read_manifests(sources: tuple[str, ...], default_namespace: str) -> list[Manifest]:
    """All objects of files, directories and `-`, in an order in which they can be created.

    Raises `CommandError` with file and line; nothing is returned unless everything is readable.
    """
    if not sources:
        raise UsageError("say what to read with -f FILE", hint="-f - reads standard input")
    found = [
        _check_document(document, origin, default_namespace)
        for source in sources
        for document, origin in _read_source(source)
    ]
    seen: dict[tuple[str, str, str], str] = {}
    for manifest in found:
        key = (manifest.resource.plural, manifest.namespace, manifest.name)
        if key in seen:
            raise CommandError(
                f"cannot read {manifest.origin}: {manifest.describe()} is declared already at"
                f" {seen[key]}"
            )
        seen[key] = manifest.origin
    return sorted(found, key=lambda manifest: _rank(manifest.resource.kind))


def _rank(kind: str) -> int:
    return _ORDER.index(kind) if kind in _ORDER else len(_ORDER)


def _read_source(source: str) -> Iterator[tuple[Any, str]]:
    if source == "-":
        yield from _parse(sys.stdin.buffer.read(MAX_BYTES + 1), "standard input")
        return
    if os.path.isdir(source):
        names = sorted(name for name in os.listdir(source) if name.endswith(SUFFIXES))
        if not names:
            raise CommandError(f"cannot read {source}: no {', '.join(SUFFIXES)} files in it")
        for name in names:
            yield from _read_source(os.path.join(source, name))
        return
    try:
        with open(source, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise CommandError(f"cannot read {source}: {error.strerror}") from error
    yield from _parse(data, source)


def _parse(data: bytes, origin: str) -> Iterator[tuple[Any, str]]:
    if len(data) > MAX_BYTES:
        raise CommandError(f"cannot read {origin}: larger than {MAX_BYTES // 1024 // 1024} MiB")
    try:
        documents = read_documents(data, unique_keys=True)
    except ManifestError as error:
        where = f"{origin}:{error.line}" if error.line else origin
        raise CommandError(f"cannot read {where}: {error.message}") from error
    for line, document in documents:
        yield from _flatten(document, f"{origin}:{line}")


def _flatten(document: Any, origin: str) -> Iterator[tuple[Any, str]]:
    """A `List` is its items."""
    kind = document.get("kind") if isinstance(document, dict) else None
    if isinstance(kind, str) and kind.endswith("List") and isinstance(document.get("items"), list):
        for item in document["items"]:
            yield from _flatten(item, origin)
        return
    yield document, origin


def _check_document(document: Any, origin: str, default_namespace: str) -> Manifest:
    def fail(message: str, hint: str = "") -> CommandError:
        return CommandError(f"cannot use {origin}: {message}", hint=hint)

    if not isinstance(document, dict):
        raise fail("expected an object with apiVersion, kind and metadata")
    api_version, kind = document.get("apiVersion"), document.get("kind")
    if not isinstance(api_version, str) or not isinstance(kind, str):
        raise fail("apiVersion and kind must be given, as text")
    resource = find_document_kind(api_version, kind)
    if resource is None:
        known = ", ".join(f"{one.kind} ({one.api_version})" for one in RESOURCES)
        raise fail(f"there is no kind {kind} in {api_version}", hint=f"known: {known}")
    metadata = document.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(metadata, dict) or not isinstance(name, str) or not name:
        raise fail(f"{kind}: metadata.name must be given, as text")
    namespace = metadata.get("namespace", "")
    if not isinstance(namespace, str):
        raise fail(f"{kind} {name}: metadata.namespace must be text")
    if not resource.namespaced:
        return Manifest(resource, "", name, document, origin)
    namespace = namespace or default_namespace or DEFAULT_NAMESPACE
    document = {**document, "metadata": {**metadata, "namespace": namespace}}
    return Manifest(resource, namespace, name, document, origin)
