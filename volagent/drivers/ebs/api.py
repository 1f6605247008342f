"""The EC2 query API over aiohttp: one call, signed, its answer as plain values, its errors sorted.

A session for each call: they are rare and last far longer than a handshake, and nothing has to be
closed with the daemon. Nothing is retried here: whoever asks is asked again. No answer is logged.

Errors are sorted by who must act next. A refusal of what was asked is `Rejected`; missing rights
and quotas, and an API that is busy, are `Transient` (the same call can succeed when somebody else
has acted); an answer that never came, or that tells of a fault over there, is `Uncertain`.
"""

import contextlib
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote_plus, urlsplit

import aiohttp

from volagent.drivers.ebs.cloud import Cloud
from volagent.drivers.ebs.signing import Request, sign
from volagent.drivers.errors import DriverError, Rejected, Transient, Uncertain
from volagent.drivers.provisioning.contract import OutOfSpace

VERSION: Final = "2016-11-15"
ANSWER_TIMEOUT_S: Final = 30.0
CONNECT_TIMEOUT_S: Final = 10.0
_CONTENT_TYPE: Final = "application/x-www-form-urlencoded; charset=utf-8"
_RIGHTS: Final = frozenset({
    "AuthFailure", "UnauthorizedOperation", "OptInRequired", "InvalidClientTokenId",
    "SignatureDoesNotMatch", "RequestExpired", "ExpiredToken", "PendingVerification", "Blocked",
    "MissingAuthenticationToken", "AccessDenied", "AccessDeniedException",
})  # fmt: skip
_FULL: Final = frozenset({
    "VolumeLimitExceeded", "InsufficientVolumeCapacity", "MaxIOPSLimitExceeded",
    "AttachmentLimitExceeded",
})  # fmt: skip
_BUSY: Final = frozenset({
    "RequestLimitExceeded", "Throttling", "ThrottlingException", "RequestThrottled",
    "VolumeInUse", "IncorrectState", "IncorrectModificationState", "IncorrectInstanceState",
    "VolumeModificationRateExceeded", "ConcurrentTagAccess",
})  # fmt: skip
GONE: Final = frozenset({"InvalidVolume.NotFound"})

Value = str | int | bool | Sequence["Value"] | Mapping[str, "Value"]
Json = dict[str, Any]


class Ec2Error(Exception):
    """The API refused a call, or failed at it."""

    def __init__(self, action: str, code: str, message: str, status: int) -> None:
        super().__init__(f"{action}: {message} ({code})")
        self.action = action
        self.code = code
        self.message = message
        self.status = status


def explain(error: Ec2Error) -> DriverError:
    """What a refusal means for the volume."""
    text = str(error)
    if error.code in _RIGHTS:
        return Transient(
            text, remedy=f"see that the credentials are valid and may ec2:{error.action}"
        )
    if error.code in _FULL:
        return OutOfSpace(text, remedy="delete what is not needed, or have the quota raised")
    if error.code in _BUSY:
        return Transient(text)
    if error.status >= 500:
        return Uncertain(text, remedy="the API has trouble; it is asked again")
    return Rejected(text)


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """What is refused inside is raised as the `DriverError` that it means."""
    try:
        yield
    except Ec2Error as error:
        raise explain(error) from error


class Ec2:
    """Asks the EC2 API."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud

    async def call(self, action: str, **parameters: Value) -> Json:
        """One call. Raises `Ec2Error`, `Transient`, `Uncertain`."""
        given = flatten({"Action": action, "Version": VERSION, **parameters})
        body = "&".join(f"{quote_plus(k)}={quote_plus(v)}" for k, v in given).encode()
        endpoint = await self.cloud.fetch_endpoint()
        headers = {"Host": urlsplit(endpoint).netloc, "Content-Type": _CONTENT_TYPE}
        credentials = await self.cloud.fetch_credentials()
        headers |= sign(
            Request(method="POST", headers=headers, body=body), credentials,
            region=await self.cloud.fetch_region(), service="ec2",
            moment=self.cloud.clock.wall(),
        )  # fmt: skip
        status, text = await self._post(action, endpoint, headers, body)
        answer = _parse(text)
        if status == 200 and answer is not None:
            return answer
        error = _read_error(action, status, answer)
        if error.code in _RIGHTS:
            self.cloud.forget_credentials()
        raise error

    async def _post(
        self, action: str, endpoint: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, bytes]:
        timeout = aiohttp.ClientTimeout(total=ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.post(
                    f"{endpoint}/", data=body, headers=headers, allow_redirects=False
                ) as answer,
            ):
                return answer.status, await answer.read()
        except aiohttp.ClientConnectorError as error:
            raise Transient(
                f"{action}: {endpoint} cannot be reached: {error.os_error}",
                remedy="see the network, and endpoint and region under [aws]",
            ) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Uncertain(
                f"{action}: no answer from {endpoint}: {type(error).__name__}",
                remedy="see why the API does not answer; it is asked again",
            ) from error


def flatten(value: Value, prefix: str = "") -> list[tuple[str, str]]:
    """Nested parameters as the query API has them: lists count from 1, `Filter.1.Value.2`."""
    match value:
        case bool():
            return [(prefix, "true" if value else "false")]
        case str() | int():
            return [(prefix, str(value))]
        case Mapping():
            pairs = list(value.items())
        case _:
            pairs = [(str(number), each) for number, each in enumerate(value, start=1)]
    found: list[tuple[str, str]] = []
    for name, each in pairs:
        found += flatten(each, f"{prefix}.{name}" if prefix else name)
    return found


def _parse(text: bytes) -> Json | None:
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError:
        return None
    value = _value(root)
    return value if isinstance(value, dict) else {}


def _value(element: ElementTree.Element) -> Any:
    children = list(element)
    if not children:
        return (element.text or "").strip()
    names = [child.tag.rpartition("}")[2] for child in children]
    if all(name == "item" for name in names):
        return [_value(child) for child in children]
    return {name: _value(child) for name, child in zip(names, children, strict=True)}


def _read_error(action: str, status: int, answer: Json | None) -> Ec2Error:
    errors = (answer or {}).get("Errors")
    detail = errors.get("Error") if isinstance(errors, dict) else (answer or {}).get("Error")
    if not isinstance(detail, dict):
        return Ec2Error(action, f"HTTP {status}", "no answer of the EC2 API", max(status, 500))
    # What follows is for sts:DecodeAuthorizationMessage, and thousands of characters long.
    message = str(detail.get("Message", "refused")).partition(" Encoded authorization failure")[0]
    return Ec2Error(action, str(detail.get("Code", status)), message, status)
