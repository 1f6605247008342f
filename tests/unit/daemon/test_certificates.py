"""The certificates of servers and agents over the years: made anew before they expire."""

import asyncio
import ssl
from datetime import timedelta

import pytest
from cryptography import x509

from tests.simulation.virtual_time import VirtualClock, run_virtually
from volagent.api.authority import Authority
from volagent.client.contract import Unavailable
from volagent.client.credentials import Credentials, make_request
from volagent.daemon.renewal import renew_certificate
from volagent.daemon.serving import Serving
from volagent.settings import load_settings

DAY_S = 86400.0
NODE = "system:node:vm1"


def load(path):
    with open(path, "rb") as file:
        return x509.load_pem_x509_certificate(file.read())


def names_of(certificate):
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return {str(each.value) for each in found.value}


class Server:
    """Signs what an agent asks for, unless it is away."""

    def __init__(self, authority):
        self.authority = authority
        self.away = False
        self.asked = 0

    async def ask(self, _method, _path, body):
        self.asked += 1
        if self.away:
            raise Unavailable("no route to host")
        certificate = self.authority.certify(body["request"], NODE, ("system:nodes",))
        return {"certificate": certificate, "ca": self.authority.certificate.decode()}


async def an_agent(tmp_path, clock):
    server = Server(Authority(tmp_path / "pki", clock))
    credentials = Credentials(str(tmp_path))
    request = make_request("vm1")
    answer = await server.ask("POST", "", {"request": request.request})
    credentials.keep(request, answer["certificate"], answer["ca"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    credentials.load_into(context)
    running = asyncio.ensure_future(renew_certificate("vm1", credentials, server, context, clock))
    return server, credentials, running


def test_agents_certificate_is_renewed_with_a_new_key_before_it_expires(tmp_path):
    async def story():
        clock = VirtualClock()
        server, credentials, running = await an_agent(tmp_path, clock)
        keys = set()
        for _ in range(40):
            await asyncio.sleep(7 * DAY_S)
            assert credentials.explain_expiry(clock.wall()) == ""
            left = load(tmp_path / "node/node.crt").not_valid_after_utc - clock.wall()
            assert left > timedelta(days=115)
            keys.add((tmp_path / "node/node.key").read_bytes())
        assert len(keys) == 2
        assert server.asked == 2
        assert not running.done()
        running.cancel()

    run_virtually(story())


def test_agent_goes_on_asking_while_the_server_is_away_and_says_when_it_is_too_late(tmp_path):
    async def story():
        clock = VirtualClock()
        server, credentials, running = await an_agent(tmp_path, clock)
        server.away = True
        await asyncio.sleep(363 * DAY_S)
        await asyncio.sleep(1.5 * DAY_S)
        assert server.asked > 100
        assert credentials.explain_expiry(clock.wall()) == ""
        await asyncio.sleep(DAY_S)
        assert "expired at 2027-01-01" in credentials.explain_expiry(clock.wall())
        server.away = False
        await asyncio.sleep(2 * 3600)
        assert not credentials.wants_renewal(clock.wall())
        assert not running.done()
        running.cancel()

    run_virtually(story())


@pytest.mark.parametrize("days", [-1, 0, 1])
def test_fresh_certificate_is_good_on_a_machine_whose_clock_is_a_day_off(tmp_path, days):
    async def story():
        clock = VirtualClock()
        authority = Authority(tmp_path / "pki", clock)
        certificate, _ = authority.ensure_server(["10.0.0.1"])
        seen = clock.wall() + timedelta(days=days)
        for each in (load(certificate), load(authority.path)):
            assert each.not_valid_before_utc < seen < each.not_valid_after_utc

    run_virtually(story())


class Listening:
    """Counts how often the server's certificates are read again."""

    reloads = 0

    def reload_certificates(self):
        self.reloads += 1


def test_servers_certificate_is_renewed_while_it_runs_and_keeps_its_names(tmp_path):
    async def story():
        clock = VirtualClock()
        authority = Authority(tmp_path / "pki", clock)
        path, key = authority.ensure_server(["server.example.org"])  # `volagent init --address`
        first = load(path)
        listening = Listening()
        listen = ("https://10.0.0.1:6443", "https://10.1.0.1:6443", "unix:///run/x.sock")
        settings = load_settings(overrides={"listen": listen})
        serving = Serving(settings, listening, authority=authority)
        running = asyncio.ensure_future(serving.renew_certificate())
        for _ in range(40):
            await asyncio.sleep(7 * DAY_S)
            found = load(path)
            assert found.not_valid_after_utc - clock.wall() > timedelta(days=115)
            assert names_of(found) >= {"server.example.org", "10.0.0.1", "10.1.0.1", "localhost"}
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(path, key)
        assert found.serial_number != first.serial_number
        assert listening.reloads > 0
        assert not running.done()
        running.cancel()

    run_virtually(story())


def test_certificate_of_another_key_is_made_anew(tmp_path):
    """A death between the two files: what is served must be one pair."""

    async def story():
        clock = VirtualClock()
        authority = Authority(tmp_path / "pki", clock)
        path, key = authority.ensure_server([])
        other, _ = Authority(tmp_path / "other", clock).ensure_server([])
        with open(path, "wb") as file, open(other, "rb") as source:
            file.write(source.read())
        assert authority.ensure_server([]) == (path, key)
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(path, key)

    run_virtually(story())
