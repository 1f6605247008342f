"""Who calls, and what they may do.

On the unix socket the kernel tells who it is (`peer.py`); over TCP it is a bearer token or a client
certificate, always inside TLS. Members of `system:masters` may do everything; everybody else who is
known may do what roles allow (`rbac.py`). Tokens are kept as digests and have no `repr`.
"""

import csv
import hashlib
from dataclasses import dataclass
from typing import Protocol

from volagent.api.tokens import TokenIssuer, authenticate
from volagent.client.contract import Client, Forbidden

ADMIN_GROUP = "system:masters"


@dataclass(frozen=True, slots=True)
class User:
    """A caller. `hint` says how they would get the access they lack."""

    name: str
    groups: frozenset[str] = frozenset()
    hint: str = ""

    @property
    def is_admin(self) -> bool:
        """Whether they may do everything."""
        return ADMIN_GROUP in self.groups


class TokenAuthenticator(Protocol):
    """Recognises bearer tokens."""

    async def identify(self, token: str) -> User | None:
        """The token's owner; None when it is not of this kind.

        Raises `Unauthorized` when it is, but no longer good.
        """


class TokenFileError(Exception):
    """The token file cannot be used."""


class TokenFile:
    """`token,user,uid,"group1,group2"` per line, as kube-apiserver's --token-auth-file.

    Raises `TokenFileError`, naming the line, never the token.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._users = _read_users(path)

    def reload(self) -> None:
        """Read the file again; a file that cannot be used changes nothing. Raises as above."""
        self._users = _read_users(self._path)

    async def identify(self, token: str) -> User | None:
        """The token's user."""
        return self._users.get(_digest(token))


@dataclass(frozen=True, slots=True)
class ServiceAccountTokens:
    """Tokens that this server issued to pods; good while account and pod are there."""

    client: Client
    issuer: TokenIssuer

    async def identify(self, token: str) -> User | None:
        """The service account. Raises `Unauthorized`."""
        claims = await authenticate(self.client, self.issuer, token)
        namespace = claims.sub.split(":")[2]
        groups = {
            "system:authenticated", "system:serviceaccounts",
            f"system:serviceaccounts:{namespace}",
        }  # fmt: skip
        return User(claims.sub, frozenset(groups))


def forbid(user: User, verb: str, what: str) -> Forbidden:
    """The refusal, in Kubernetes' words, with the way to get access."""
    hint = f": {user.hint}" if user.hint else ""
    return Forbidden(f'forbidden: User "{user.name}" cannot {verb} {what}{hint}')


def _read_users(path: str) -> dict[bytes, User]:
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = [*csv.reader(file)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TokenFileError(f"{path}: {error}") from error
    users: dict[bytes, User] = {}
    for number, row in enumerate(rows, start=1):
        if not row or row[0].startswith("#"):
            continue
        fields = [field.strip() for field in row]
        if len(fields) < 3 or not fields[0] or not fields[1]:
            raise TokenFileError(f'{path}:{number}: want token,user,uid[,"group1,group2"]')
        groups = (
            frozenset(g.strip() for g in fields[3].split(",") if g.strip())
            if fields[3:]
            else frozenset()
        )
        users[_digest(fields[0])] = User(
            fields[1],
            groups | {"system:authenticated"},
            f"bind a role to it, or add the group {ADMIN_GROUP} to its line in {path}",
        )
    return users


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
