"""Service account tokens: JWTs signed with a key that never leaves the state directory.

HS256 by the standard library; the claims are those of Kubernetes' bound tokens. A token is good as
long as its time, its service account and the pod it is bound to (by uid) last: `authenticate` asks
for all three. Nothing here logs a token or the key.
"""

import hmac
import os
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path

import msgspec

from volagent.aio.clock import Clock, format_time
from volagent.api.identity import make_uid
from volagent.client.contract import (
    PODS,
    SERVICE_ACCOUNTS,
    BadRequest,
    Client,
    Conflict,
    Invalid,
    NotFound,
    Unauthorized,
)
from volagent.objects.meta import Document, View

ISSUER = "https://kubernetes.default.svc.cluster.local"
KEY_FILE_NAME = "token.key"
KEY_BYTES = 32
DEFAULT_LIFE_S = 3600
MIN_LIFE_S = 600
MAX_LIFE_S = 2**32
TOKEN_LIMIT_CHARS = 8192

_HEADER = b'{"alg":"HS256","typ":"JWT"}'


class TokenKeyError(Exception):
    """The key file cannot be used."""


class Bound(msgspec.Struct, frozen=True):
    """The name and uid of an object that a token is bound to."""

    name: str
    uid: str


class Binding(msgspec.Struct, frozen=True, omit_defaults=True):
    """The `kubernetes.io` claim."""

    namespace: str
    serviceaccount: Bound
    pod: Bound | None = None


class Claims(msgspec.Struct, frozen=True, kw_only=True):
    """What a token says. Times are seconds since the epoch."""

    aud: list[str]
    exp: int
    iat: int
    iss: str
    jti: str
    binding: Binding = msgspec.field(name="kubernetes.io")
    nbf: int
    sub: str


class _BoundReference(View, frozen=True):
    kind: str = ""
    name: str = ""
    uid: str = ""


class _RequestSpec(View, frozen=True):
    audiences: list[str] | None = None
    expiration_seconds: int | None = None
    bound_object_ref: _BoundReference | None = None


class _Request(View, frozen=True):
    spec: _RequestSpec = _RequestSpec()


@dataclass(frozen=True, slots=True, repr=False)
class TokenIssuer:
    """Signs and checks tokens with one key."""

    key: bytes
    clock: Clock

    def issue(
        self, binding: Binding, audiences: Sequence[str], life_s: int
    ) -> tuple[str, datetime]:
        """A token and the moment it expires."""
        now = self.clock.wall().replace(microsecond=0)
        issued = int(now.timestamp())
        claims = Claims(
            aud=list(audiences) or [ISSUER],
            exp=issued + life_s,
            iat=issued,
            iss=ISSUER,
            jti=make_uid(),
            binding=binding,
            nbf=issued,
            sub=f"system:serviceaccount:{binding.namespace}:{binding.serviceaccount.name}",
        )
        signed = _armour(_HEADER) + b"." + _armour(msgspec.json.encode(claims))
        token = signed + b"." + _armour(self._sign(signed))
        return token.decode(), now + timedelta(seconds=life_s)

    def verify(self, token: str, audience: str = ISSUER) -> Claims:
        """The claims of a token of ours that is valid now. Raises `Unauthorized`."""
        try:
            signed, _, signature = token.encode("ascii").rpartition(b".")
            header, _, payload = signed.partition(b".")
        except UnicodeEncodeError as error:
            raise Unauthorized("invalid bearer token") from error
        # The header is compared whole: a token does not choose how it is checked.
        genuine = hmac.compare_digest(signature, _armour(self._sign(signed)))
        if len(token) > TOKEN_LIMIT_CHARS or header != _armour(_HEADER) or not genuine:
            raise Unauthorized("invalid bearer token")
        claims = msgspec.json.decode(_disarm(payload), type=Claims)
        now_s = self.clock.wall().timestamp()
        if not claims.nbf <= now_s < claims.exp:
            raise Unauthorized("the bearer token has expired")
        if audience not in claims.aud:
            raise Unauthorized("the bearer token is meant for another audience")
        return claims

    def _sign(self, signed: bytes) -> bytes:
        return hmac.digest(self.key, signed, sha256)


