"""What a failed call to an NBD server, or to the kernel about it, means, and what helps. Pure."""

import errno
from typing import Final

from volagent.drivers.errors import DriverError, Rejected, Transient, Uncertain
from volagent.drivers.nbd.options import NbdOptions
from volagent.host.errors import Absent, Busy, HostError, NotTried, TimedOut, Unsupported

_REMEDIES: Final = {
    errno.ECONNREFUSED: "start the NBD server there, or correct server and port",
    errno.ETIMEDOUT: "see whether the server is up, and reachable on this port",
    errno.EHOSTUNREACH: "see whether the server's name and address are right, and reachable",
    errno.ENETUNREACH: "see whether this node has a route to the server",
    errno.ECONNRESET: "allow this node in the server's configuration, and see the server's log",
    errno.EACCES: 'see the server\'s log; a server that wants TLS needs attribute tls "true"',
    errno.EROFS: "declare the volume readOnly, or export it writable on the server",
    errno.EPROTO: "see that ca.crt signed the server's certificate, that it names the server"
    " (attribute tlsHostname), and that the server accepts tls.crt",
    errno.EINVAL: "correct ca.crt, tls.crt and tls.key in the secret: PEM, and of one another",
    errno.EOPNOTSUPP: "a newer kernel has it",
}
_OF_SECRET: Final = ("TLS", errno.EINVAL)


def explain_nbd_failure(error: HostError, options: NbdOptions) -> DriverError:
    """A failed attempt to connect or grow.

    Only a call that did not come back may have left a device behind.
    """
    where = f"{options.server}:{options.port}"
    if isinstance(error, NotTried):
        return Transient(str(error), remedy=_REMEDIES[errno.ETIMEDOUT])
    if isinstance(error, TimedOut):
        return Uncertain(str(error), remedy=_REMEDIES[errno.ETIMEDOUT])
    if isinstance(error, Absent) and error.errno == errno.ENOENT:
        return Transient(
            f"{where} has no export {options.export!r}: {error.detail}",
            remedy=f"correct volumeAttributes.export, or make it there: `nbd-client -l"
            f" {options.server} {options.port}` lists what it has",
        )
    if isinstance(error, Absent):
        return Transient(f"{options.identity} is not connected", remedy="it is connected anew")
    if isinstance(error, Busy):
        return Transient(
            str(error), remedy="delete the pods that use it on this node, and declare them again"
        )
    if isinstance(error, Unsupported) and error.subject == "nbd":
        return Transient(
            str(error),
            remedy="install a kernel, or its extra modules package, with nbd: `modprobe nbd`",
        )
    if isinstance(error, Unsupported):
        return Transient(str(error), remedy="see what listens there: a current nbd-server does it")
    if (error.call, error.errno) == _OF_SECRET:
        return Rejected(str(error), remedy=_REMEDIES[errno.EINVAL])
    return Transient(str(error), remedy=_REMEDIES.get(error.errno, "see the kernel's log"))
