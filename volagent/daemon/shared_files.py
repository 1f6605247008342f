"""What a cluster's servers share besides objects, as the files of a state directory.

The key that service account tokens are signed with, and the certificate authority. Each travels (in
etcd, in a backup) as one value: the authority as JSON with certificate and key.
"""

import os
import tempfile
from pathlib import Path

import msgspec

from volagent.aio.clock import SystemClock
from volagent.api.authority import Authority
from volagent.api.tokens import KEY_BYTES, KEY_FILE_NAME

TOKEN_KEY, AUTHORITY = "token-key", "authority"
SHARED = (TOKEN_KEY, AUTHORITY)


class _Pair(msgspec.Struct, frozen=True):
    """The authority, PEM."""

    certificate: bytes
    key: bytes


def read_shared_files(state_dir: Path) -> dict[str, bytes]:
    """What this machine has. Raises `OSError`."""
    found: dict[str, bytes] = {}
    token_key, pair = _read(state_dir / KEY_FILE_NAME), _read_pair(state_dir / "pki")
    if token_key is not None:
        found[TOKEN_KEY] = token_key
    if pair is not None:
        found[AUTHORITY] = msgspec.json.encode(pair)
    return found


def make_shared(name: str) -> bytes:
    """A new one, for the first server of a cluster."""
    if name == TOKEN_KEY:
        return os.urandom(KEY_BYTES)
    with tempfile.TemporaryDirectory() as directory:
        Authority(Path(directory), SystemClock())
        pair = _read_pair(Path(directory))
    assert pair is not None
    return msgspec.json.encode(pair)


def write_shared_file(state_dir: Path, name: str, value: bytes) -> None:
    """Lay it where the server looks, durably. Raises `OSError`, `ValueError`."""
    if name == TOKEN_KEY:
        if len(value) != KEY_BYTES:
            raise ValueError("the token key has not the right length")
        _write(state_dir / KEY_FILE_NAME, value)
        return
    pair = msgspec.json.decode(value, type=_Pair)
    directory = state_dir / "pki"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write(directory / "ca.key", pair.key)
    _write(directory / "ca.crt", pair.certificate, 0o644)


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
