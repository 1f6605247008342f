"""The server's half of a process: the store, the client over it, who may write what.

Composition for `volagent run` and `volagent server`.
"""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from volagent.aio.clock import Clock
from volagent.api.admission import Admission
from volagent.api.backups import Backups
from volagent.api.inprocess import InProcessClient
from volagent.api.surroundings import ObjectsAround
from volagent.api.surroundings_nodes import NodesAround
from volagent.api.tokens import TokenKeyError, load_key
from volagent.client.shared import SharedCopies
from volagent.daemon.block_store import open_block_store
from volagent.daemon.errors import StartError
from volagent.daemon.etcd_side import opened_etcd
from volagent.daemon.shared_files import read_shared_files
from volagent.drivers.provisioning.contract import ProvisionerTable
from volagent.drivers.provisioning.table import (
    NfsName,
    make_cloud_provisioners,
    make_nfs_provisioners,
)
from volagent.host.contract import Host
from volagent.host.process import Helpers
from volagent.settings import Settings
from volagent.store.contract import AlreadyRunning, Corrupt, Store
from volagent.store.sqlite import open_store


@dataclass(frozen=True, slots=True)
class ServerSide:
    """What a process has to be a server."""

    client: InProcessClient
    admission: Admission
    copies: SharedCopies
    """What its controllers and its authorization know; to be run."""


def make_server_side(settings: Settings, store: Store, clock: Clock) -> ServerSide:
    """Build the server's half. Raises `StartError`."""
    try:
        key = load_key(Path(settings.state_dir))
    except TokenKeyError as error:
        raise StartError(str(error)) from error
    admission = Admission()
    client = InProcessClient(
        store, admission, clock, token_key=key, default_node_name=settings.node_name
    )
    copies = SharedCopies(client)
    admission.surroundings = ObjectsAround(
        copies, mount_tokens=settings.auth.mount_service_account_token
    )
    client.leave_to_scheduler(NodesAround(copies).only_node)
    return ServerSide(client, admission, copies)


@contextlib.asynccontextmanager
async def opened_store(settings: Settings) -> AsyncIterator[Store]:
    """The store that the settings name. Raises `StartError`."""
    if settings.store.kind == "etcd":
        async with opened_etcd(settings) as shared:
            yield shared
        return
    try:
        store = open_store(Path(settings.state_dir))
    except AlreadyRunning as error:
        raise StartError(str(error)) from error
    except Corrupt as error:
        raise StartError(str(error), "restore the state directory from a backup") from error
    except OSError as error:
        raise StartError(f"{settings.state_dir}: {error.strerror}") from error
    try:
        yield store
    finally:
        await store.close()


def make_backups(settings: Settings, store: Store) -> Backups:
    """What answers `volagent backup`."""
    return Backups(store, partial(read_shared_files, Path(settings.state_dir)))


def make_shared_provisioners(
    settings: Settings, host: Host, helpers: Helpers, clock: Clock
) -> ProvisionerTable:
    """The provisioners that any server can run: those of no particular VM."""
    names = [
        NfsName(each.provisioner, each.server, each.path, each.mount_options)
        for each in settings.provision.nfs
    ]
    on_servers = make_nfs_provisioners(
        host, helpers, clock, names,
        work_dir=f"{settings.run_dir}/provision",
        state_dir=settings.state_dir,
        mount_timeout_s=settings.nfs.mount_timeout_s,
    )  # fmt: skip
    block_store = open_block_store(settings.aws, clock)
    return {**on_servers, **make_cloud_provisioners(block_store)}
