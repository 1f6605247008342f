"""What an agent proves itself with: its key, its certificate, the cluster's authority.

Under `<state_dir>/node`: `ca.crt`, `node.crt`, `node.key` (root only) and `servers` (a URL per
line). The key never leaves the machine: what travels is a signing request. Files are replaced one
by one, each durably; the certificate last, so that a death in between leaves the old pair usable
or a new request to be made.
"""

import os
import ssl
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from volagent.client.http import make_client_context

RENEW_AT_SHARE = 1 / 3
"""A certificate is renewed when less of its life is left."""


class CredentialsError(Exception):
    """The credentials are missing or cannot be used."""


@dataclass(frozen=True, slots=True, repr=False)
class SigningRequest:
    """A new key, and the request to have it certified, PEM."""

    key: bytes
    request: str


class Credentials:
    """The files of one agent."""

    def __init__(self, state_dir: str) -> None:
        self._directory = Path(state_dir) / "node"

    @property
    def exist(self) -> bool:
        """Whether this machine has joined a cluster."""
        return (self._directory / "node.crt").exists()

    def read_servers(self) -> tuple[str, ...]:
        """The servers that were given when the machine joined. Raises `CredentialsError`."""
        try:
            return tuple((self._directory / "servers").read_text().split())
        except OSError as error:
            raise CredentialsError(f"{error.filename}: {error.strerror}") from error

    def read_node(self) -> str:
        """The name that the certificate was made for. Raises `CredentialsError`."""
        from cryptography.x509.oid import NameOID

        (name,) = self._load().subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return str(name.value).rpartition(":")[2]

    def make_context(self) -> ssl.SSLContext:
        """TLS with them. Raises `CredentialsError`."""
        try:
            context = make_client_context(str(self._directory / "ca.crt"))
        except OSError as error:
            raise CredentialsError(f"{self._directory}/ca.crt: {error}") from error
        self.load_into(context)
        return context

    def load_into(self, context: ssl.SSLContext) -> None:
        """Use the certificate for connections to come. Raises `CredentialsError`."""
        certificate, key = self._directory / "node.crt", self._directory / "node.key"
        try:
            context.load_cert_chain(certificate, key)
        except OSError as error:
            raise CredentialsError(f"{certificate}: {error}") from error

    def wants_renewal(self, now: datetime) -> bool:
        """Whether the certificate should be renewed. Raises `CredentialsError`."""
        found = self._load()
        begins, ends = found.not_valid_before_utc, found.not_valid_after_utc
        return bool(ends - now < (ends - begins) * RENEW_AT_SHARE)

    def explain_expiry(self, now: datetime) -> str:
        """When the certificate expired; "" while it is good. Raises `CredentialsError`."""
        ends = self._load().not_valid_after_utc
        return f"the certificate of this node expired at {ends:%Y-%m-%d %H:%M} UTC" if (
            ends <= now
        ) else ""  # fmt: skip

    def _load(self) -> Any:  # the library is loaded when it is needed
        from cryptography import x509

        try:
            return x509.load_pem_x509_certificate((self._directory / "node.crt").read_bytes())
        except (OSError, ValueError) as error:
            raise CredentialsError(f"{self._directory}/node.crt: {error}") from error

    def keep(self, request: SigningRequest, certificate: str, ca: str = "") -> None:
        """Write a certified key in place of an older one."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if ca:
            _write(self._directory / "ca.crt", ca.encode(), 0o644)
        _write(self._directory / "node.key", request.key, 0o600)
        _write(self._directory / "node.crt", certificate.encode(), 0o644)

    def keep_servers(self, servers: tuple[str, ...]) -> None:
        """Remember where the servers are."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(self._directory / "servers", "\n".join(servers).encode(), 0o644)


def make_request(node: str) -> SigningRequest:
    """A new key and its signing request; the server decides what it certifies."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"system:node:{node}")])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    encoding = serialization.Encoding.PEM
    secret = key.private_bytes(
        encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return SigningRequest(secret, request.public_bytes(encoding).decode())


def _write(path: Path, text: bytes, mode: int) -> None:
    unfinished = path.with_name(f".{path.name}.new")
    unfinished.unlink(missing_ok=True)
    fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(fd, "wb") as file:
        file.write(text)
        file.flush()
        os.fsync(fd)
    unfinished.rename(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
