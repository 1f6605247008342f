"""Answers: JSON, `Status` errors, texts."""

from typing import Any

import msgspec
from aiohttp import web

from volagent.client.contract import ApiError

JSON = "application/json"
_ENCODER = msgspec.json.Encoder()


def encode_json(value: Any) -> bytes:
    """A JSON text."""
    return _ENCODER.encode(value)


def json_response(value: Any, status: int = 200, warnings: tuple[str, ...] = ()) -> web.Response:
    """A JSON document; each warning becomes a `Warning` header, which kubectl prints.

    A warning may quote what a client sent: what a header cannot carry is written as an escape.
    """
    response = web.Response(
        body=_ENCODER.encode(value), status=status, headers={"Content-Type": JSON}
    )
    for warning in warnings:
        printable = "".join(
            each if each.isprintable() else each.encode("unicode_escape").decode()
            for each in warning
        )
        quoted = printable.replace("\\", "\\\\").replace('"', '\\"')
        response.headers.add("Warning", f'299 - "{quoted}"')
    return response


def status_response(error: ApiError) -> web.Response:
    """The `Status` of an error."""
    document = error.status
    response = json_response(document, error.code)
    if error.retry_after_s is not None:
        response.headers["Retry-After"] = str(error.retry_after_s)
    if error.code == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="volagent"'
    return response


def text_response(text: str, status: int = 200) -> web.Response:
    """A short text, for health checks."""
    return web.Response(text=text, status=status)
