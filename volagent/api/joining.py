"""How a machine becomes a node: a short-lived token, then a certificate of the cluster's authority.

A token is Kubernetes' bootstrap token, `<id>.<secret>`, kept in a Secret `bootstrap-token-<id>` of
`kube-system`. It proves nothing but that an administrator let this machine in: its bearer may ask
for one certificate, that of the node it names, unless another machine has that name. Certificates
are renewed by their bearers. Tokens and keys reach no log.
"""

import hashlib
import hmac
import re
import secrets
import ssl
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from volagent.aio.clock import Clock, format_time, parse_time
from volagent.api.auth import User, forbid
from volagent.api.authority import Authority
from volagent.api.node_rights import NODE_GROUP_NAME, NODE_USER_PREFIX, node_of
from volagent.client.contract import (
    NODES,
    SECRETS,
    BadRequest,
    Client,
    Conflict,
    NotFound,
    Selection,
    Unauthorized,
)
from volagent.objects.meta import Document
from volagent.objects.names import check_subdomain
from volagent.observe.logs import get_logger

TOKEN_NAMESPACE: Final = "kube-system"
TOKEN_TYPE: Final = "bootstrap.kubernetes.io/token"
BOOTSTRAP_GROUP: Final = "system:bootstrappers"
DEFAULT_LIFE_S: Final = 3600.0
_TOKEN: Final = re.compile(r"([a-z0-9]{6})\.([a-z0-9]{16})")
_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz0123456789"

_log = get_logger("joining")


@dataclass(frozen=True, slots=True)
class BootstrapTokens:
    """Recognises join tokens."""

    client: Client
    clock: Clock

    async def identify(self, token: str) -> User | None:
        """The token's bearer; None for what is no join token. Raises `Unauthorized`."""
        match = _TOKEN.fullmatch(token)
        if match is None:
            return None
        try:
            found = await self.client.get(SECRETS, f"bootstrap-token-{match[1]}", TOKEN_NAMESPACE)
        except NotFound:
            raise Unauthorized("the join token is not known; make one with `volagent token"
                               " create` on the server") from None  # fmt: skip
        data = {name: b64decode(text) for name, text in (found.get("data") or {}).items()}
        if not hmac.compare_digest(data.get("token-secret", b""), match[2].encode()):
            raise Unauthorized("the join token is not known")
        if _has_expired(data, self.clock):
            raise Unauthorized("the join token has expired; make one with `volagent token create`")
        groups = frozenset({BOOTSTRAP_GROUP, "system:authenticated"})
        return User(f"system:bootstrap:{match[1]}", groups, "join with it")


class Joining:
    """Answers what machines and administrators ask about joining."""

    def __init__(
        self, client: Client, authority: Authority, clock: Clock, address: Callable[[], str]
    ) -> None:
        """`address` is where agents reach this server."""
        self._client = client
        self._authority = authority
        self._clock = clock
        self._address = address

    async def answer(self, user: User, asked: list[str], body: Any) -> Document:
        """`token` makes one, `certificate` signs a request. Raises `ApiError`."""
        if not isinstance(body, dict):
            raise BadRequest("the body is no JSON object")
        match asked:
            case ["v1", "token"]:
                if not user.is_admin:
                    raise forbid(user, "create", "join tokens")
                return await self._make_token(body)
            case ["v1", "certificate"]:
                return await self._certify(user, body)
            case _:
                raise NotFound("the server could not find the requested resource")

    async def _make_token(self, body: Document) -> Document:
        life_s = body.get("lifeSeconds") or DEFAULT_LIFE_S
        if not isinstance(life_s, int | float) or not 0 < life_s <= 30 * 86400:
            raise BadRequest("lifeSeconds: want a number between 0 and 2592000")
        await self._drop_expired()
        id, secret = _draw(6), _draw(16)
        expires = self._clock.wall() + timedelta(seconds=life_s)
        values = {
            "token-id": id, "token-secret": secret, "expiration": format_time(expires),
            "usage-bootstrap-authentication": "true",
        }  # fmt: skip
        await self._client.create(SECRETS, {
            "metadata": {"name": f"bootstrap-token-{id}", "namespace": TOKEN_NAMESPACE},
            "type": TOKEN_TYPE,
            "data": {name: b64encode(text.encode()).decode() for name, text in values.items()},
        }, TOKEN_NAMESPACE)  # fmt: skip
        _log.info("join token made", token_id=id, expires=format_time(expires))
        return {
            "kind": "JoinToken", "token": f"{id}.{secret}", "expires": format_time(expires),
            "caHash": hash_certificate(self._authority.certificate.decode()),
            "server": self._address(),
        }  # fmt: skip

    async def _drop_expired(self) -> None:
        listing = await self._client.list(SECRETS, Selection(namespace=TOKEN_NAMESPACE))
        for each in listing.items:
            data = {name: b64decode(text) for name, text in (each.get("data") or {}).items()}
            if each.get("type") == TOKEN_TYPE and _has_expired(data, self._clock):
                try:
                    await self._client.delete(SECRETS, each["metadata"]["name"], TOKEN_NAMESPACE)
                except NotFound:
                    continue

    async def _certify(self, user: User, body: Document) -> Document:
        node, machine_id = str(body.get("node") or ""), str(body.get("machineID") or "")
        if check_subdomain(node):
            raise BadRequest(f"node: {node!r} is no lower-case DNS name")
        if node_of(user) != node and not user.is_admin:
            if BOOTSTRAP_GROUP not in user.groups:
                raise forbid(user, "create", f"a certificate of node {node}")
            await self._refuse_double(node, machine_id)
        try:
            certificate = self._authority.certify(
                str(body.get("request") or ""), f"{NODE_USER_PREFIX}{node}", (NODE_GROUP_NAME,)
            )
        except ValueError as error:
            raise BadRequest(f"request: {error}") from error
        _log.info("node certified", node=node, by=user.name)
        return {
            "kind": "NodeCertificate", "node": node, "certificate": certificate,
            "ca": self._authority.certificate.decode(),
        }  # fmt: skip

    async def _refuse_double(self, node: str, machine_id: str) -> None:
        """Two machines of one name would each take the other's volumes for their own."""
        try:
            found = await self._client.get(NODES, node)
        except NotFound:
            return
        known = ((found.get("status") or {}).get("nodeInfo") or {}).get("machineID", "")
        if known != machine_id:
            raise Conflict(
                f"a node {node} has joined from another machine (machine id {known or 'unknown'});"
                f" choose another --node-name, or, if this machine replaces it for good,"
                f" `volagent delete node/{node}` first"
            )


def hash_certificate(pem: str) -> str:
    """`sha256:<hex>` of a certificate, by which a joining machine knows its cluster."""
    return "sha256:" + hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()


def _has_expired(data: dict[str, bytes], clock: Clock) -> bool:
    try:
        return parse_time(data.get("expiration", b"").decode()) <= clock.wall()
    except ValueError:
        return True


def _draw(count: int) -> str:
    return "".join(secrets.choice(_LETTERS) for _ in range(count))
