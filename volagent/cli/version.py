"""`volagent version`: which command, and which daemon answers it."""

import click

from volagent import __version__
from volagent.cli.connection import Api
from volagent.cli.errors import Refused, Unreachable
from volagent.cli.options import talks_to_daemon
from volagent.cli.output import print_document, print_line


@click.command()
@click.option("-o", "--output", "form", type=click.Choice(["json", "yaml"]), help="How to print")
@click.option("--client", "only_client", is_flag=True, help="Do not ask the daemon")
@talks_to_daemon
def version(api: Api, form: str | None, only_client: bool) -> None:
    """Print the versions of the command and of the daemon, where one answers."""
    daemon: str | None = None
    if not only_client:
        try:
            # It calls itself `v<the Kubernetes API it speaks>+volagent.<its own version>`.
            told = str(api.get("/version").get("gitVersion") or "unknown")
            daemon = told.partition("+volagent.")[2] or told
        except (Refused, Unreachable):
            daemon = None  # no daemon has no version: that is an answer too
    form = form or click.get_current_context().find_root().params.get("form")
    if form in ("json", "yaml"):
        print_document({"command": __version__, "daemon": daemon}, form)
        return
    print_line(f"volagent {__version__}")
    if not only_client:
        print_line(f"daemon   {daemon or 'not reachable'}")
