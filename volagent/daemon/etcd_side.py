"""etcd as a server's store: opened, and what the servers share laid where each of them looks.

The token key and the certificate authority are kept in etcd, beside the objects: who may write
there could make himself an administrator by an object as well. The first server gives what it has
(so a server that was alone keeps its authority and its tokens), or makes it; every other takes it.
A machine that has an authority of its own already, of another cluster, is refused.
"""

import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

from volagent.daemon.errors import StartError
from volagent.daemon.shared_files import (
    SHARED,
    make_shared,
    read_shared_files,
    write_shared_file,
)
from volagent.settings import Settings
from volagent.store.contract import Corrupt, StoreError
from volagent.store.etcd import EtcdStore, open_etcd_store
from volagent.store.etcd_client import make_tls
from volagent.store.etcd_shared import offer_shared, read_shared


@contextlib.asynccontextmanager
async def opened_etcd(settings: Settings) -> AsyncIterator[EtcdStore]:
    """The store, with what is shared laid into the state directory. Raises `StartError`."""
    store = await connect_etcd(settings)
    try:
        await share(store, Path(settings.state_dir))
        yield store
    finally:
        await store.close()


async def connect_etcd(settings: Settings) -> EtcdStore:
    """The store alone. Raises `StartError`."""
    try:
        return await open_etcd_store(
            settings.store.endpoints, settings.store.prefix, make_etcd_tls(settings)
        )
    except Corrupt as error:
        raise StartError(str(error)) from error
    except StoreError as error:
        raise StartError(
            str(error), 'is etcd running, and are "store.endpoints" and the certificates right?'
        ) from error


def make_etcd_tls(settings: Settings) -> ssl.SSLContext:
    """As the settings have it. Raises `StartError`."""
    kept = settings.store
    try:
        return make_tls(kept.ca, kept.certificate, kept.key)
    except (OSError, ssl.SSLError) as error:
        raise StartError(f"[store] ca, certificate, key: {error}", "want PEM files") from error


async def share(store: EtcdStore, state_dir: Path) -> None:
    """Give what this machine has, or take what is there. Raises `StartError`."""
    try:
        own = read_shared_files(state_dir)
        for name in SHARED:
            held = await read_shared(store, name)
            if held is None:
                held = await offer_shared(store, name, own.get(name) or make_shared(name))
            if name not in own:
                write_shared_file(state_dir, name, held)
            elif own[name] != held:
                raise StartError(
                    f"the {name} in {state_dir} is of another cluster than the one in etcd",
                    "if this machine is to be a server of that one, move token.key and pki away"
                    " and start again",
                )
    except (StoreError, ValueError) as error:
        raise StartError(f"what servers share cannot be used: {error}") from error
    except OSError as error:
        raise StartError(f"{error.filename}: {error.strerror}") from error
