"""Who asks, of which endpoint, and where this machine is: settings, environment, metadata.

What the settings leave open is found as the AWS tools find it: credentials in the environment, then
in the shared credentials file, then those of the instance's role; the region in the environment.
Found once and kept, but for credentials that expire: those are renewed before they do, and files
and environment are read each time, so that new ones need no restart.
"""

import asyncio
import configparser
import os
from datetime import timedelta
from typing import Final

import msgspec

from volagent.aio.clock import Clock
from volagent.drivers.ebs.metadata import Metadata, RoleCredentials
from volagent.drivers.ebs.names import Place
from volagent.drivers.ebs.signing import Credentials
from volagent.drivers.errors import Transient

RENEW_BEFORE: Final = timedelta(minutes=5)
BY_ID: Final = "/dev/disk/by-id"


class EbsConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator says; "" is found."""

    cluster: str
    """What volumes are tagged with as their KubernetesCluster: whose they are."""
    region: str = ""
    endpoint: str = ""
    instance_id: str = ""
    zone: str = ""
    device_links: str = BY_ID
    """Where udev puts a link per volume id."""


class Cloud:
    """Answers who and where we are; asks at most once."""

    def __init__(self, config: EbsConfig, clock: Clock, metadata: Metadata | None = None) -> None:
        self.config = config
        self.clock = clock
        self._metadata = metadata or Metadata()
        self._role: RoleCredentials | None = None
        self._place: Place | None = None
        self._region = config.region
        self._lock = asyncio.Lock()

    async def fetch_place(self) -> Place:
        """This instance and its zone. Raises `Transient`."""
        async with self._lock:
            if self._place is None:
                instance = self.config.instance_id or await self._metadata.fetch("instance-id")
                zone = self.config.zone or await self._metadata.fetch("placement/availability-zone")
                self._place = Place(instance, zone)
            return self._place

    async def fetch_zone(self) -> str:
        """This machine's zone, also where it is no instance. Raises `Transient`."""
        return self.config.zone or (await self.fetch_place()).zone

    async def fetch_region(self) -> str:
        """The region whose API is asked. Raises `Transient`."""
        environment = os.environ
        if not self._region:
            self._region = (
                environment.get("AWS_REGION")
                or environment.get("AWS_DEFAULT_REGION")
                or await self._metadata.fetch("placement/region")
            )
        return self._region

    async def fetch_endpoint(self) -> str:
        """The API's address, without a final slash. Raises `Transient`."""
        if self.config.endpoint:
            return self.config.endpoint.rstrip("/")
        region = await self.fetch_region()
        suffix = ".cn" if region.startswith("cn-") else ""
        return f"https://ec2.{region}.amazonaws.com{suffix}"

    async def fetch_credentials(self) -> Credentials:
        """Who asks. Raises `Transient` when nobody is found."""
        found = _read_environment() or _read_shared_file()
        if found is not None:
            return found
        async with self._lock:
            if self._role is None or self._role.expires - RENEW_BEFORE <= self.clock.wall():
                self._role = await self._metadata.fetch_credentials()
            return self._role.credentials

    def forget_credentials(self) -> None:
        """They were refused: the next call looks for new ones."""
        self._role = None


def _read_environment() -> Credentials | None:
    environment = os.environ
    access_key = environment.get("AWS_ACCESS_KEY_ID")
    secret_key = environment.get("AWS_SECRET_ACCESS_KEY")
    if not access_key or not secret_key:
        return None
    return Credentials(access_key, secret_key, environment.get("AWS_SESSION_TOKEN", ""))


def _read_shared_file() -> Credentials | None:
    named = os.environ.get("AWS_SHARED_CREDENTIALS_FILE")
    path = named or os.path.expanduser("~/.aws/credentials")
    profile = os.environ.get("AWS_PROFILE", "default")
    parser = configparser.RawConfigParser()
    try:
        with open(path, encoding="utf-8") as file:
            parser.read_file(file)
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, configparser.Error):
        # Not chained: the text of the error may show a line of the file.
        raise Transient(
            f"the AWS credentials in {path} cannot be read", remedy="correct the file"
        ) from None
    if not parser.has_section(profile):
        return None
    section = parser[profile]
    access_key, secret_key = section.get("aws_access_key_id"), section.get("aws_secret_access_key")
    if not access_key or not secret_key:
        return None
    return Credentials(access_key, secret_key, section.get("aws_session_token", ""))
