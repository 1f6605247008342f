"""`volagent backup`, `restore`, `migrate`: what is declared, out of a store and into one."""

import os
from pathlib import Path
from typing import Any

import click

from volagent.cli.connection import Api
from volagent.cli.errors import CommandError, Refused
from volagent.cli.options import talks_to_daemon
from volagent.cli.output import print_line
from volagent.cli.run import CONFIG, STATE_DIR, load
from volagent.objects.backup import BackupError, decode

PATH = "/apis/node.volagent.dev/v1/backup"


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@talks_to_daemon
def backup(api: Api, file: Path) -> None:
    """Write every object of the running server to FILE, all as of one moment.

    It holds all Secrets and the keys of the cluster: whoever can read it is its administrator. The
    data in volumes is not in it.
    """
    try:
        content = api.read(PATH)
    except Refused as refusal:
        raise refusal.during("take a backup") from refusal
    try:
        snapshot = decode(content)
    except BackupError as error:
        raise CommandError(f"the backup is not whole: {error}", hint="try again") from error
    try:
        _write(file, content)
    except OSError as error:
        raise CommandError(f"{error.filename}: {error.strerror}") from error
    print_line(f"{len(snapshot.objects)} objects at revision {snapshot.revision} in {file}")


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option("--replace", is_flag=True, help="Remove what the store in etcd holds now")
@CONFIG
@STATE_DIR
def restore(file: str, replace: bool, **given: Any) -> None:
    """Fill the store that the settings name from a backup. No server may run on it.

    What was declared since is gone then: agents end pods that are not in the backup and take their
    volumes down; no data in volumes is deleted by it.
    """
    from volagent.daemon.errors import StartError
    from volagent.daemon.filling import restore as fill

    settings = load(given)
    try:
        count = fill(settings, file, replace=replace)
    except StartError as error:
        raise CommandError(f"cannot restore: {error}", hint=error.hint) from error
    print_line(f"restored {count} objects; next: start the server")


@click.command()
@CONFIG
@STATE_DIR
def migrate(**given: Any) -> None:
    """Move a server's objects from SQLite to the etcd that the settings name.

    Stop the server before and start it afterwards. Clients need to do nothing: they are told to
    list again.
    """
    from volagent.daemon.errors import StartError
    from volagent.daemon.filling import migrate as fill

    settings = load(given)
    try:
        count = fill(settings)
    except StartError as error:
        raise CommandError(f"cannot migrate: {error}", hint=error.hint) from error
    print_line(f"moved {count} objects to etcd; next: systemctl enable --now volagent-server")


def _write(path: Path, content: bytes) -> None:
    """Durably, for the owner only, and never half."""
    aside = path.with_name(f".{path.name}.new")
    aside.unlink(missing_ok=True)
    fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as target:
        target.write(content)
        target.flush()
        os.fsync(fd)
    aside.rename(path)
