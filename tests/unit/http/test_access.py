"""Who may do what: the kernel's word on a unix socket, tokens and certificates over TLS."""

import asyncio
import grp
import os
import socket
import ssl
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.unit.http.certificates import Authority, make_authority
from tests.unit.http.world import Answer, World, make_pod, one_metric
from volagent.api.auth import ServiceAccountTokens, TokenFile, TokenFileError
from volagent.api.listen import (
    ListenError,
    TlsListener,
    UnixListener,
    bind_unix,
    parse_listener,
)
from volagent.api.server import ApiServer
from volagent.api.tls import RECEIVE_BYTES, TlsError
from volagent.client.contract import (
    CONFIG_MAPS,
    NODES,
    PODS,
    SERVICE_ACCOUNTS,
    Forbidden,
    Unauthorized,
    Unavailable,
)
from volagent.client.http import HttpClient, make_client_context

NOBODY = 65534
ASK_AS_NOBODY = """
import http.client, os, socket, sys
os.setgroups([{groups}]); os.setgid({gid}); os.setuid({uid})
connection = http.client.HTTPConnection("x")
connection.sock = socket.socket(socket.AF_UNIX)
connection.sock.connect(sys.argv[1])
connection.request("GET", sys.argv[2])
answer = connection.getresponse()
print(answer.status, answer.read().decode())
"""
needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="becoming another user needs root: run as root"
)


async def ask_as(uid: int, gid: int, groups: str, path: str, what: str) -> str:
    for directory in Path(path).parents:  # pytest's are private
        if str(directory).startswith("/tmp/"):
            directory.chmod(0o755)
    program = ASK_AS_NOBODY.format(uid=uid, gid=gid, groups=groups)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-c", program, path, what, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    return output.decode()


@needs_root
async def test_stranger_is_told_how_to_get_access_when_asking_for_pods(world: World) -> None:
    text = await ask_as(NOBODY, NOBODY, "", world.socket_path, "/api/v1/pods")
    assert text.startswith("403 ")
    assert '"reason":"Forbidden"' in text
    assert 'cannot list resource \\"pods\\"' in text
    assert "usermod -aG volagent" in text


@needs_root
async def test_stranger_may_see_health_and_version(world: World) -> None:
    for path in ("/readyz", "/version", "/api/v1"):
        text = await ask_as(NOBODY, NOBODY, "", world.socket_path, path)
        assert text.startswith("200 "), text
    for path in ("/metrics", "/apis/node.volagent.dev/v1/status"):
        text = await ask_as(NOBODY, NOBODY, "", world.socket_path, path)
        assert text.startswith("403 "), text


@needs_root
@pytest.mark.parametrize(("gid", "groups"), [(1, ""), (NOBODY, "2, 1, 3")])
async def test_member_of_the_group_is_let_in(
    world: World, tmp_path: Path, gid: int, groups: str
) -> None:
    path = str(tmp_path / "group.sock")
    await world.server.start_unix(path, group=grp.getgrgid(1).gr_name)
    text = await ask_as(NOBODY, gid, groups, path, "/api/v1/pods")
    assert text.startswith("200 "), text


async def test_health_says_why_when_not_ready(world: World) -> None:
    assert (await world.call("GET", "/readyz")).code == 200
    world.ready.append("recovery is under way")
    answer = await world.call("GET", "/readyz")
    assert (answer.code, b"recovery is under way" in answer.body) == (503, True)
    assert (await world.call("GET", "/livez")).code == 200


async def test_node_answers_when_asked(world: World) -> None:
    root = "/apis/node.volagent.dev/v1"
    pod = "namespaces/default/pods/web"
    assert (await world.call("GET", f"{root}/explain/{pod}")).json["pod"] == "default/web"
    assert (await world.call("GET", f"{root}/mounts/{pod}")).json["kind"] == "PodMounts"
    assert (await world.call("GET", f"{root}/status")).json["kind"] == "NodeStatus"
    plan = await world.call("POST", f"{root}/plan", make_pod("x"))
    assert plan.json["pod"] == "x"
    refused = await world.call("POST", f"{root}/plan", make_pod("x", volumes=[{"name": "A"}]))
    assert (refused.code, "spec.volumes[0].name" in refused.json["message"]) == (422, True)
    assert (await world.call("GET", f"{root}/explain/{pod}s")).code == 404
    assert (await world.call("GET", "/metrics")).body == b"volagent_up 1\n"


# --- listeners


@pytest.mark.parametrize(
    ("text", "listener"),
    [
        ("unix:///run/x.sock", UnixListener("/run/x.sock")),
        ("https://127.0.0.1:8443", TlsListener("127.0.0.1", 8443)),
        ("https://[::1]:8443", TlsListener("::1", 8443)),
        ("https://vm-1.example:1", TlsListener("vm-1.example", 1)),
    ],
)
def test_listener_is_understood_when_well_formed(text: str, listener: object) -> None:
    assert parse_listener(text) == listener


@pytest.mark.parametrize(
    "text",
    ["", "unix://run/x", "unix:///" + "x" * 200, "http://127.0.0.1:80", "https://:1", "https://a",
     "https://a:99999", "tcp://a:1", "https://a:1/path"],
)  # fmt: skip
def test_listener_is_refused_when_malformed(text: str) -> None:
    with pytest.raises(ListenError):
        parse_listener(text)