async def fulfil_request(
    client: Client, issuer: TokenIssuer, service_account: str, namespace: str, request: Document
) -> Document:
    """A `TokenRequest` with `status.token` and its expiry filled in.

    Raises `NotFound`, `Invalid`, `BadRequest`, and `Conflict` when the pod is another one by now.
    """
    try:
        spec = msgspec.convert(request, _Request).spec
    except msgspec.ValidationError as error:
        raise BadRequest(f"TokenRequest cannot be read: {error}") from error
    life_s = DEFAULT_LIFE_S if spec.expiration_seconds is None else spec.expiration_seconds
    if life_s < MIN_LIFE_S:
        raise _bad_life(life_s, "may not specify a duration less than 10 minutes")
    if life_s > MAX_LIFE_S:
        raise _bad_life(life_s, "may not specify a duration larger than 2^32 seconds")
    account = await client.get(SERVICE_ACCOUNTS, service_account, namespace)
    pod: Bound | None = None
    if spec.bound_object_ref is not None:
        pod = await _bind(client, spec.bound_object_ref, service_account, namespace)
    binding = Binding(namespace, Bound(service_account, account["metadata"]["uid"]), pod)
    audiences = spec.audiences or [ISSUER]
    token, expires = issuer.issue(binding, audiences, life_s)
    return {
        **request,
        "kind": "TokenRequest",
        "apiVersion": "authentication.k8s.io/v1",
        "spec": {**request.get("spec", {}), "audiences": audiences, "expirationSeconds": life_s},
        "status": {"token": token, "expirationTimestamp": format_time(expires)},
    }


async def authenticate(client: Client, issuer: TokenIssuer, token: str) -> Claims:
    """The claims of a token whose account and pod are still there. Raises `Unauthorized`."""
    claims = issuer.verify(token)
    binding = claims.binding
    bound = [(SERVICE_ACCOUNTS, binding.serviceaccount)]
    if binding.pod is not None:
        bound.append((PODS, binding.pod))
    for resource, wanted in bound:
        try:
            found = await client.get(resource, wanted.name, binding.namespace)
        except NotFound as error:
            raise Unauthorized(
                f"the bearer token's {resource.kind} {wanted.name} is gone"
            ) from error
        if found["metadata"]["uid"] != wanted.uid:
            raise Unauthorized(f"the bearer token's {resource.kind} {wanted.name} was replaced")
    return claims


def load_key(directory: Path) -> bytes:
    """The key in a state directory, made when absent (mode 0600, durable).

    Raises `TokenKeyError`, `OSError`.
    """
    path = directory / KEY_FILE_NAME
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        return _make_key(path)
    if len(key) != KEY_BYTES:
        raise TokenKeyError(
            f"{path} has {len(key)} bytes instead of {KEY_BYTES}: remove it to have a new key made "
            "(tokens given out so far end with it)"
        )
    return key


def _make_key(path: Path) -> bytes:
    key = os.urandom(KEY_BYTES)
    aside = path.with_suffix(".new")
    aside.unlink(missing_ok=True)
    fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, key)
        os.fsync(fd)
    finally:
        os.close(fd)
    aside.rename(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return key


async def _bind(
    client: Client, reference: _BoundReference, service_account: str, namespace: str
) -> Bound:
    if reference.kind != "Pod":
        raise BadRequest(f'cannot bind token to object of type "{reference.kind}"')
    pod = await client.get(PODS, reference.name, namespace)
    uid: str = pod["metadata"]["uid"]
    if reference.uid and reference.uid != uid:
        raise Conflict(
            f"the UID in the bound object reference ({reference.uid}) does not match the UID in "
            "record. The object might have been deleted and then recreated"
        )
    runs_as = (pod.get("spec") or {}).get("serviceAccountName") or "default"
    if runs_as != service_account:
        raise BadRequest(
            f'cannot bind token for serviceaccount "{service_account}" to pod running with '
            "different serviceaccount name."
        )
    return Bound(reference.name, uid)


def _bad_life(life_s: int, why: str) -> Invalid:
    message = f"Invalid value: {life_s}: {why}"
    field = "spec.expirationSeconds"
    return Invalid(
        f'TokenRequest.authentication.k8s.io "" is invalid: {field}: {message}',
        details={"causes": [{"reason": "FieldValueInvalid", "message": message, "field": field}]},
    )


def _armour(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")


def _disarm(text: bytes) -> bytes:
    return urlsafe_b64decode(text + b"=" * (-len(text) % 4))
