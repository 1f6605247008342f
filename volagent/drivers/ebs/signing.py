"""Signature Version 4, by which AWS knows who asks. Pure.

Our own, because botocore pins a python-dateutil that the `kubernetes` package does not take.
Checked against the vectors that AWS published (`tests/unit/drivers/ebs/test_signing.py`).
Source: AWS General Reference, "Create a signed AWS API request".
"""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final
from urllib.parse import quote

import msgspec

ALGORITHM: Final = "AWS4-HMAC-SHA256"
_UNRESERVED: Final = "-_.~"


class Credentials(msgspec.Struct, frozen=True):
    """Who asks. The secret never shows in a `repr`."""

    access_key: str
    secret_key: str
    token: str = ""
    """Of temporary credentials."""

    def __repr__(self) -> str:
        return f"Credentials({self.access_key})"


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What is signed. Header names in any case; `host` must be among them."""

    method: str
    path: str = "/"
    query: Sequence[tuple[str, str]] = ()
    headers: Mapping[str, str]
    body: bytes = b""


def sign(
    request: Request, credentials: Credentials, *, region: str, service: str, moment: datetime
) -> dict[str, str]:
    """The headers to be added: the date, the token if there is one, the authorization.

    `moment` is UTC.
    """
    stamp = moment.strftime("%Y%m%dT%H%M%SZ")
    added = {"X-Amz-Date": stamp}
    if credentials.token:
        added["X-Amz-Security-Token"] = credentials.token
    headers = {
        name.lower(): " ".join(value.split())
        for name, value in {**request.headers, **added}.items()
    }
    signed = ";".join(sorted(headers))
    scope = f"{stamp[:8]}/{region}/{service}/aws4_request"
    digest = hashlib.sha256(_canonical(request, headers, signed).encode()).hexdigest()
    text = f"{ALGORITHM}\n{stamp}\n{scope}\n{digest}"
    key = f"AWS4{credentials.secret_key}".encode()
    for part in (*scope.split("/"), text):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    added["Authorization"] = (
        f"{ALGORITHM} Credential={credentials.access_key}/{scope}, SignedHeaders={signed},"
        f" Signature={key.hex()}"
    )
    return added


def _canonical(request: Request, headers: Mapping[str, str], signed: str) -> str:
    query = "&".join(
        sorted(
            f"{quote(name, safe=_UNRESERVED)}={quote(value, safe=_UNRESERVED)}"
            for name, value in request.query
        )
    )
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    path = quote(request.path, safe=f"/{_UNRESERVED}")
    digest = hashlib.sha256(request.body).hexdigest()
    return f"{request.method}\n{path}\n{query}\n{lines}\n{signed}\n{digest}"
