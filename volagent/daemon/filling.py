"""`volagent restore` and `volagent migrate`: fill a store while no server runs on it.

Both end with a store whose revisions go on after those of its source, so that whoever followed the
objects is told that his revision is too old, and lists again. The token key and the authority go
along: nodes, tokens and kubeconfigs stay valid.
"""

import asyncio
from pathlib import Path

from volagent.api.resources import TRAITS
from volagent.daemon.errors import StartError
from volagent.daemon.etcd_side import make_etcd_tls
from volagent.daemon.shared_files import read_shared_files, write_shared_file
from volagent.objects.backup import BackupError, Snapshot, decode
from volagent.settings import Settings
from volagent.store.contract import AlreadyRunning, Corrupt, NotEmpty, StoreError
from volagent.store.database import FILE_NAME
from volagent.store.etcd_client import EtcdClient
from volagent.store.etcd_fill import fill
from volagent.store.etcd_layout import Layout
from volagent.store.sqlite import open_store
from volagent.store.sqlite_fill import fill_sqlite

MIGRATED = f"{FILE_NAME}.migrated"


def restore(settings: Settings, path: str, *, replace: bool) -> int:
    """Fill the store that the settings name from a file; how many objects. Raises `StartError`."""
    try:
        snapshot = decode(Path(path).read_bytes())
    except OSError as error:
        raise StartError(f"{path}: {error.strerror}") from error
    except BackupError as error:
        raise StartError(f"{path}: {error}", "take another backup") from error
    state_dir = Path(settings.state_dir)
    _check_shared(snapshot, state_dir)
    try:
        if settings.store.kind == "etcd":
            asyncio.run(_fill_etcd(settings, snapshot, replace=replace))
        else:
            fill_sqlite(state_dir, snapshot)
        for name, value in snapshot.shared.items():
            write_shared_file(state_dir, name, value)
    except (NotEmpty, AlreadyRunning) as error:
        raise StartError(str(error), _how_to_make_room(settings)) from error
    except (StoreError, ValueError) as error:
        raise StartError(str(error)) from error
    except OSError as error:
        raise StartError(f"{error.filename}: {error.strerror}") from error
    return len(snapshot.objects)


def migrate(settings: Settings) -> int:
    """Fill etcd from the SQLite file of the state directory; how many objects.

    The file stays, under another name, so that nobody goes on with it. Raises `StartError`.
    """
    if settings.store.kind != "etcd":
        raise StartError('"store.kind" is not "etcd"', "name the target in the settings first")
    state_dir = Path(settings.state_dir)
    if not (state_dir / FILE_NAME).exists():
        raise StartError(f"there is no {state_dir / FILE_NAME}", "name the --state-dir")
    try:
        count = asyncio.run(_migrate(settings, state_dir))
        (state_dir / FILE_NAME).rename(state_dir / MIGRATED)
    except AlreadyRunning as error:
        raise StartError(str(error)) from error
    except NotEmpty as error:
        raise StartError(str(error), 'choose another "store.prefix"') from error
    except Corrupt as error:
        raise StartError(str(error), "restore it from a backup first") from error
    except StoreError as error:
        raise StartError(str(error)) from error
    except OSError as error:
        raise StartError(f"{error.filename}: {error.strerror}") from error
    return count


async def _migrate(settings: Settings, state_dir: Path) -> int:
    store = open_store(state_dir)  # and with it the directory's lock: no server runs meanwhile
    try:
        objects: list[tuple[str, bytes]] = []
        for traits in TRAITS:
            found, _ = await store.list(traits.prefix)
            objects += [(stored.key, stored.value) for stored in found]
        snapshot = Snapshot(store.revision, objects, read_shared_files(state_dir))
        await _fill_etcd(settings, snapshot, replace=False)
    finally:
        await store.close()
    return len(snapshot.objects)


async def _fill_etcd(settings: Settings, snapshot: Snapshot, *, replace: bool) -> None:
    client = EtcdClient(settings.store.endpoints, make_etcd_tls(settings))
    try:
        await fill(client, Layout(settings.store.prefix), snapshot, replace=replace)
    finally:
        await client.close()


def _check_shared(snapshot: Snapshot, state_dir: Path) -> None:
    """A machine keeps the authority that it has: it may be another cluster's."""
    own = read_shared_files(state_dir)
    for name, value in snapshot.shared.items():
        if own.get(name, value) != value:
            raise StartError(
                f"the {name} in {state_dir} is another one than the backup's",
                "move token.key and pki there away first, if they are not needed any more",
            )


def _how_to_make_room(settings: Settings) -> str:
    if settings.store.kind == "etcd":
        return "give --replace to have it removed, with all that it holds"
    return "stop the server, and move the file away"
