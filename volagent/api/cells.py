"""What all tables are made of: columns, ages, and the words for what is not there. Pure."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from volagent.aio.clock import parse_time
from volagent.objects.meta import Document

NONE = "<none>"
UNKNOWN = "<unknown>"
UNSET = "<unset>"

Cells = Callable[[Document, datetime], list[Any]]


def column(name: str, kind: str = "string", *, wide: bool = False) -> Document:
    """A column; a wide one is shown by `-o wide` only."""
    form = "name" if name == "Name" else ""
    return {
        "name": name, "type": kind, "format": form, "description": "", "priority": int(wide),
    }  # fmt: skip


NAME = column("Name")
AGE = column("Age")


def format_age(since: Any, now: datetime) -> str:
    """`5s`, `3m12s`, `4h`, `12d`, ...: a duration as Kubernetes' `HumanDuration` prints it."""
    if not isinstance(since, str):
        return UNKNOWN
    try:
        seconds = int((now - parse_time(since)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return "<invalid>"
    if seconds < -1:
        return "<invalid>"
    seconds = max(seconds, 0)
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    for unit, small, limit, per, count in (
        ("m", "s", 10, 60, seconds), ("h", "m", 8, 60, minutes), ("d", "h", 8, 24, hours),
        ("y", "d", 8, 365, days),
    ):  # fmt: skip
        first_limit = 120 if unit == "m" else 180 if unit == "h" else 48 if unit == "d" else 730
        if count < first_limit:
            return f"{count}{small}"
        whole, rest = divmod(count, per)
        if whole < limit:
            return f"{whole}{unit}{rest}{small}" if rest else f"{whole}{unit}"
    return f"{days // 365}y"


def age_of(metadata: Document, now: datetime) -> str:
    """How old an object is."""
    return format_age(metadata.get("creationTimestamp"), now)
