"""Where the access key comes from, in the order of the AWS tools.

The environment; the shared credentials file (its `default` profile, or `AWS_PROFILE`); the role of
the instance, from the metadata service, renewed before it expires. Secrets reach no log.
"""

import configparser
import os
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import aiohttp
import msgspec

from volagent.aio.clock import Clock, parse_time
from volagent.drivers.ebs.signature import Keys
from volagent.drivers.errors import Transient

METADATA: Final = "http://169.254.169.254"
_TIMEOUT: Final = aiohttp.ClientTimeout(total=5.0)
_EARLY: Final = timedelta(minutes=5)
_HINT: Final = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for the daemon, write"
    " /root/.aws/credentials, or give the instance a role"
)


class _Role(msgspec.Struct, rename="pascal"):
    access_key_id: str
    secret_access_key: str
    token: str
    expiration: str


@dataclass(slots=True)
class Credentials:
    """Finds the key, and keeps one that expires until then."""

    clock: Clock
    metadata: str = METADATA
    _kept: tuple[Keys, datetime] | None = field(default=None, repr=False)

    async def fetch(self) -> Keys:
        """The key to sign with now. Raises `Transient` when there is none."""
        found = _from_environment() or _from_file()
        if found is not None:
            return found
        if self._kept is not None and self._kept[1] - self.clock.wall() > _EARLY:
            return self._kept[0]
        role = await self._fetch_role()
        keys = Keys(role.access_key_id, role.secret_access_key, role.token)
        self._kept = (keys, parse_time(role.expiration))
        return keys

    async def ask_metadata(self, path: str) -> str:
        """One answer of the instance's metadata service (IMDSv2). Raises `Transient`."""
        try:
            async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
                life = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
                async with session.put(f"{self.metadata}/latest/api/token", headers=life) as answer:
                    answer.raise_for_status()
                    token = {"X-aws-ec2-metadata-token": await answer.text()}
                url = f"{self.metadata}/latest/{path}"
                async with session.get(url, headers=token) as answer:
                    answer.raise_for_status()
                    return await answer.text()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Transient(
                f"no answer of the instance's metadata service for {path}: {error}", remedy=_HINT
            ) from error

    async def _fetch_role(self) -> _Role:
        where = "meta-data/iam/security-credentials/"
        name = (await self.ask_metadata(where)).split()
        if not name:
            raise Transient("there is no access key for AWS", remedy=_HINT)
        try:
            return msgspec.json.decode(await self.ask_metadata(where + name[0]), type=_Role)
        except msgspec.MsgspecError as error:
            raise Transient(f"the instance's role is not understood: {error}", remedy=_HINT) from (
                error
            )


def _from_environment() -> Keys | None:
    id, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
    return Keys(id, secret, os.environ.get("AWS_SESSION_TOKEN", "")) if id and secret else None


def _from_file() -> Keys | None:
    path = os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or Path.home() / ".aws/credentials"
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(path)
    except (OSError, configparser.Error):
        return None
    profile = os.environ.get("AWS_PROFILE", "default")
    if not parser.has_section(profile):
        return None
    section = parser[profile]
    id, secret = section.get("aws_access_key_id"), section.get("aws_secret_access_key")
    return Keys(id, secret, section.get("aws_session_token", "")) if id and secret else None
