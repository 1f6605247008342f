"""The entry point: finds the verb, runs it, and turns what went wrong into words and an exit code.

Exit codes: 0 done, 1 the operation failed, 2 usage or settings, 3 the daemon cannot be reached, 130
interrupted. Commands are imported when they are called, because a shell loop over `volagent get`
should not pay for what it does not use.
"""

import importlib
import sys
from typing import Any

import click

from volagent import __version__
from volagent.cli.errors import DONE, USAGE, CommandError, Refused
from volagent.cli.options import CONNECTION_NAMES, add_connection_options
from volagent.cli.output import clean, print_note

INTERRUPTED = 130
_COMMANDS = {
    "run": ("run", "Run the daemon: store, API and node agent"),
    "server": ("run", "Run a server: store, API and controllers"),
    "agent": ("run", "Run this machine's agent of a server"),
    "storage": ("run", "Run this machine's agent as a storage node"),
    "init": ("join", "Make the certificates of a new cluster"),
    "token": ("join", "Let machines join"),
    "join": ("join", "Make this machine a node of a cluster"),
    "apply": ("apply", "Declare the objects of manifests, or change them"),
    "get": ("get", "List objects, or follow them as they change"),
    "describe": ("describe", "Show an object in full, with its events"),
    "delete": ("delete", "Withdraw objects and wait until they are gone"),
    "explain": ("explain", "Say where each of a pod's volumes stands, and why"),
    "mounts": ("explain", "Show the mounts that each container is handed"),
    "trash": ("trash", "Show, restore or delete the data of deleted volumes"),
    "node": ("node", "Take VMs out of use, say that one is off, let one go"),
    "pv": ("pv", "Use a released volume again"),
    "kubeconfig": ("kubeconfig", "Print what the stock kubectl needs to talk to the daemon"),
    "backup": ("backup", "Write everything that is declared to a file"),
    "restore": ("backup", "Fill a store from such a file"),
    "migrate": ("backup", "Move a server's objects from SQLite to etcd"),
    "doctor": ("doctor", "Check this machine and the daemon, say what to do"),
    "version": ("version", "Print the versions of command and daemon"),
}


class Verbs(click.Group):
    """The commands, imported one by one and only when needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which somebody meets them."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of a verb."""
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"volagent.cli.{_COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, about) for name, (_, about) in _COMMANDS.items()])


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="volagent %(version)s")
@click.option("-o", "--output", "form", metavar="FORM", help="As -o after the verb")
@add_connection_options
@click.pass_context
def volagent(context: click.Context, /, form: str | None, **connection: str | None) -> None:
    """Persistent volumes for containers on plain VMs, with Kubernetes' objects.

    The options below may stand after the verb as well.
    """
    context.obj = {name: connection[name] for name in CONNECTION_NAMES if connection[name]}


def main() -> None:
    """Run the command line and end the process."""
    sys.exit(run_command(sys.argv[1:]))


def run_command(arguments: list[str]) -> int:
    """Run one command; the exit code."""
    try:
        result: Any = volagent.main(arguments, prog_name="volagent", standalone_mode=False)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx is not None else "volagent"
        _complain(error.format_message(), f"{command} --help")
        return USAGE
    except click.Abort:
        return INTERRUPTED
    except Refused as refusal:
        told = refusal.during("do that")
        _complain(told.message, told.hint)
        return told.exit_code
    except CommandError as error:
        _complain(error.message, error.hint)
        return error.exit_code
    return result if isinstance(result, int) else DONE


def _complain(message: str, hint: str) -> None:
    print_note(f"volagent: {clean(message)}")
    if hint:
        print_note(f"hint: {clean(hint)}")


if __name__ == "__main__":
    main()
