"""open-iscsi's records: what a login is made with, among that the passwords.

iscsiadm takes a setting as an argument, which every local user can read in /proc. So iscsiadm makes
a record, with its own defaults and without anything secret, and the rest is written here into that
file: a new one, readable for root alone from its first byte, renamed into its place. The keys that
are written are those of `node_settings` and `discovery_settings`; everything else stays as the
machine's administrator has set it.

Layout (open-iscsi 2.0-873 and later, `usr/idbm.c`), below `/etc/iscsi` or `/var/lib/iscsi`:
`nodes/<iqn>/<address>,<port>,<tag>/<interface>`, or the file `nodes/<iqn>/<address>,<port>` when
the portal's group tag is not known; `send_targets/<address>,<port>/st_config`; `ifaces/<name>`.
"""

import contextlib
import errno
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from volagent.host.errors import Absent, HostError
from volagent.host.iscsi.contract import Chap

LOGIN_TIMEOUT_S: Final = 10
LOGIN_RETRIES: Final = 1
MULTIPATH_REPLACEMENT_S: Final = 15
"""After so long a silent path fails its requests, so that they go another way."""
_OURS: Final = {"node.startup": "manual", "node.session.scan": "manual"}
_SESSION_AUTH: Final = "node.session.auth"
_SIGNATURE: Final = {
    "node.conn[0].startup": "manual",
    "node.conn[0].timeo.login_timeout": str(LOGIN_TIMEOUT_S),
    "node.session.initial_login_retry_max": str(LOGIN_RETRIES),
}
"""What is set besides: nobody chooses just these by accident."""
_DISCOVERY_AUTH: Final = "discovery.sendtargets.auth"


def split_portal(portal: str) -> tuple[str, str]:
    """Address (an IPv6 one without brackets) and port."""
    address, _, port = portal.rpartition(":")
    return address.strip("[]"), port


def node_settings(chap: Chap | None, *, several_paths: bool) -> dict[str, str]:
    """What a session of ours is made with; an empty value takes a setting away."""
    settings = {**_OURS, **_SIGNATURE, **_chap_settings(_SESSION_AUTH, chap)}
    if several_paths:
        settings["node.session.timeo.replacement_timeout"] = str(MULTIPATH_REPLACEMENT_S)
    return settings


def discovery_settings(chap: Chap) -> dict[str, str]:
    """What targets are asked for with."""
    return {
        **_chap_settings(_DISCOVERY_AUTH, chap),
        "discovery.sendtargets.timeo.login_timeout": str(LOGIN_TIMEOUT_S),
        "discovery.sendtargets.reopen_max": str(LOGIN_RETRIES),
    }


def _chap_settings(prefix: str, chap: Chap | None) -> dict[str, str]:
    found = chap or Chap("", "")
    return {
        f"{prefix}.authmethod": "CHAP" if chap is not None else "None",
        f"{prefix}.username": found.username,
        f"{prefix}.password": found.password,
        f"{prefix}.username_in": found.username_in,
        f"{prefix}.password_in": found.password_in,
    }


def change_settings(text: str, settings: Mapping[str, str]) -> str:
    """A record with these settings; the order of the others stays.

    Raises `ValueError`, without the value, for one that cannot stand on a line.
    """
    for key, value in settings.items():
        if not value.isprintable() or value != value.strip():
            raise ValueError(f"{key} has characters that open-iscsi's records cannot hold")
    left = {key: value for key, value in settings.items() if value}
    lines = []
    for line in text.splitlines():
        key = line.partition("=")[0].strip()
        if line.startswith("# END RECORD"):
            lines += [f"{name} = {value}" for name, value in left.items()]
            left = {}
        if key not in settings:
            lines.append(line)
        elif key in left:
            lines.append(f"{key} = {left.pop(key)}")
    lines += [f"{name} = {value}" for name, value in left.items()]
    return "\n".join(lines) + "\n"


def read_settings(text: str) -> dict[str, str]:
    """A record's keys and values."""
    pairs = (line.partition("=") for line in text.splitlines() if not line.startswith("#"))
    return {key.strip(): value.strip() for key, sign, value in pairs if sign}


@dataclass(frozen=True, slots=True)
class Records:
    """The directories in which open-iscsi may keep its records."""

    directories: tuple[str, ...] = ("/etc/iscsi", "/var/lib/iscsi")

    def find_node(self, iqn: str, portal: str, interface: str) -> str | None:
        """The file of a target's portal and interface."""
        address, port = split_portal(portal)
        for directory in self.directories:
            where = f"{directory}/nodes/{iqn}"
            for name in sorted(_list(where), reverse=True):
                if name != f"{address},{port}" and not name.startswith(f"{address},{port},"):
                    continue
                file = f"{where}/{name}"
                if os.path.isdir(file):
                    file = f"{file}/{interface}"
                if os.path.isfile(file):
                    return file
        return None

    def find_discovery(self, portal: str) -> str | None:
        """The file of a portal that is asked for targets."""
        address, port = split_portal(portal)
        for directory in self.directories:
            file = f"{directory}/send_targets/{address},{port}/st_config"
            if os.path.isfile(file):
                return file
        return None

    def find_interface(self, name: str) -> str | None:
        """The file of an interface."""
        for directory in self.directories:
            file = f"{directory}/ifaces/{name}"
            if os.path.isfile(file):
                return file
        return None

    def is_ours(self, iqn: str, portal: str, interface: str) -> bool:
        """Whether the session of that record is ours to close: an administrator's scans itself."""
        file = self.find_node(iqn, portal, interface)
        if file is None:
            return False
        found = self.read(file)
        return all(found.get(key) == value for key, value in _OURS.items())

    def was_made_here(self, iqn: str, portal: str, interface: str) -> bool:
        """Whether a session is ours although nobody knows of it: not by its scanning alone.

        An administrator may have set that for all sessions.
        """
        file = self.find_node(iqn, portal, interface)
        found = self.read(file) if file is not None else {}
        return all(found.get(key) == value for key, value in (_OURS | _SIGNATURE).items())

    def read(self, file: str) -> dict[str, str]:
        """What a record says."""
        return read_settings(_read(file))

    def write(self, file: str | None, settings: Mapping[str, str], subject: str) -> None:
        """Put settings into a record. Raises `Absent` when there is none, `HostError`."""
        if file is None:
            raise Absent("record", subject, errno.ENOENT, "iscsiadm made none")
        try:
            scratch = next(d for d in self.directories if os.path.commonpath((d, file)) == d)
            replace_private(file, change_settings(_read(file), settings), scratch)
        except ValueError as error:
            raise HostError("record", subject, errno.EINVAL, str(error)) from None
        except OSError as error:
            raise HostError("write", file, error.errno or 0) from error


def replace_private(file: str, text: str, scratch: str) -> None:
    """Replace a file at once by one that only its owner can read. Raises `OSError`.

    It is written in `scratch`, out of the sight of whoever lists records, under a name that is the
    same the next time: what a kill leaves there does not stay.
    """
    temporary = f"{scratch}/.volagent-{hashlib.sha256(file.encode()).hexdigest()[:16]}"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o600)
    try:
        with os.fdopen(descriptor, "w") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.rename(temporary, file)
    except BaseException:
        os.unlink(temporary)
        raise


def _read(file: str) -> str:
    with open(file) as stream:
        return stream.read()


def _list(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []
