"""The caller on a unix socket, by the kernel's word: SO_PEERCRED and SO_PEERGROUPS.

Both are taken when the peer connects, so they cannot be confused by a process id that was used
again, as reading `/proc/<pid>` could.
"""

import errno
import grp
import pwd
import socket
import struct

from volagent.api.auth import ADMIN_GROUP, User

ACCESS_GROUP = "volagent"
"""Root and the members of this group may do everything."""

_SO_PEERGROUPS = 59  # not in Python's socket module; include/uapi/asm-generic/socket.h, Linux 4.13
_UCRED = struct.Struct("iII")
_GID = struct.Struct("I")
_GROUPS_LIMIT_BYTES = 1024  # the most that Python lets getsockopt return: 256 groups


def identify_peer(connection: socket.socket, group: str) -> User:
    """Who is at the other end of an `AF_UNIX` socket; members of `group` are admins."""
    _pid, uid, gid = _UCRED.unpack(
        connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    )
    if uid == 0:
        return User("root", frozenset({ADMIN_GROUP}))
    name = _name_user(uid)
    fix = f"sudo usermod -aG {group} {name}"
    try:
        access = grp.getgrnam(group)
    except KeyError:
        fix = f"sudo groupadd --system {group} && {fix}"
    else:
        if _is_member(connection, gid, access, name):
            return User(name, frozenset({ADMIN_GROUP}))
    hint = f"only root and members of group {group} may use this socket"
    return User(name, hint=f"{hint}: {fix}, then log in again")


def _is_member(connection: socket.socket, gid: int, access: grp.struct_group, name: str) -> bool:
    if access.gr_gid == gid:
        return True
    try:
        raw = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_LIMIT_BYTES)
    except OSError as error:
        if error.errno != errno.ERANGE:  # the peer is in more groups than fit
            raise
        return name in access.gr_mem
    return any(gid == access.gr_gid for (gid,) in _GID.iter_unpack(raw))


def _name_user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid-{uid}"
