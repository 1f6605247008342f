"""How a command ends when it could not do what it was asked.

Every error is one sentence and, where somebody can do something, one hint. `main` prints them as
`volagent: ...` and `hint: ...` on standard error and turns the class into the exit code.
"""

from typing import Any

DONE = 0
FAILED = 1
USAGE = 2
UNREACHABLE = 3


class CommandError(Exception):
    """The operation failed."""

    exit_code = FAILED

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(CommandError):
    """The command was called in a way that makes no sense: nothing was tried."""

    exit_code = USAGE


class Unreachable(CommandError):
    """The daemon does not answer."""

    exit_code = UNREACHABLE


class Refused(CommandError):
    """The daemon answered with a `Status` that says no."""

    def __init__(self, status: dict[str, Any], code: int) -> None:
        details = status.get("details") or {}
        causes = [cause for cause in details.get("causes") or () if isinstance(cause, dict)]
        super().__init__(str(status.get("message") or f"HTTP status {code}"), hint=_advise(code))
        self.code = code
        self.reason = str(status.get("reason") or "")
        self.causes = tuple(
            f"{cause.get('field', '')}: {cause.get('message', '')}".removeprefix(": ")
            for cause in causes
        )

    def during(self, doing: str) -> CommandError:
        """The same refusal, told as `cannot <doing>: ...`, with every cause that is news."""
        news = [cause for cause in self.causes if cause not in self.message]
        text = "; ".join([self.message, *news])
        return CommandError(f"cannot {doing}: {text}", hint=self.hint)


def _advise(code: int) -> str:
    if code == 403:
        return "root and members of the group volagent may call: try sudo"
    if code == 401:
        return "give a token with --token-file, or a client certificate"
    return ""
