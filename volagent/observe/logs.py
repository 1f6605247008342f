"""Logs: one canonical line per finished operation, keyed, on standard error.

`volagent run` configures once; everybody else asks `get_logger`. Secrets never reach a log: values
that could hold one have no `repr` (see `objects/storage.py`, `host/contract.py`).
"""

import sys
from collections.abc import MutableMapping
from typing import Any

import msgspec

# structlog loads rich, when it finds it, for tracebacks that are never printed here: 8 MB and a
# tenth of a second of every start. The command line imports rich itself, where it draws.
_hidden = "rich" not in sys.modules
if _hidden:
    sys.modules["rich"] = None  # type: ignore[assignment]  # Python's own way to say "not there"

import structlog  # noqa: E402  # after rich is out of sight

if _hidden:
    del sys.modules["rich"]

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_ENCODER = msgspec.json.Encoder(enc_hook=str)


def configure_logs(level: str, form: str) -> None:
    """Set the level (`debug`..`error`) and the form (`json`, `text`) of all lines."""
    render: Any = _render_json if form == "json" else structlog.dev.ConsoleRenderer(colors=False)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )


def get_logger(part: str) -> Any:
    """The logger of one part of the daemon."""
    return structlog.get_logger(part=part)


def _render_json(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> str:
    return _ENCODER.encode(event).decode()
