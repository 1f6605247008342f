"""Our own certificate authority, for `https://` listeners that were given no certificate.

Under `<state_dir>/pki`: `ca.crt` and `ca.key` (10 years), `server.crt` and `server.key` (1 year,
made anew when less than a third is left, or an address is missing; the names that it has it keeps).
Keys are readable by root only.
Clients are known by certificates of this authority; `issue_client` makes those that `volagent
kubeconfig` hands out, valid for a year. The library is imported when it is needed: a daemon that
listens on its socket only never loads it.
"""

import ipaddress
import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from volagent.aio.clock import Clock
from volagent.api.tls import TlsError

CA_LIFE: Final = timedelta(days=3650)
SERVER_LIFE: Final = timedelta(days=365)
CLIENT_LIFE: Final = timedelta(days=365)
_BACKDATED: Final = timedelta(days=2)
"""Clocks of clients may be behind, by a day too."""
_ALWAYS: Final = ("localhost", "127.0.0.1", "::1", "kubernetes.default.svc", "kubernetes")


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, PEM."""

    certificate: bytes
    key: bytes

    def __repr__(self) -> str:
        return "Pair()"


class Authority:
    """Makes and renews certificates."""

    def __init__(self, directory: Path, clock: Clock) -> None:
        """Loads the authority or makes it. Raises `TlsError`."""
        self._directory = directory
        self._clock = clock
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not (directory / "ca.crt").exists():
                key = _make_key()
                name = _name("volagent", ())
                ca = self._sign(name, key, name, key, CA_LIFE, authority=True)
                _write(directory / "ca.key", ca.key)
                _write(directory / "ca.crt", ca.certificate, 0o644)
            self.certificate = (directory / "ca.crt").read_bytes()
            self._key = _load_key((directory / "ca.key").read_bytes())
        except (OSError, ValueError) as error:
            raise TlsError(f"cannot use the certificate authority in {directory}: {error}") from (
                error
            )

    @property
    def path(self) -> str:
        """The authority's certificate."""
        return str(self._directory / "ca.crt")

    def ensure_server(self, hosts: Iterable[str]) -> tuple[str, str]:
        """Paths of a certificate and key that are good for these names and addresses."""
        certificate, key = self._directory / "server.crt", self._directory / "server.key"
        wanted = sorted({*hosts, *_ALWAYS, socket.gethostname().lower()} - {"", "0.0.0.0", "::"})
        if not self._is_good(certificate, key, wanted):
            names = sorted({*wanted, *_names_in(certificate)})
            pair = self._issue("volagent", (), SERVER_LIFE, names=names)
            _write(key, pair.key)
            _write(certificate, pair.certificate, 0o644)
        return str(certificate), str(key)

    def issue_client(self, user: str, groups: Iterable[str]) -> Pair:
        """A certificate that makes its bearer that user, a member of these groups."""
        return self._issue(user, groups, CLIENT_LIFE)

    def certify(self, request: str, user: str, groups: Iterable[str]) -> str:
        """A certificate (PEM) for the key of a signing request; its names are ours, not the
        request's. Raises `ValueError`."""
        from cryptography import x509

        asked = x509.load_pem_x509_csr(request.encode())
        if not asked.is_signature_valid:
            raise ValueError("its signature is not valid")
        issuer = _load_certificate(self.certificate).subject
        return self._certificate(
            _name(user, groups), asked.public_key(), issuer, self._key, CLIENT_LIFE
        ).decode()

    def _issue(
        self, user: str, groups: Iterable[str], life: timedelta, names: Iterable[str] = ()
    ) -> Pair:
        key = _make_key()
        issuer = _load_certificate(self.certificate).subject
        return self._sign(_name(user, groups), key, issuer, self._key, life, names=names)

    def _is_good(self, path: Path, key: Path, wanted: list[str]) -> bool:
        """Whether it is valid for long enough, and of this key: a death may have come between."""
        try:
            found = _load_certificate(path.read_bytes())
            fits = found.public_key() == _load_key(key.read_bytes()).public_key()
        except (OSError, ValueError):
            return False
        now = self._clock.wall()
        begins, ends = found.not_valid_before_utc, found.not_valid_after_utc
        lasts = begins <= now and ends - now > (ends - begins) / 3
        return fits and lasts and _names_in(path) >= set(wanted)

    def _sign(
        self, subject: Any, key: Any, issuer: Any, issuer_key: Any, life: timedelta, *,
        authority: bool = False, names: Iterable[str] = (),
    ) -> Pair:  # fmt: skip
        from cryptography.hazmat.primitives import serialization

        certificate = self._certificate(
            subject, key.public_key(), issuer, issuer_key, life, authority=authority, names=names
        )
        return Pair(
            certificate,
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
        )

    def _certificate(
        self, subject: Any, public_key: Any, issuer: Any, issuer_key: Any, life: timedelta, *,
        authority: bool = False, names: Iterable[str] = (),
    ) -> bytes:  # fmt: skip
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.x509.oid import ExtendedKeyUsageOID

        now: datetime = self._clock.wall()
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _BACKDATED)
            .not_valid_after(now + life)
            .add_extension(x509.BasicConstraints(authority, 0 if authority else None), True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), False
            )
            .add_extension(_key_usage(authority=authority), True)
        )
        listed = list(names)
        if listed:
            alternatives = x509.SubjectAlternativeName([_alternative(name) for name in listed])
            builder = builder.add_extension(alternatives, False)
        if not authority:
            usage = ExtendedKeyUsageOID.SERVER_AUTH if listed else ExtendedKeyUsageOID.CLIENT_AUTH
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), False)
        certificate: bytes = builder.sign(issuer_key, hashes.SHA256()).public_bytes(
            serialization.Encoding.PEM
        )
        return certificate


def _make_key() -> Any:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def _load_key(text: bytes) -> Any:
    from cryptography.hazmat.primitives import serialization

    return serialization.load_pem_private_key(text, None)


def _load_certificate(text: bytes) -> Any:
    from cryptography import x509

    return x509.load_pem_x509_certificate(text)


def _names_in(path: Path) -> set[str]:
    """The names and addresses that a certificate is good for; none of one that cannot be read."""
    from cryptography import x509

    try:
        found = _load_certificate(path.read_bytes())
        alternatives = found.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (OSError, ValueError, x509.ExtensionNotFound):
        return set()
    return {str(each.value) for each in alternatives.value}


def _name(user: str, groups: Iterable[str]) -> Any:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    return x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, user)])


def _alternative(name: str) -> Any:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_usage(*, authority: bool) -> Any:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, key_cert_sign=authority, crl_sign=authority,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _write(path: Path, text: bytes, mode: int = 0o600) -> None:
    """Durably, and never readable by more than `mode` allows."""
    unfinished = path.with_name(f".{path.name}.new")
    unfinished.unlink(missing_ok=True)
    fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(fd, "wb") as file:
        file.write(text)
        file.flush()
        os.fsync(fd)
    unfinished.rename(path)
