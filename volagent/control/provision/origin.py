"""What a new volume starts with, from the claim's `dataSource`.

A clone is made from the volume of a bound claim of the same namespace, by the provisioner that
made it, and is no smaller; so is what is made from a VolumeSnapshot that is ready.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from volagent.client.contract import (
    CLAIMS,
    PERSISTENT_VOLUMES,
    SNAPSHOT_CONTENTS,
    SNAPSHOTS,
    Client,
    NotFound,
)
from volagent.control.provision.documents import format_size, source_of
from volagent.drivers.errors import Rejected
from volagent.drivers.provisioning.contract import Origin
from volagent.objects.annotations import PROVISIONED_BY, PROVISIONER
from volagent.objects.meta import Document
from volagent.objects.quantity import parse_bytes


@dataclass(frozen=True, slots=True)
class Waiting:
    """The origin is not there yet."""

    reason: str
    on_claim: tuple[str, str] | None = None
    """Namespace and name of the claim whose change is to be waited for."""


async def origin_of(client: Client, claim: Document) -> Origin | Waiting | None:
    """What the claim's volume is to be a copy of; None for an empty one.

    Raises `Rejected` for what can never be copied, `ApiError`.
    """
    spec = claim["spec"]
    source = spec.get("dataSource") or spec.get("dataSourceRef")
    if not source:
        return None
    if source.get("namespace") not in (None, "", claim["metadata"]["namespace"]):
        raise Rejected("dataSourceRef.namespace: copies are made within one namespace only")
    match source.get("apiGroup") or "", source.get("kind"):
        case "", "PersistentVolumeClaim":
            return await _origin_of_clone(client, claim, str(source.get("name")))
        case "snapshot.storage.k8s.io", "VolumeSnapshot":
            return await _origin_of_restore(client, claim, str(source.get("name")))
        case group, kind:
            raise Rejected(
                f"dataSource: volumes cannot be made from {kind}" + (f".{group}" if group else ""),
                remedy="name a PersistentVolumeClaim or a VolumeSnapshot of the same namespace",
            )


async def _origin_of_clone(client: Client, claim: Document, name: str) -> Origin | Waiting:
    namespace = claim["metadata"]["namespace"]
    try:
        source = await client.get(CLAIMS, name, namespace)
    except NotFound:
        return Waiting(f'the claim "{name}" to be cloned does not exist', (namespace, name))
    volume_name = source["spec"].get("volumeName")
    if (source.get("status") or {}).get("phase") != "Bound" or not volume_name:
        return Waiting(f'the claim "{name}" to be cloned is not bound', (namespace, name))
    try:
        volume = await client.get(PERSISTENT_VOLUMES, volume_name)
    except NotFound:
        return Waiting(f'the claim "{name}" to be cloned has lost its volume', (namespace, name))
    _check_likeness(claim, name, volume)
    return Origin(source=source_of(volume), size_bytes=_size_of(volume["spec"]["capacity"]))


async def _origin_of_restore(client: Client, claim: Document, name: str) -> Origin | Waiting:
    """A snapshot's copy, once it is ready. Raises `Rejected`."""
    namespace = claim["metadata"]["namespace"]
    try:
        snapshot = await client.get(SNAPSHOTS, name, namespace)
    except NotFound:
        return Waiting(f'the VolumeSnapshot "{name}" does not exist')
    status = snapshot.get("status") or {}
    if not status.get("readyToUse"):
        return Waiting(f'the VolumeSnapshot "{name}" is not ready to use')
    try:
        content = await client.get(SNAPSHOT_CONTENTS, status["boundVolumeSnapshotContentName"])
    except NotFound:
        return Waiting(f'the VolumeSnapshot "{name}" has lost its content')
    driver = content["spec"].get("driver")
    asked = (claim["metadata"].get("annotations") or {}).get(PROVISIONER)
    if driver != asked:
        raise Rejected(
            f'the VolumeSnapshot "{name}" was made by {driver}, which {asked} cannot read',
            remedy="choose a class of the same provisioner",
        )
    held = (content.get("status") or {}).get("restoreSize") or 0
    wanted = _size_of(claim["spec"]["resources"]["requests"])
    if wanted < held:
        raise Rejected(
            f'{format_size(wanted)} is too small for VolumeSnapshot "{name}", which needs'
            f" {format_size(held)}",
            remedy=f"ask for at least {format_size(held)}",
        )
    handle = (content.get("status") or {}).get("snapshotHandle") or ""
    return Origin(source={}, snapshot=handle, size_bytes=held)


def _check_likeness(claim: Document, name: str, volume: Document) -> None:
    """Raises `Rejected` when the volume cannot become a copy of the other."""
    annotations: Mapping[str, Any] = claim["metadata"].get("annotations") or {}
    made_by = (volume["metadata"].get("annotations") or {}).get(PROVISIONED_BY, "")
    if made_by != annotations.get(PROVISIONER):
        raise Rejected(
            f'the volume of claim "{name}" was made by {made_by or "hand"}, which'
            f" {annotations.get(PROVISIONER)} cannot clone",
            remedy="choose a class of the same provisioner",
        )
    wanted = _size_of(claim["spec"]["resources"]["requests"])
    held = _size_of(volume["spec"]["capacity"])
    if wanted < held:
        raise Rejected(
            f'{format_size(wanted)} is too small for a clone of "{name}", whose volume has'
            f" {format_size(held)}",
            remedy=f"ask for at least {format_size(held)}",
        )
    mode = claim["spec"].get("volumeMode") or "Filesystem"
    other = volume["spec"].get("volumeMode") or "Filesystem"
    if mode != other:
        raise Rejected(
            f'volumeMode {mode} differs from {other}, that of claim "{name}" to be cloned'
        )


def _size_of(quantities: Document) -> int:
    return parse_bytes(quantities.get("storage", 0))
