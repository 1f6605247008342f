"""`volagent run`: settings from file and flags, then the daemon in the foreground."""

import os
from typing import Any

import click

from volagent.cli.errors import UsageError
from volagent.settings import SettingsError, load_settings


@click.command()
@click.option(
    "--config",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="Settings; see config/volagent.toml. Flags win over it",
)
@click.option("--root-dir", metavar="DIR", help="Where volumes are mounted  [/var/lib/kubelet]")
@click.option("--state-dir", metavar="DIR", help="What survives a reboot  [/var/lib/volagent]")
@click.option("--run-dir", metavar="DIR", help="What must not survive it  [/run/volagent]")
@click.option(
    "--listen",
    multiple=True,
    metavar="unix://PATH|https://ADDRESS:PORT",
    help="Where to serve the API; repeatable  [RUN_DIR/volagent.sock]",
)
@click.option("--node-name", metavar="NAME", help="This machine's Node  [the host name]")
@click.option(
    "--drain-on-exit", is_flag=True, default=None, help="Take all volumes down before exiting"
)
def run(config: str | None, listen: tuple[str, ...], **given: Any) -> int:  # fmt: skip
    """Run the daemon in the foreground: store, API and node agent in one process.

    SIGTERM stops it without unmounting, so that pods run on through an upgrade; SIGHUP reads
    certificates and tokens again.
    """
    overrides: dict[str, Any] = dict(given)
    for name in ("root_dir", "state_dir", "run_dir"):
        if overrides[name]:
            overrides[name] = os.path.abspath(overrides[name])
    if listen:
        overrides["listen"] = listen
    try:
        settings = load_settings(config, overrides)
    except SettingsError as error:
        raise UsageError(f"cannot read settings: {error}", hint=error.hint) from error
    from volagent.daemon.all_in_one import (
        run as run_daemon,  # much to load for one who wants --help
    )

    return run_daemon(settings)
