"""What a server's answer of failure means: the `ApiError` of its `Status`. Pure."""

import msgspec

from volagent.client.contract import AlreadyExists, ApiError
from volagent.objects.meta import Document

_DECODER = msgspec.json.Decoder()


def error_from_status(status: Document) -> ApiError:
    """The error that a `Status` of failure means: by its reason, else by its code."""
    reason, code = status.get("reason") or "", status.get("code") or 500
    by_reason: type[ApiError] | None = None
    by_code: type[ApiError] | None = None
    for kind in ApiError.__subclasses__():
        if kind.reason == reason:
            by_reason = kind
        elif kind.code == code and kind is not AlreadyExists:
            by_code = kind
    details = status.get("details") or {}
    error = (by_reason or by_code or ApiError)(
        status.get("message") or f"the server answered {code} {reason}".rstrip(),
        details=details,
        retry_after_s=details.get("retryAfterSeconds"),
    )
    if by_reason is None and by_code is None:
        error.code, error.reason = code, reason or ApiError.reason
    return error


def read_error(code: int, body: bytes) -> ApiError:
    """The error that an answer means, be its body a `Status` or not."""
    try:
        status = _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        status = None
    if not isinstance(status, dict) or status.get("kind") != "Status":
        text = body[:200].decode(errors="replace").strip()
        status = {"code": code, "message": f"the server answered {code}: {text}"}
    return error_from_status(status)
