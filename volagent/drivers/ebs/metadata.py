"""The instance metadata service: who and where this machine is, and its role's credentials.

Version 2 only: a token first, then questions with it. Answers are small; the service is one hop
away, so every question has a short bound. Stateless but for the token's absence: each call asks for
its own, since questions are rare. Never logs an answer: credentials are among them.
"""

import os
from datetime import datetime
from typing import Final

import aiohttp
import msgspec

from volagent.aio.clock import parse_time
from volagent.drivers.ebs.signing import Credentials
from volagent.drivers.errors import Transient

ANSWER_TIMEOUT_S: Final = 5.0
_DEFAULT: Final = "http://169.254.169.254"
_TOKEN_LIFE_S: Final = "60"
_REMEDY: Final = (
    "on an EC2 instance, allow its metadata service; elsewhere, set region, zone and instance_id"
    " under [aws] and give credentials in the environment"
)


class RoleCredentials(msgspec.Struct, frozen=True):
    """Temporary credentials of the instance's role."""

    credentials: Credentials
    expires: datetime

    def __repr__(self) -> str:
        return f"RoleCredentials({self.credentials!r}, {self.expires})"


class _Granted(msgspec.Struct, frozen=True, rename="pascal"):
    access_key_id: str
    secret_access_key: str
    token: str
    expiration: str


class Metadata:
    """Asks the metadata service of this instance."""

    def __init__(self, endpoint: str = "") -> None:
        """Without an endpoint, as the AWS tools: AWS_EC2_METADATA_SERVICE_ENDPOINT, or AWS's."""
        named = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", "")
        self._base = (endpoint or named or _DEFAULT).rstrip("/")
        self._disabled = os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true"

    async def fetch(self, name: str) -> str:
        """One answer, such as `placement/availability-zone`. Raises `Transient`."""
        if self._disabled:
            raise Transient(
                "the instance metadata service is not asked: AWS_EC2_METADATA_DISABLED",
                remedy=_REMEDY,
            )
        timeout = aiohttp.ClientTimeout(total=ANSWER_TIMEOUT_S)
        life = {"X-aws-ec2-metadata-token-ttl-seconds": _TOKEN_LIFE_S}
        try:
            async with aiohttp.ClientSession(timeout=timeout, raise_for_status=True) as session:
                async with session.put(f"{self._base}/latest/api/token", headers=life) as answer:
                    token = await answer.text()
                headers = {"X-aws-ec2-metadata-token": token}
                url = f"{self._base}/latest/meta-data/{name}"
                async with session.get(url, headers=headers) as answer:
                    return (await answer.text()).strip()
        except aiohttp.ClientResponseError as error:
            raise Transient(
                f"the instance metadata service answers {error.status} to {name}", remedy=_REMEDY
            ) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Transient(
                f"the instance metadata service does not answer: {type(error).__name__}",
                remedy=_REMEDY,
            ) from error

    async def fetch_credentials(self) -> RoleCredentials:
        """The credentials of the instance's role. Raises `Transient`."""
        role = (await self.fetch("iam/security-credentials/")).partition("\n")[0]
        answer = await self.fetch(f"iam/security-credentials/{role}")
        try:
            granted = msgspec.json.decode(answer, type=_Granted)
            expires = parse_time(granted.expiration)
        except (msgspec.ValidationError, msgspec.DecodeError, ValueError):
            # Not chained: the text of the error may show a part of the answer.
            raise Transient(
                f"the metadata service has no usable credentials for the role {role}",
                remedy="attach a role to the instance that may use EBS",
            ) from None
        credentials = Credentials(granted.access_key_id, granted.secret_access_key, granted.token)
        return RoleCredentials(credentials, expires)
