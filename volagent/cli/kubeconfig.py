"""`volagent kubeconfig`: what the stock kubectl needs to talk to the daemon."""

import click

from volagent.cli.connection import Api
from volagent.cli.options import talks_to_daemon
from volagent.cli.output import print_document

PATH = "/apis/node.volagent.dev/v1/kubeconfig"


@click.command()
@click.option("--address", metavar="URL", help="What to write as server  [default: the listener]")
@talks_to_daemon
def kubeconfig(api: Api, address: str | None) -> None:
    """Print a kubeconfig of an administrator, with a certificate that is made for it.

    It holds a private key: keep it to yourself (umask 077; volagent kubeconfig >FILE).
    """
    print_document(api.get(PATH, {"server": address} if address else None), "yaml")
