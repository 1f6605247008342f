"""What can go wrong below: errors named by what the caller does next.

Facts are attributes, text is derived: `umount2 /mnt/v: Device or resource busy (EBUSY)`.
Errors are classified by *(call, errno)* where they are raised, never by errno alone.
"""

import errno as errno_names
import os


class HostError(Exception):
    """A call to the kernel or to a helper failed, and nothing better is known about it."""

    def __init__(self, call: str, subject: str, errno: int = 0, detail: str = "") -> None:
        super().__init__(call, subject, errno, detail)
        self.call = call
        self.subject = subject
        self.errno = errno
        self.detail = detail

    def __str__(self) -> str:
        parts = []
        if self.errno:
            name = errno_names.errorcode.get(self.errno, str(self.errno))
            parts.append(f"{os.strerror(self.errno)} ({name})")
        if self.detail:
            parts.append(self.detail)
        return f"{self.call} {self.subject}: {'; '.join(parts) or 'failed'}"


class Busy(HostError):
    """Somebody still uses it: wait, or ask `find_holders` who."""


class NotEmpty(HostError):
    """A directory that should be empty holds something; it is left as it is."""


class Absent(HostError):
    """It is not there. For a tear-down this means done."""


class Unsupported(HostError):
    """This kernel or machine cannot do it: fall back, remember, or tell the user."""


class TimedOut(HostError):
    """The call did not come back in its time and its helper was abandoned: it may have happened."""


class NotTried(TimedOut):
    """The backend has not answered for long, so the call was not made: nothing has happened."""


class Escapes(HostError):
    """A path leads outside of the place it must stay in, or through a link it must not follow."""
