"""`volagent run`, `server`, `agent`, `storage`: settings from file and flags, in the foreground."""

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click
import msgspec

from volagent.cli.errors import UsageError
from volagent.settings import Settings, SettingsError, load_settings

F = TypeVar("F", bound=Callable[..., Any])

CONFIG = click.option(
    "--config", metavar="FILE", type=click.Path(dir_okay=False),
    help="Settings; see config/volagent.toml. Flags win over it",
)  # fmt: skip
_ROOT_DIR = click.option(
    "--root-dir", metavar="DIR", help="Where volumes are mounted  [/var/lib/kubelet]"
)
STATE_DIR = click.option(
    "--state-dir", metavar="DIR", help="What survives a reboot  [/var/lib/volagent]"
)
_RUN_DIR = click.option(
    "--run-dir", metavar="DIR", help="What must not survive it  [/run/volagent]"
)
_LISTEN = click.option(
    "--listen", multiple=True, metavar="unix://PATH|https://ADDRESS:PORT",
    help="Where to serve the API; repeatable  [RUN_DIR/volagent.sock]",
)  # fmt: skip
_NODE_NAME = click.option(
    "--node-name", metavar="NAME", help="This machine's Node  [the host name]"
)
_DRAIN = click.option(
    "--drain-on-exit", is_flag=True, default=None, help="Take all volumes down before exiting"
)
_SERVER = click.option(
    "--server", "servers", multiple=True, metavar="https://ADDRESS:PORT",
    help="Where the server is; repeatable  [where this machine has joined]",
)  # fmt: skip


def _takes(*options: Callable[[F], F]) -> Callable[[F], F]:
    def decorate(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


@click.command()
@_takes(CONFIG, _ROOT_DIR, STATE_DIR, _RUN_DIR, _LISTEN, _NODE_NAME, _DRAIN)
def run(**given: Any) -> int:
    """Run the daemon in the foreground: store, API and node agent in one process.

    SIGTERM stops it without unmounting, so that pods run on through an upgrade; SIGHUP reads
    certificates and tokens again.
    """
    settings = load(given)
    from volagent.daemon.all_in_one import run as run_role  # much to load for who wants --help

    return run_role(settings)


@click.command()
@_takes(CONFIG, STATE_DIR, _RUN_DIR, _LISTEN)
def server(**given: Any) -> int:
    """Run a server in the foreground: store, API and controllers. The volumes are on other
    machines, each with `volagent agent`; give --listen https://ADDRESS:PORT for them.
    """
    settings = load(given)
    from volagent.daemon.server import run as run_role

    return run_role(settings)


@click.command()
@_takes(CONFIG, _SERVER, _ROOT_DIR, STATE_DIR, _RUN_DIR, _LISTEN, _DRAIN)
def agent(**given: Any) -> int:
    """Run this machine's agent in the foreground, with the server that it has joined.

    SIGTERM stops it without unmounting, so that pods run on through an upgrade.
    """
    settings = load(given)
    from volagent.daemon.agent import run as run_role

    return run_role(settings)


@click.command()
@_takes(CONFIG, _SERVER, _ROOT_DIR, STATE_DIR, _RUN_DIR, _LISTEN, _DRAIN)
def storage(**given: Any) -> int:
    """Run this machine's agent as a storage node: with volumes of its disk for the whole cluster,
    as the section [storage] of the settings says. The same as `volagent agent` with
    storage.enabled.
    """
    settings = load(given)
    settings = msgspec.structs.replace(
        settings, storage=msgspec.structs.replace(settings.storage, enabled=True)
    )
    from volagent.daemon.agent import run as run_role

    return run_role(settings)


def load(given: dict[str, Any]) -> Settings:
    """The settings of the file and the flags. Raises `UsageError`."""
    overrides = dict(given)
    config = overrides.pop("config")
    for name in ("root_dir", "state_dir", "run_dir"):
        if overrides.get(name):
            overrides[name] = os.path.abspath(overrides[name])
    for name in ("listen", "servers"):
        if not overrides.get(name):
            overrides.pop(name, None)
    try:
        return load_settings(config, overrides)
    except SettingsError as error:
        raise UsageError(f"cannot read settings: {error}", hint=error.hint) from error
