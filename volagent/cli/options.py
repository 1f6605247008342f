"""Options that several commands share, and what they make of them.

Connection options may stand before or after the verb; the one after it wins.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import click

from volagent.cli.connection import Api, Target
from volagent.cli.errors import UsageError
from volagent.cli.kinds import DEFAULT_NAMESPACE

Command = TypeVar("Command", bound=Callable[..., Any])

_CONNECTION = (
    ("--socket", "socket_path", "PATH", "The daemon's socket  [RUN_DIR/volagent.sock]"),
    ("--run-dir", "run_dir", "DIR", "The daemon's run directory  [/run/volagent]"),
    ("--server", "server", "URL", "https://ADDRESS:PORT instead of the socket"),
    ("--ca-file", "ca_file", "FILE", "Authority of the server's certificate"),
    ("--token-file", "token_file", "FILE", "File with the bearer token"),
    ("--certificate", "certificate", "FILE", "Client certificate (PEM)"),
    ("--key", "key", "FILE", "Its key (PEM)"),
)
CONNECTION_NAMES = tuple(name for _, name, _, _ in _CONNECTION)


def add_connection_options(command: Command, *, hidden: bool = False) -> Command:
    """Where the daemon is; also from the environment, as VOLAGENT_SOCKET and so on."""
    for flag, name, metavar, about in reversed(_CONNECTION):
        variable = f"VOLAGENT_{flag.strip('-').replace('-', '_').upper()}"
        command = click.option(
            flag, name, metavar=metavar, help=about, envvar=None if hidden else variable,
            hidden=hidden,
        )(command)  # fmt: skip
    return command


def talks_to_daemon(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the connection options, and an `Api` as its first argument."""

    def run(*args: Any, **values: Any) -> Any:
        given = {name: values.pop(name) for name in CONNECTION_NAMES}
        api = Api(read_target(given))
        try:
            return command(api, *args, **values)
        finally:
            api.close()

    run.__name__ = command.__name__
    run.__doc__ = command.__doc__
    run.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]
    return add_connection_options(run, hidden=True)


def read_target(given: dict[str, str | None]) -> Target:
    """The connection options of this command, over those before the verb, over the defaults."""
    context = click.get_current_context(silent=True)
    before = (context.obj or {}) if context is not None else {}
    values = {**before, **{name: value for name, value in given.items() if value}}
    run_dir = values.pop("run_dir", None)
    if run_dir and not values.get("socket_path"):
        values["socket_path"] = f"{run_dir.rstrip('/')}/volagent.sock"
    return replace(Target(), **values)


def namespace_option(command: Command) -> Command:
    """`-n`."""
    return click.option(
        "-n", "--namespace", default=DEFAULT_NAMESPACE, metavar="NAMESPACE",
        envvar="VOLAGENT_NAMESPACE", help="The namespace  [default: default]",
    )(command)  # fmt: skip


def parse_duration(text: str) -> float:
    """`90`, `90s`, `1m30s`, `2h` → seconds. Raises click's usage error."""
    text = str(text).strip()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise click.BadParameter(f"{text!r} is no duration such as 30s or 2m")
    factors = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
    return float(sum(float(number) * factors[unit] for number, unit in parts))


def split_pod(word: str, namespace: str) -> tuple[str, str]:
    """`pod/web`, `web`, `pod/default/web` → namespace and name."""
    parts = word.split("/")
    if len(parts) > 1 and parts[0] in ("pod", "pods", "po"):
        parts = parts[1:]
    if len(parts) == 2:
        namespace, parts = parts[0], parts[1:]
    if len(parts) != 1 or not parts[0] or not namespace:
        raise UsageError(f'"{word}" names no pod', hint="for example: volagent explain pod/web")
    return namespace, parts[0]
