"""`volagent init`, `token`, `join`: from a machine with a server to machines that are its nodes."""

import hashlib
import hmac
import http.client
import os
import socket
import ssl
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import click

from volagent.cli.connection import ANSWER_TIMEOUT_S, Api, Target
from volagent.cli.errors import CommandError, Refused, Unreachable, UsageError
from volagent.cli.options import talks_to_daemon
from volagent.cli.output import print_document, print_line
from volagent.client.credentials import Credentials, make_request

PATH = "/apis/node.volagent.dev/v1"
STATE_DIR = "/var/lib/volagent"


@click.command()
@click.option("--state-dir", metavar="DIR", default=STATE_DIR, show_default=True)
@click.option(
    "--address", "addresses", multiple=True, metavar="NAME|IP",
    help="Under which agents reach this server; repeatable  [its host name]",
)  # fmt: skip
def init(state_dir: str, addresses: tuple[str, ...]) -> None:
    """Make the certificate authority of a new cluster, and this server's certificate.

    Idempotent. `volagent server` would make them as well; this shows where they are, and lets you
    name addresses that --listen does not.
    """
    from volagent.aio.clock import SystemClock
    from volagent.api.authority import Authority
    from volagent.api.joining import hash_certificate
    from volagent.api.tls import TlsError

    try:
        authority = Authority(Path(os.path.abspath(state_dir)) / "pki", SystemClock())
        certificate, _ = authority.ensure_server(addresses)
    except TlsError as error:
        raise CommandError(str(error), hint="run as root") from error
    print_line(f"authority:    {authority.path}")
    print_line(f"certificate:  {certificate}")
    print_line(f"its hash:     {hash_certificate(authority.certificate.decode())}")
    print_line("")
    print_line("next, here:   volagent server --listen https://ADDRESS:6443, then `volagent token"
               " create`")  # fmt: skip


@click.group()
def token() -> None:
    """Let machines join."""


@token.command("create")
@click.option("--ttl", "life_s", type=float, default=3600.0, show_default=True, metavar="SECONDS")
@click.option("--address", metavar="URL", help="How the machines reach the server  [the listener]")
@click.option("-o", "--output", "form", type=click.Choice(["json", "yaml"]), help="How to print")
@talks_to_daemon
def create_token(api: Api, life_s: float, address: str | None, form: str | None) -> None:
    """Make a join token, and print the command to run on the machine that is to join.

    Who has it can join as a new node until it expires: treat it as a password.
    """
    try:
        answer = api.request("POST", f"{PATH}/token", body={"lifeSeconds": life_s})
    except Refused as refusal:
        raise refusal.during("make a join token") from refusal
    if form:
        print_document(answer, form)
        return
    reached = address or answer["server"]
    print_line(f"volagent join --server {reached} --token {answer['token']}"
               f" --ca-hash {answer['caHash']}")  # fmt: skip


@click.command()
@click.option("--server", "servers", multiple=True, required=True, metavar="https://ADDRESS:PORT",
              help="A server of the cluster; repeatable")  # fmt: skip
@click.option("--token", metavar="TOKEN", help="Of `volagent token create`  [$VOLAGENT_TOKEN]",
              envvar="VOLAGENT_TOKEN", required=True)  # fmt: skip
@click.option("--ca-hash", required=True, metavar="sha256:HEX",
              help="By which the cluster is recognised")  # fmt: skip
@click.option("--node-name", metavar="NAME", help="This machine's Node  [the host name]")
@click.option("--state-dir", metavar="DIR", default=STATE_DIR, show_default=True)
def join(
    servers: tuple[str, ...], token: str, ca_hash: str, node_name: str | None, state_dir: str
) -> None:
    """Make this machine a node of a cluster; start it with `volagent agent` then."""
    node = (node_name or socket.gethostname()).lower()
    ca = _fetch_authority(servers[0], ca_hash)
    request = make_request(node)
    with tempfile.NamedTemporaryFile("w", suffix=".crt") as file:
        file.write(ca)
        file.flush()
        api = Api(Target(server=servers[0], ca_file=file.name, token=token))
        try:
            answer = api.request(
                "POST", f"{PATH}/certificate",
                body={"node": node, "request": request.request, "machineID": _read_machine_id()},
            )  # fmt: skip
        except Refused as refusal:
            told = refusal.during(f"join as {node}")
            hint = "" if refusal.code == 409 else "make another token: `volagent token create`"
            raise CommandError(told.message, hint=hint) from refusal
    credentials = Credentials(os.path.abspath(state_dir))
    try:
        credentials.keep_servers(servers)
        credentials.keep(request, answer["certificate"], ca)
    except OSError as error:
        raise CommandError(f"{error.filename}: {error.strerror}", hint="run as root") from error
    print_line(f"joined as node {node}; next: volagent agent (systemctl enable --now"
               " volagent-agent)")  # fmt: skip


def _fetch_authority(server: str, wanted_hash: str) -> str:
    """The cluster's certificate, known by its hash. Raises `CommandError`, `UsageError`."""
    parts = urlsplit(server)
    if parts.scheme != "https" or not parts.hostname:
        raise UsageError(f"--server {server}: want https://ADDRESS:PORT")
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # what it answers is checked by its hash, below
    connection = http.client.HTTPSConnection(
        parts.hostname, parts.port or 443, context=context, timeout=ANSWER_TIMEOUT_S
    )
    try:
        connection.request("GET", "/cacert")
        response = connection.getresponse()
        text = response.read(65536).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(f"cannot reach {server}: {error}") from error
    finally:
        connection.close()
    try:
        found = "sha256:" + hashlib.sha256(ssl.PEM_cert_to_DER_cert(text.strip())).hexdigest()
    except ValueError as error:
        raise CommandError(
            f"{server} shows no authority (status {response.status})",
            hint="is it a volagent server with a certificate of its own?",
        ) from error
    if not hmac.compare_digest(found, wanted_hash):
        raise CommandError(
            f"{server} belongs to another cluster: its authority is {found}",
            hint="compare with what `volagent token create` printed; somebody may be in between",
        )
    return text


def _read_machine_id() -> str:
    try:
        return Path("/etc/machine-id").read_text().strip()
    except OSError:
        return ""
