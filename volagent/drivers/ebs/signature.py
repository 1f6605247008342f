"""AWS Signature Version 4 for requests with a form as their body. Pure.

Source: "Signature Version 4 signing process", AWS General Reference.
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

_ALGORITHM: Final = "AWS4-HMAC-SHA256"


@dataclass(frozen=True, slots=True)
class Keys:
    """An access key; no `repr` shows the secret."""

    id: str
    secret: str
    session_token: str = ""

    def __repr__(self) -> str:
        return f"Keys({self.id})"


@dataclass(frozen=True, slots=True)
class Scope:
    """What a signature is good for."""

    region: str
    service: str


def sign(
    keys: Keys, scope: Scope, now: datetime, *, host: str, path: str, headers: Mapping[str, str],
    body: bytes,
) -> dict[str, str]:  # fmt: skip
    """The headers of a signed POST: those given, the date, the host and `Authorization`.

    `now` is in UTC; `path` is encoded already.
    """
    stamp = now.strftime("%Y%m%dT%H%M%SZ")
    signed = {name.lower(): value.strip() for name, value in headers.items()}
    signed |= {"host": host, "x-amz-date": stamp}
    if keys.session_token:
        signed["x-amz-security-token"] = keys.session_token
    names = ";".join(sorted(signed))
    lines = [f"{name}:{signed[name]}\n" for name in sorted(signed)]
    request = "\n".join(["POST", path, "", "".join(lines), names, _hash(body)])
    day = stamp[:8]
    credential = f"{day}/{scope.region}/{scope.service}/aws4_request"
    text = "\n".join([_ALGORITHM, stamp, credential, _hash(request.encode())])
    key = b"AWS4" + keys.secret.encode()
    for part in (day, scope.region, scope.service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    authorization = (
        f"{_ALGORITHM} Credential={keys.id}/{credential}, SignedHeaders={names},"
        f" Signature={signature}"
    )
    return {**signed, "authorization": authorization}


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
