"""Network file systems, mounted by their own tools in a child process that can be killed.

`mount(8)` knows what a server wants (portmapper, versions, Kerberos); here is only how it is called
and what its complaints mean. Nothing in this module touches the path that is mounted on once
something may be mounted there: the outcome is read from the mount table. Pure.
"""

import errno
from collections.abc import Sequence
from typing import Final

from volagent.host.errors import Absent, HostError, Unsupported

# What mount(8) and mount.nfs print → the errno that it stands for.
_COMPLAINTS: Final = (
    ("unknown filesystem type", errno.ENODEV),
    ("helper program", errno.ENODEV),
    ("No such device", errno.ENODEV),
    ("Protocol not supported", errno.EPROTONOSUPPORT),
    ("access denied by server", errno.EACCES),
    ("Permission denied", errno.EACCES),
    ("Connection timed out", errno.ETIMEDOUT),
    ("Connection refused", errno.ECONNREFUSED),
    ("No route to host", errno.EHOSTUNREACH),
    ("Network is unreachable", errno.ENETUNREACH),
    ("Failed to resolve server", errno.EHOSTUNREACH),
    ("Stale file handle", errno.ESTALE),
    ("reason given by server: No such file or directory", errno.ENOENT),
    ("No such file or directory", errno.ENOENT),
    ("an incorrect mount option", errno.EINVAL),
    ("Invalid argument", errno.EINVAL),
    ("Operation not permitted", errno.EPERM),
    ("already mounted", errno.EBUSY),
    ("busy", errno.EBUSY),
)


def mount_command(source: str, target: str, fs_type: str, options: Sequence[str]) -> list[str]:
    """The argv of mount(8). Private, as all mounts of the agent are; not recorded in mtab."""
    argv = ["mount", "-n", "--make-private", "-t", fs_type]
    if options:
        argv += ["-o", ",".join(options)]
    return [*argv, "--", source, target]


def explain_mount_failure(fs_type: str, source: str, status: int, complaint: str) -> HostError:
    """What a failed mount(8) means to the caller, with its own words."""
    call = f"mount -t {fs_type}"
    detail = complaint or f"mount(8) ended with status {status}"
    code = next((code for words, code in _COMPLAINTS if words in complaint), 0)
    if code == errno.ENODEV:
        return Unsupported(call, source, code, detail)
    if code == errno.ENOENT:
        return Absent(call, source, code, detail)
    return HostError(call, source, code, detail)
