"""Errors of drivers, named by who must act next."""


class DriverError(Exception):
    """A volume operation failed. `remedy` says in one sentence what a person can do."""

    def __init__(self, message: str, *, remedy: str = "", reason: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.reason = reason
        """A Kubernetes event reason when the default (FailedMount, ...) does not fit."""

    def __str__(self) -> str:
        return self.message


class Transient(DriverError):
    """Nothing was left behind; the same call may succeed later."""


class Uncertain(DriverError):
    """It may have happened, wholly or in part; look before anything else."""


class Rejected(DriverError):
    """The declaration itself must change; a retry waits for that."""


class Waiting(DriverError):
    """Somebody else acts first, and we are told when they have: no retry by time, no failure."""
