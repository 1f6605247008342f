"""TLS for `https://` listeners. Certificates are made elsewhere; here they are only loaded.

Most connections are watches that hardly say anything, a dozen for each agent: what one costs while
it is silent decides how many agents a server can have.
"""

import asyncio.sslproto
import ssl
from collections.abc import Mapping
from typing import Any

from volagent.api.auth import User

RECEIVE_BYTES = 8 * 1024
"""Of a connection's buffer for what it receives; asyncio's own, 256 KiB, is filled with zeros at
once, and so is memory from the first moment."""


class TlsError(Exception):
    """The certificate, key or CA cannot be used."""


def make_server_context(certificate: str, key: str, client_ca: str = "") -> ssl.SSLContext:
    """TLS 1.2 and newer with this certificate chain and key (PEM files).

    With `client_ca` clients may show a certificate signed by it. Raises `TlsError`.
    """
    if not certificate or not key:
        raise TlsError("https needs a certificate and a key: set tls.certificate and tls.key")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    load_certificate(context, certificate, key)
    if client_ca:
        try:
            context.load_verify_locations(client_ca)
        except (OSError, ssl.SSLError) as error:
            raise TlsError(f"cannot load CA {client_ca}: {error}") from error
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def keep_connections_small() -> None:
    """Have every connection of this process receive in smaller pieces from now on."""
    asyncio.sslproto.SSLProtocol.max_size = RECEIVE_BYTES


def load_certificate(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Use this certificate from the next connection on; on failure the old one stays.

    Raises `TlsError`.
    """
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise TlsError(f"cannot load certificate {certificate} with key {key}: {error}") from error


def identify_certificate(certificate: Mapping[str, Any] | None) -> User | None:
    """The user of a verified client certificate: common name, and organizations as groups.

    `certificate` is what `SSLSocket.getpeercert` gives.
    """
    if not certificate:
        return None
    names: dict[str, list[str]] = {}
    for (field, value), *_ in certificate.get("subject", ()):
        names.setdefault(field, []).append(value)
    if "commonName" not in names:
        return None
    groups = frozenset(names.get("organizationName", ())) | {"system:authenticated"}
    return User(names["commonName"][0], groups, "use a certificate with O=system:masters")
