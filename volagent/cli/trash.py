"""`volagent trash`: the data of deleted volumes, for as long as their classes keep it."""

from typing import Any

import click

from volagent.cli.connection import Api
from volagent.cli.errors import CommandError, Refused
from volagent.cli.options import talks_to_daemon
from volagent.cli.output import format_age, print_document, print_line, print_note, print_table

PATH = "/apis/node.volagent.dev/v1/trash"


@click.group()
def trash() -> None:
    """Show, restore or delete the data of deleted volumes."""


@trash.command("list")
@click.option("-o", "--output", "form", type=click.Choice(["json", "yaml"]), help="How to print")
@talks_to_daemon
def list_entries(api: Api, form: str | None) -> None:
    """List what can still be had back, the oldest first."""
    answer = api.get(PATH)
    if form:
        print_document(answer, form)
        return
    for problem in answer["problems"]:
        print_note(f"volagent: {problem}")
    if not answer["items"]:
        print_note("the trash is empty")
        return
    rows = [
        (
            entry["id"], entry["claim"], entry["capacity"],
            f"{format_age(entry['deleted_at'])} ago", entry["expires_at"],
        )
        for entry in answer["items"]
    ]  # fmt: skip
    print_table(("ID", "CLAIM", "CAPACITY", "DELETED", "EXPIRES"), rows)


@trash.command()
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@talks_to_daemon
def restore(api: Api, ids: tuple[str, ...]) -> None:
    """Have volumes back: each is there again, for a claim of its former name or any you give it."""
    for each in ids:
        (volume,) = _ask(api, "restore", [each])["items"]
        reference = volume["spec"].get("claimRef") or {}
        whom = f"{reference.get('namespace')}/{reference.get('name')}" if reference else "any claim"
        print_line(f"persistentvolume {volume['metadata']['name']} restored, reserved for {whom}")


@trash.command()
@click.argument("ids", metavar="ID...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Everything that is in the trash")
@click.option("--yes", is_flag=True, help="Do not ask")
@talks_to_daemon
def empty(api: Api, ids: tuple[str, ...], everything: bool, yes: bool) -> None:
    """Delete data for good, before its time."""
    if everything == bool(ids):
        raise click.UsageError("name entries, or give --all")
    chosen = [entry["id"] for entry in api.get(PATH)["items"]] if everything else [*ids]
    if not chosen:
        print_note("the trash is empty")
        return
    if not yes and not click.confirm(f"Delete {len(chosen)} entries for good?", err=True):
        raise CommandError("nothing was deleted")
    for each in chosen:
        _ask(api, "empty", [each])
        print_line(f"{each} deleted")


def _ask(api: Api, what: str, ids: list[str]) -> Any:
    try:
        return api.request("POST", f"{PATH}/{what}", body={"ids": ids})
    except Refused as refusal:
        raise refusal.during(f"{what} {', '.join(ids)}") from refusal
