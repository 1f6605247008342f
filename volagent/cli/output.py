"""Printing: columns, JSON, YAML, ages, colours. Data goes to standard output, nothing else does.

Text from objects is cleaned of control characters before it reaches a terminal: an error message
of a storage server must not be able to move the cursor.
"""

import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import click
import msgspec

from volagent.aio.clock import parse_time

NONE = "<none>"
STATE_COLOURS = {
    "done": "green", "Ready": "green", "ok": "green", "True": "green",
    "running": "cyan", "Working": "cyan", "waiting": "yellow", "Waiting": "yellow",
    "warn": "yellow", "Removing": "yellow", "failed": "red", "Failed": "red", "fail": "red",
}  # fmt: skip
_CONTROL = {code: "\N{REPLACEMENT CHARACTER}" for code in (*range(32), *range(127, 160))} | {
    9: " ", 10: " ", 13: " "
}  # fmt: skip


def clean(text: Any) -> str:
    """One printable line."""
    return str(text).translate(_CONTROL)


def paint(text: str, state: str) -> str:
    """Colour a word by the state it tells, when somebody looks at it on a terminal."""
    colour = STATE_COLOURS.get(state)
    return click.style(text, fg=colour) if colour and sys.stdout.isatty() else text


def print_line(text: str = "") -> None:
    """One line of data, at once: whoever reads a pipe waits for it."""
    click.echo(text)


def print_note(text: str) -> None:
    """One line for people, on standard error."""
    click.echo(text, err=True)


def print_document(document: Any, form: str) -> None:
    """A document as `json` or `yaml`."""
    if form == "json":
        print_line(msgspec.json.format(msgspec.json.encode(document), indent=4).decode())
        return
    print_line(to_yaml(document).rstrip("\n"))


def to_yaml(document: Any) -> str:
    """Block style, keys in the order given, long texts as blocks."""
    import yaml  # 40 ms that only YAML needs

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    def represent_text(dumper: Any, text: str) -> Any:
        style = "|" if "\n" in text else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    Dumper.add_representer(str, represent_text)
    return str(
        yaml.dump(
            document, Dumper=Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False
        )
    )


class Columns:
    """Left-aligned columns, three spaces apart.

    `widths` are kept between calls of `format_rows`, so that the rows of a watch stay aligned.
    """

    def __init__(self, titles: Sequence[str]) -> None:
        self.titles = tuple(titles)
        self._widths = [len(title) for title in titles]

    def format_rows(
        self, rows: Iterable[Sequence[str]], *, with_titles: bool = True
    ) -> Iterable[str]:
        """The lines of a table."""
        cleaned = [[clean(cell) for cell in row] for row in rows]
        for row in cleaned:
            for index, cell in enumerate(row):
                self._widths[index] = max(self._widths[index], len(cell))
        for row in ([list(self.titles)] if with_titles else []) + cleaned:
            cells = [
                paint(cell.ljust(width), cell)
                for cell, width in zip(row[:-1], self._widths, strict=False)
            ]
            yield "   ".join([*cells, paint(row[-1], row[-1])]).rstrip()


def print_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A whole table."""
    for line in Columns(titles).format_rows(rows):
        print_line(line)


def format_age(timestamp: str | None, now: datetime | None = None) -> str:
    """How long ago an RFC 3339 moment was, in kubectl's short form."""
    if not timestamp:
        return "<unknown>"
    try:
        seconds = int(((now or datetime.now(UTC)) - parse_time(timestamp)).total_seconds())
    except ValueError:
        return "<invalid>"
    return format_seconds(max(seconds, 0))


def format_seconds(seconds: int) -> str:
    """`45s`, `3m20s`, `5h`, `12d`: two units only while the first is small."""
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return f"{minutes}m{seconds % 60}s" if seconds % 60 else f"{minutes}m"
    if hours < 3:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    return f"{days}d"


def format_ms(took_ms: float | None) -> str:
    """`0.8 ms`, `35 ms`, `2.4 s`, or "" for what did not end yet."""
    if took_ms is None:
        return ""
    if took_ms < 10:
        return f"{took_ms:.1f} ms"
    if took_ms < 1000:
        return f"{took_ms:.0f} ms"
    return f"{took_ms / 1000:.1f} s"