def test_socket_is_replaced_when_its_daemon_is_dead(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    bind_unix(path, 0o600, "no-such-group").close()
    assert os.path.exists(path)
    listener = bind_unix(path, 0o640, "no-such-group")
    assert os.stat(path).st_mode & 0o777 == 0o640
    with pytest.raises(ListenError, match="another daemon"):
        bind_unix(path, 0o600, "no-such-group")
    listener.close()


def test_socket_is_refused_when_a_file_is_in_its_place(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("precious")
    with pytest.raises(ListenError, match="no socket"):
        bind_unix(str(path), 0o600, "no-such-group")
    assert path.read_text() == "precious"


# --- TLS


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return make_authority(tmp_path / "tls")


@pytest.fixture
async def port(world: World, authority: Authority, tmp_path: Path) -> AsyncIterator[int]:
    tokens = tmp_path / "tokens.csv"
    tokens.write_text(
        '# name the groups\nadmin-token,alice,1,"system:masters,x"\nother-token,bob,2\n'
    )
    server = ApiServer(
        world.client,
        node_view=None,
        ready=lambda: None,
        metrics=one_metric,
        version="0",
        authenticators=[
            TokenFile(str(tokens)),
            ServiceAccountTokens(world.client, world.client.issuer),
        ],
    )
    yield await server.start_tls(
        "127.0.0.1", 0, authority.server.certificate, authority.server.key, authority.ca
    )
    await server.close()


def connect(port: int, authority: Authority, token: str = "") -> HttpClient:
    tls = make_client_context(authority.ca)
    return HttpClient(f"https://localhost:{port}", token=token, tls=tls)


async def test_admin_is_let_in_when_the_token_is_known(port: int, authority: Authority) -> None:
    async with connect(port, authority, "admin-token") as client:
        assert (await client.list(PODS)).items == []


async def test_caller_is_forbidden_when_the_token_has_no_group(
    port: int, authority: Authority
) -> None:
    async with connect(port, authority, "other-token") as client:
        with pytest.raises(Forbidden, match='User "bob" cannot list resource "nodes"'):
            await client.list(NODES)


async def test_caller_is_unauthorized_when_unknown(port: int, authority: Authority) -> None:
    for token in ("wrong", ""):
        async with connect(port, authority, token) as client:
            with pytest.raises(Unauthorized):
                await client.list(PODS)


async def test_service_account_is_known_but_may_not_when_it_shows_its_token(
    world: World, port: int, authority: Authority
) -> None:
    issued = await world.client.issue_token("default", "default", {})
    async with connect(port, authority, issued["status"]["token"]) as client:
        with pytest.raises(Forbidden, match="system:serviceaccount:default:default"):
            await client.list(PODS)
    await world.client.delete(SERVICE_ACCOUNTS, "default", "default")
    async with connect(port, authority, issued["status"]["token"]) as client:
        with pytest.raises(Unauthorized, match="gone"):
            await client.list(PODS)


async def test_certificate_is_an_identity_when_the_ca_signed_it(
    port: int, authority: Authority
) -> None:
    for pair, allowed in ((authority.admin, True), (authority.stranger, False)):
        tls = make_client_context(authority.ca, pair.certificate, pair.key)
        async with HttpClient(f"https://localhost:{port}", tls=tls) as client:
            if allowed:
                await client.list(PODS)
            else:
                with pytest.raises(Forbidden, match='User "mallory"'):
                    await client.list(PODS)


async def test_connection_costs_little_while_it_is_silent(port: int, authority: Authority) -> None:
    tls = make_client_context(authority.ca)
    _, writer = await asyncio.open_connection("localhost", port, ssl=tls)
    # Both ends are in this process; when asyncio names it otherwise, the memory is to be measured.
    assert len(writer.transport._ssl_protocol._ssl_buffer) <= RECEIVE_BYTES  # type: ignore[attr-defined]
    writer.close()


async def test_large_body_arrives_whole_over_tls(port: int, authority: Authority) -> None:
    data = {"k": "v" * 100 * RECEIVE_BYTES}
    async with connect(port, authority, "admin-token") as client:
        await client.create(CONFIG_MAPS, {"metadata": {"name": "large"}, "data": data}, "default")
        assert (await client.get(CONFIG_MAPS, "large", "default"))["data"] == data


async def test_server_is_not_trusted_when_its_ca_is_not(port: int) -> None:
    async with HttpClient(f"https://localhost:{port}", tls=ssl.create_default_context()) as client:
        with pytest.raises(Unavailable, match="certificate"):
            await client.list(PODS)


async def test_plain_http_gets_nothing_on_a_tls_port(port: int) -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientError):
            await session.get(f"http://127.0.0.1:{port}/healthz")


async def test_health_needs_no_token(port: int, authority: Authority) -> None:
    async with aiohttp.ClientSession() as session:
        tls = make_client_context(authority.ca)
        async with session.get(f"https://localhost:{port}/readyz", ssl=tls) as response:
            assert Answer(response.status, await response.read()).code == 200


async def test_https_is_refused_when_the_certificate_is_missing(world: World) -> None:
    with pytest.raises(TlsError, match=r"tls\.certificate"):
        await world.server.start_tls("127.0.0.1", 0, "", "")
    with pytest.raises(TlsError, match="/no/such"):
        await world.server.start_tls("127.0.0.1", 0, "/no/such", "/no/key")


async def test_port_is_refused_when_somebody_has_it(world: World, authority: Authority) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        pair = authority.server
        with pytest.raises(ListenError, match="cannot listen"):
            await world.server.start_tls(
                "127.0.0.1", taken.getsockname()[1], pair.certificate, pair.key
            )


def test_token_file_names_the_line_when_malformed(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text("secret-token,alice,1\nsecret-token-2\n")
    with pytest.raises(TokenFileError, match=r"tokens:2") as caught:
        TokenFile(str(path))
    assert "secret-token-2" not in str(caught.value)
    with pytest.raises(TokenFileError):
        TokenFile(str(tmp_path / "missing"))
