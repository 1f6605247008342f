"""`volagent pv reuse`: a released volume is for anybody again, with what is on it."""

import time
from typing import Any

import click

from volagent.cli.connection import MERGE_PATCH, Api, object_path
from volagent.cli.errors import CommandError, Refused
from volagent.cli.options import talks_to_daemon
from volagent.cli.output import clean, print_line, print_note
from volagent.client.contract import CLAIMS, PERSISTENT_VOLUMES
from volagent.objects.annotations import BOUND_BY_CONTROLLER, RESTORING
from volagent.objects.meta import Document

SETTLE_S = 10.0
"""How long the binder may take to say where the volume stands now."""


@click.group()
def pv() -> None:
    """Look after PersistentVolumes."""


@pv.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask")
@talks_to_daemon
def reuse(api: Api, name: str, yes: bool) -> None:
    """Make a Released or Failed volume Available again.

    Its old data stays on it, for whoever gets it next.
    """
    path = object_path(PERSISTENT_VOLUMES, name=name)
    try:
        volume = api.get(path)
        _check_free(api, volume)
    except Refused as refusal:
        raise refusal.during(f"reuse {name}") from refusal
    print_note(_describe(volume))
    if not yes and not click.confirm("Let any claim have it?", err=True):
        raise CommandError("nothing was changed")
    metadata = {
        "resourceVersion": volume["metadata"]["resourceVersion"],
        "annotations": {BOUND_BY_CONTROLLER: None},
    }
    change = {"metadata": metadata, "spec": {"claimRef": None}}
    try:
        freed = api.request("PATCH", path, body=change, content_type=MERGE_PATCH)
        phase = _wait_settled(api, freed)
    except Refused as refusal:
        raise refusal.during(f"reuse {name}") from refusal
    print_line(f"persistentvolume {name} is {clean(phase)}")


def _check_free(api: Api, volume: Document) -> None:
    """Raises `CommandError` when somebody has the volume, or it is on its way."""
    metadata, name = volume["metadata"], volume["metadata"]["name"]
    entry = (metadata.get("annotations") or {}).get(RESTORING)
    if entry:
        raise CommandError(
            f"cannot reuse {name}: its data is on the way back from the trash",
            hint=f"to complete that: volagent trash restore {entry}",
        )
    if metadata.get("deletionTimestamp"):
        raise CommandError(
            f"cannot reuse {name}: it is being deleted",
            hint="if its class keeps deleted data: volagent trash list",
        )
    phase = _phase_of(volume)
    if phase not in ("Released", "Failed"):
        raise CommandError(
            f"cannot reuse {name}: it is {phase or 'not looked at yet'}",
            hint="only a volume whose claim is gone can be made Available",
        )
    reference = volume["spec"].get("claimRef") or {}
    claim = _find_claim(api, reference)
    if claim is not None and reference.get("uid") in (None, "", claim["metadata"].get("uid")):
        raise CommandError(
            f"cannot reuse {name}: its claim {_name_of(reference)} still exists",
            hint=f"volagent delete pvc {reference.get('name')} -n {reference.get('namespace')}",
        )


def _find_claim(api: Api, reference: Document) -> Document | None:
    if not reference.get("name"):
        return None
    try:
        found: Document = api.get(object_path(CLAIMS, reference["namespace"], reference["name"]))
    except Refused as refusal:
        if refusal.code == 404:
            return None
        raise
    return found


def _describe(volume: Document) -> str:
    """What somebody gets with it, and what becomes of it afterwards."""
    spec, name = volume["spec"], volume["metadata"]["name"]
    size = (spec.get("capacity") or {}).get("storage", "unknown size")
    last = _name_of(spec.get("claimRef") or {})
    text = f"{name} has {size} and was last used by {last}: its old data stays on it"
    if spec.get("persistentVolumeReclaimPolicy") == "Delete":
        text += ", and goes when its next claim does (reclaim policy Delete)"
    return clean(text)


def _wait_settled(api: Api, volume: Document) -> str:
    """The volume's phase, once the binder has looked at it."""
    metadata = volume["metadata"]
    query = {
        "fieldSelector": f"metadata.name={metadata['name']}",
        "resourceVersion": metadata["resourceVersion"],
    }
    watch = api.watch(object_path(PERSISTENT_VOLUMES), query)
    until_s = time.monotonic() + SETTLE_S
    try:
        while not watch.ended and (left_s := until_s - time.monotonic()) > 0:
            event: tuple[str, dict[str, Any]] | None = watch.next(left_s)
            if event is not None and _phase_of(event[1]) in ("Available", "Bound"):
                return _phase_of(event[1])
    finally:
        watch.close()
    return "free; it is Available when the binder has looked at it"


def _phase_of(volume: Document) -> str:
    return str((volume.get("status") or {}).get("phase") or "")


def _name_of(reference: Document) -> str:
    if not reference.get("name"):
        return "nobody"
    return clean(f"{reference.get('namespace')}/{reference['name']}")
