"""etcd as a server's store: opened, and what the servers share laid where each of them looks.

The token key and the certificate authority are kept in etcd, beside the objects: who may write
there could make himself an administrator by an object as well. The first server gives what it has
(so a server that was alone keeps its authority and its tokens), or makes it; every other takes it.
A machine that has an authority of its own already, of another cluster, is refused.
"""

import contextlib
import os
import ssl
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from volagent.aio.clock import SystemClock
from volagent.api.authority import Authority
from volagent.api.tokens import KEY_BYTES, KEY_FILE_NAME
from volagent.daemon.errors import StartError
from volagent.settings import Settings
from volagent.store.contract import Corrupt, StoreError
from volagent.store.etcd import EtcdStore, open_etcd_store
from volagent.store.etcd_client import make_tls
from volagent.store.etcd_shared import offer_shared, read_shared

AUTHORITY, TOKEN_KEY = "authority", "token-key"


class _Pair(msgspec.Struct, frozen=True):
    """The authority, PEM."""

    certificate: bytes
    key: bytes


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
        await _share_token_key(store, state_dir)
        await _share_authority(store, state_dir / "pki")
    except StoreError as error:
        raise StartError(str(error)) from error
    except OSError as error:
        raise StartError(f"{error.filename}: {error.strerror}") from error


async def _share_token_key(store: EtcdStore, state_dir: Path) -> None:
    path = state_dir / KEY_FILE_NAME
    own = _read(path)
    held = await read_shared(store, TOKEN_KEY)
    if held is None:
        held = await offer_shared(store, TOKEN_KEY, own or os.urandom(KEY_BYTES))
    if own is None:
        _write(path, held)
    elif own != held:
        raise _refuse(path, "token key")


async def _share_authority(store: EtcdStore, directory: Path) -> None:
    certificate, key = directory / "ca.crt", directory / "ca.key"
    own = _read_pair(directory)
    text = await read_shared(store, AUTHORITY)
    if text is None:
        offered = own or _make_pair()
        text = await offer_shared(store, AUTHORITY, msgspec.json.encode(offered))
    try:
        held = msgspec.json.decode(text, type=_Pair)
    except msgspec.MsgspecError as error:
        raise Corrupt("the authority in etcd cannot be read") from error
    if own is None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(key, held.key)
        _write(certificate, held.certificate, 0o644)
    elif own.certificate != held.certificate:
        raise _refuse(directory, "certificate authority")


def _refuse(path: Path, what: str) -> StartError:
    return StartError(
        f"{path} is the {what} of another cluster than the one in etcd",
        f"if this machine is to be a server of that one, move {path} away and start again",
    )


def _make_pair() -> _Pair:
    with tempfile.TemporaryDirectory() as name:
        Authority(Path(name), SystemClock())
        pair = _read_pair(Path(name))
    assert pair is not None
    return pair


def _read_pair(directory: Path) -> _Pair | None:
    certificate, key = _read(directory / "ca.crt"), _read(directory / "ca.key")
    return _Pair(certificate, key) if certificate and key else None


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _write(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Durably; a reader sees all of it or nothing."""
    aside = path.with_name(f".{path.name}.new")
    aside.unlink(missing_ok=True)
    fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(fd)
    aside.rename(path)
