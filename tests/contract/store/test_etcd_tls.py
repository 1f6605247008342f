"""etcd that asks for certificates: with them a store works, without them it is refused."""

import ipaddress
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID as Usage
from cryptography.x509.oid import NameOID

from tests import etcd_server
from tests.etcd_server import EtcdMember, free_ports
from volagent.store.contract import Unreachable
from volagent.store.etcd import open_etcd_store
from volagent.store.etcd_client import make_tls

pytestmark = pytest.mark.skipif(etcd_server.PROGRAM is None, reason=etcd_server.MISSING)


class Maker:
    """Makes certificates of one authority, as files."""

    def __init__(self, directory):
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ca")])
        self.ca = self._write("ca", self._sign("ca", self._key.public_key(), ()), None)[0]

    def make(self, name, *usages):
        """Paths of a certificate and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        return self._write(name, self._sign(name, key.public_key(), usages), key)

    def _sign(self, name, public_key, usages):
        now = datetime.now(UTC)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject).issuer_name(self._name).public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5)).not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(not usages, None), True)
        )  # fmt: skip
        if usages:
            address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
            builder = builder.add_extension(x509.SubjectAlternativeName([address]), False)
            builder = builder.add_extension(x509.ExtendedKeyUsage(list(usages)), False)
        return builder.sign(self._key, hashes.SHA256())

    def _write(self, name, certificate, key):
        paths = [self._directory / f"{name}.crt", self._directory / f"{name}.key"]
        paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        if key is not None:
            paths[1].write_bytes(
                key.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.NoEncryption(),
                )
            )
        return [str(path) for path in paths]


@pytest.fixture
def maker(tmp_path):
    return Maker(tmp_path)


@pytest.fixture
def member(tmp_path, maker):
    """An etcd that wants a certificate of everybody. Its own is for clients as well: the gateway
    uses it to reach the very same member."""
    certificate, key = maker.make("etcd", Usage.SERVER_AUTH, Usage.CLIENT_AUTH)
    port, peer_port = free_ports(2)
    member = EtcdMember(tmp_path / "etcd", "m0", (port, peer_port), scheme="https")
    metrics = f"http://127.0.0.1:{free_ports(1)[0]}"
    member.options = (
        "--cert-file", certificate, "--key-file", key, "--client-cert-auth",
        "--trusted-ca-file", maker.ca, "--listen-metrics-urls", metrics,
    )  # fmt: skip
    member.health_url = metrics
    member.start()
    member.wait_healthy()
    yield member
    member.kill()


async def test_store_works_with_a_certificate_that_etcd_trusts(member, maker, prefix):
    tls = make_tls(maker.ca, *maker.make("server", Usage.CLIENT_AUTH))
    store = await open_etcd_store([member.url], prefix, tls)
    revision = await store.create("/things/a", b"1")
    assert (await store.get("/things/a")).mod_revision == revision
    await store.close()


async def test_store_is_refused_without_a_certificate(member, maker, prefix):
    with pytest.raises(Unreachable):
        await open_etcd_store([member.url], prefix, make_tls(maker.ca, "", ""))


async def test_etcd_that_is_not_the_authoritys_is_not_spoken_to(member, tmp_path, prefix):
    (tmp_path / "other").mkdir()
    other = Maker(tmp_path / "other")
    with pytest.raises(Unreachable, match="certificate verify failed"):
        await open_etcd_store([member.url], prefix, make_tls(other.ca, "", ""))
