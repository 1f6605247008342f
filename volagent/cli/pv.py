"""`volagent pv reuse`: a released volume is for anybody again, with what is on it."""

import click

from volagent.cli.connection import Api
from volagent.cli.errors import CommandError, Refused
from volagent.cli.options import talks_to_daemon
from volagent.cli.output import print_line, print_note

_VOLUMES = "/api/v1/persistentvolumes"
MERGE = "application/merge-patch+json"


@click.group()
def pv() -> None:
    """Look after PersistentVolumes."""


@pv.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask")
@talks_to_daemon
def reuse(api: Api, name: str, yes: bool) -> None:
    """Make a Released or Failed volume Available: its old data stays on it."""
    try:
        volume = api.get(f"{_VOLUMES}/{name}")
    except Refused as refusal:
        raise refusal.during(f"reuse {name}") from refusal
    phase = (volume.get("status") or {}).get("phase")
    reference = volume["spec"].get("claimRef") or {}
    if phase not in ("Released", "Failed"):
        raise CommandError(
            f"cannot reuse {name}: it is {phase}",
            hint="only a volume whose claim is gone can be made Available",
        )
    last = f"{reference.get('namespace')}/{reference.get('name')}"
    capacity = volume["spec"]["capacity"]["storage"]
    print_note(f"{name} has {capacity} and was last used by {last}; its data stays on it")
    if not yes and not click.confirm("Let any claim have it?", err=True):
        raise CommandError("nothing was changed")
    change = {
        "metadata": {
            "resourceVersion": volume["metadata"]["resourceVersion"],
            "annotations": {"pv.kubernetes.io/bound-by-controller": None},
        },
        "spec": {"claimRef": None},
    }
    try:
        api.request("PATCH", f"{_VOLUMES}/{name}", body=change, content_type=MERGE)
    except Refused as refusal:
        raise refusal.during(f"reuse {name}") from refusal
    print_line(f"persistentvolume {name} is available")
