"""Every setting of the daemon: its name with its unit, its default, and how a file is read.

`config/volagent.toml` is the same list for people, with the reasons; a test keeps the two equal.
Reading is strict: an unknown key, a wrong type or an impossible combination is a `SettingsError`
that names file, line and key, and nothing is started with half-understood settings. The values are
frozen; whoever needs one gets it passed in. Nothing here touches anything but the settings file.
"""

import difflib
import os
import re
import socket
import tomllib
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec

from volagent.settings_failover import FailoverSettings
from volagent.settings_fencing import HookSettings, IscsiSettings

MAX_SOCKET_PATH_BYTES = 107
"""`sockaddr_un.sun_path` holds 108 bytes with the final NUL."""

Seconds = Annotated[float, msgspec.Meta(gt=0)]


class SettingsError(Exception):
    """The settings cannot be used. `where` is `file:line`, a flag, or the file."""

    def __init__(self, where: str, message: str, *, hint: str = "") -> None:
        super().__init__(where, message)
        self.where = where
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


CDI_DIR_BY_RUN_DIR = "auto"
CDI_DIR = "/var/run/cdi"
"""Where podman, containerd and CRI-O look; only the daemon with the default run directory may have
it to itself."""
RUN_DIR = "/run/volagent"


class RuntimeSettings(msgspec.Struct, frozen=True):
    """Who starts the containers."""

    kind: Literal["none", "podman"] = "none"
    podman_socket: str = "/run/podman/podman.sock"
    network: str = ""
    """Network mode of created containers; "" leaves it to the runtime."""
    cdi_dir: str = CDI_DIR_BY_RUN_DIR
    """Where a CDI file per pod is written; "" writes none, "auto" is `CDI_DIR` for the default run
    directory and `<run_dir>/cdi` for any other."""


class TlsSettings(msgspec.Struct, frozen=True):
    """Certificates for `https://` listeners, as PEM files."""

    certificate: str = ""
    key: str = ""
    client_ca: str = ""


class AuthSettings(msgspec.Struct, frozen=True):
    """Who may call over TCP."""

    token_file: str = ""
    mount_service_account_token: bool = True
    """Pods get their service account's token, unless they or the account decline."""


class NfsSettings(msgspec.Struct, frozen=True):
    """Bounds for calls that a dead NFS server can hang."""

    mount_timeout_s: Seconds = 30.0
    unmount_timeout_s: Seconds = 30.0


class NfsExport(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One provisioner name that makes directories on an NFS export."""

    provisioner: str
    server: str
    path: str
    mount_options: tuple[str, ...] = ()


class ProvisionSettings(msgspec.Struct, frozen=True):
    """Where volumes are made."""

    directory_dir: str = ""
    """Where `directory.volagent.dev` makes its directories; filled with `<state_dir>/volumes`."""
    nfs: tuple[NfsExport, ...] = ()
    """Classes that name one of these provisioners need no parameters."""


class DiscoveryRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A directory whose entries become `local` PersistentVolumes of this node."""

    directory: str
    storage_class: str
    reclaim_policy: Literal["Retain", "Delete"] = "Delete"
    labels: dict[str, str] = {}
    plain_directories: bool = False
    """Offer directories that are no mount points, too: not where disks are mounted, since a mount
    point whose disk is late would be offered as a volume."""


class TrashSettings(msgspec.Struct, frozen=True):
    """What happens to the data of deleted volumes."""

    retention_s: Annotated[float, msgspec.Meta(ge=0)] = 7 * 86400.0
    """For classes that do not say; 0 deletes at once."""


class AwsSettings(msgspec.Struct, frozen=True):
    """The EC2 API, for `kubernetes.io/aws-ebs`; credentials are found as the AWS tools do."""

    enabled: bool = False
    region: str = ""
    endpoint: str = ""
    """"" is AWS's own."""
    instance_id: str = ""
    """This machine; "" asks the instance's metadata service."""
    zone: str = ""
    cluster: str = ""
    """The tag KubernetesCluster of volumes made here; filled with the node's name."""
    attach_limit: Annotated[int, msgspec.Meta(ge=0)] = 25
    """How many volumes the scheduler lets be attached here."""
    device_links: str = "/dev/disk/by-id"
    """Where udev puts a link per volume id."""


class LeaseSettings(msgspec.Struct, frozen=True):
    """How nodes show that they are alive."""

    period_s: Seconds = 3.0
    """An agent renews its lease so often."""
    timeout_s: Seconds = 10.0
    """A node whose lease was not renewed for so long is lost."""


class FenceSettings(msgspec.Struct, frozen=True):
    """Whether and how this node gives its exclusive disks up when its lease is over."""

    self: Literal["off", "on"] = "off"
    give_up_s: Seconds = 10.0
    """So long giving up may take after the lease is over; then the machine is reset."""
    watchdog: str = "/dev/watchdog"
    """What resets the machine when the agent cannot; "" arms none."""
    reset_after_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """Without a renewal for so long the watchdog resets; 0: the lease time and `give_up_s`."""


class RetrySettings(msgspec.Struct, frozen=True):
    """Back-off of a failing volume."""

    first_s: Seconds = 0.5
    max_s: Seconds = 120.0


class LogSettings(msgspec.Struct, frozen=True):
    """What goes to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "text"] = "json"


class Settings(msgspec.Struct, frozen=True):
    """All settings. `load_settings` fills the empty ones that depend on others."""

    root_dir: str = "/var/lib/kubelet"
    state_dir: str = "/var/lib/volagent"
    run_dir: str = RUN_DIR
    listen: tuple[str, ...] = ()
    """`unix:///path` or `https://address:port`; filled with the socket in `run_dir`."""
    node_name: str = ""
    """Filled with the host name."""
    node_labels: dict[str, str] = {}
    """Labels of this machine's Node: its zone, what kind of disks it has."""
    attach_limits: dict[str, int] = {}
    """How many volumes of a driver this machine takes, by the driver's name."""
    servers: tuple[str, ...] = ()
    """Where an agent finds its servers, `https://address:port`; those it has joined when empty."""
    image_dir: str = ""
    """Where relative paths of image volumes lead; filled with `<state_dir>/images`."""
    resync_s: Seconds = 600.0
    drain_on_exit: bool = False
    runtime: RuntimeSettings = RuntimeSettings()
    tls: TlsSettings = TlsSettings()
    auth: AuthSettings = AuthSettings()
    nfs: NfsSettings = NfsSettings()
    iscsi: IscsiSettings = IscsiSettings()
    hooks: HookSettings = HookSettings()
    provision: ProvisionSettings = ProvisionSettings()
    discovery: tuple[DiscoveryRule, ...] = ()
    trash: TrashSettings = TrashSettings()
    aws: AwsSettings = AwsSettings()
    lease: LeaseSettings = LeaseSettings()
    failover: FailoverSettings = FailoverSettings()
    fence: FenceSettings = FenceSettings()
    retry: RetrySettings = RetrySettings()
    log: LogSettings = LogSettings()

    @property
    def socket_path(self) -> str:
        """The first unix socket that is listened on, or ""."""
        for address in self.listen:
            if address.startswith("unix://"):
                return address.removeprefix("unix://")
        return ""


def load_settings(path: str | None = None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Read a settings file (None: defaults only) and lay the command line's values over it.

    `overrides` has top-level keys only; a None among its values is no override. Raises
    `SettingsError`.
    """
    text = _read_text(path) if path is not None else ""
    where = _Origin(path or "settings", text)
    settings = _convert_table(_parse(where), Settings, where, ())
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    settings = msgspec.structs.replace(settings, **given)
    settings = _fill(settings)
    _check(settings, where)
    return settings


class _Origin:
    """A settings file's name and text, to say where a key stands."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text

    def at(self, key: tuple[str, ...]) -> str:
        """`file:line` of a dotted key, or of the closest table above it."""
        for length in range(len(key), 0, -1):
            line = _find_line(self.text, key[:length])
            if line:
                return f"{self.name}:{line}"
        return self.name


_NODE_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_SERVER = re.compile(r"https://(\[[0-9a-fA-F:.%]+\]|[^\s:/\[\]]+):\d{1,5}")
_HEADER = re.compile(r"\s*\[+\s*([^\]]+?)\s*\]+")
_ENTRY = re.compile(r"\s*([A-Za-z0-9_\-.\"' ]+?)\s*=")


def _find_line(text: str, key: tuple[str, ...]) -> int:
    """The line (from 1) on which a key is set or its table begins; 0 when it is not found.

    tomllib keeps no positions, so this reads the text once more, for an error message only.
    """
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if match := _HEADER.match(line):
            table = _split_key(match[1])
            if table == key:
                return number
        elif (match := _ENTRY.match(line)) and table + _split_key(match[1]) == key:
            return number
    return 0


def _split_key(text: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in text.split("."))


def _read_text(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError as error:
        raise SettingsError(path, error.strerror or "cannot be read") from error
    except UnicodeDecodeError as error:
        raise SettingsError(path, "is not UTF-8 text") from error


def _parse(where: _Origin) -> dict[str, Any]:
    try:
        return tomllib.loads(where.text)
    except tomllib.TOMLDecodeError as error:
        text = str(error)
        found = re.search(r"line (\d+)", text)
        place = f"{where.name}:{found[1]}" if found else where.name
        raise SettingsError(place, f"not valid TOML: {text}") from error


def _convert_table(
    table: Mapping[str, Any], kind: type[Any], where: _Origin, prefix: tuple[str, ...]
) -> Any:
    """Build one settings struct, key by key, so that an error knows its key."""
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    values: dict[str, Any] = {}
    for name, value in table.items():
        key = (*prefix, name)
        dotted = ".".join(key)
        field = fields.get(name)
        if field is None:
            close = difflib.get_close_matches(name, fields, n=1)
            hint = f'did you mean "{close[0]}"?' if close else f"known here: {', '.join(fields)}"
            raise SettingsError(where.at(key), f'unknown key "{dotted}"', hint=hint)
        nested = isinstance(field.type, type) and issubclass(field.type, msgspec.Struct)
        if nested and isinstance(value, dict):
            values[name] = _convert_table(value, field.type, where, key)
            continue
        try:
            values[name] = msgspec.convert(value, field.type)
        except msgspec.ValidationError as error:
            reason = str(error).replace("`", "").replace("Expected object", "Expected a table")
            raise SettingsError(
                where.at(key), f'"{dotted}": {reason}', hint=_list_choices(field.type)
            ) from error
    return kind(**values)


def _list_choices(kind: Any) -> str:
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    return f"one of: {', '.join(choices)}" if choices else ""


def _fill(settings: Settings) -> Settings:
    """Give the settings that depend on others their values."""
    runtime = settings.runtime
    if runtime.cdi_dir == CDI_DIR_BY_RUN_DIR:
        cdi_dir = CDI_DIR if settings.run_dir == RUN_DIR else f"{settings.run_dir}/cdi"
        runtime = msgspec.structs.replace(runtime, cdi_dir=cdi_dir)
    provision = settings.provision
    if not provision.directory_dir:
        directory = f"{settings.state_dir}/volumes"
        provision = msgspec.structs.replace(provision, directory_dir=directory)
    node_name = settings.node_name or socket.gethostname().lower()
    cluster = settings.aws.cluster or node_name
    fence = settings.fence
    if not fence.reset_after_s:
        shortest_s = settings.lease.timeout_s + fence.give_up_s
        fence = msgspec.structs.replace(fence, reset_after_s=shortest_s)
    return msgspec.structs.replace(
        settings,
        provision=provision,
        aws=msgspec.structs.replace(settings.aws, cluster=cluster),
        listen=tuple(settings.listen) or (f"unix://{settings.run_dir}/volagent.sock",),
        node_name=node_name,
        image_dir=settings.image_dir or f"{settings.state_dir}/images",
        runtime=runtime,
        fence=fence,
    )


def _check(settings: Settings, where: _Origin) -> None:
    for name in ("root_dir", "state_dir", "run_dir", "image_dir"):
        path = getattr(settings, name)
        if not os.path.isabs(path) or os.path.normpath(path) != path or path == "/":
            raise SettingsError(
                where.at((name,)),
                f'"{name}": {path!r} is not an absolute path without "..", "." or a final slash',
            )
    if not _NODE_NAME.fullmatch(settings.node_name) or len(settings.node_name) > 253:
        raise SettingsError(
            where.at(("node_name",)),
            f'"node_name": {settings.node_name!r} is no lower-case DNS name',
            hint="give one with --node-name; it names this machine's Node object",
        )
    if settings.retry.first_s > settings.retry.max_s:
        raise SettingsError(where.at(("retry", "first_s")), '"retry.first_s" exceeds "retry.max_s"')
    if settings.lease.period_s * 2 > settings.lease.timeout_s:
        raise SettingsError(
            where.at(("lease", "timeout_s")), '"lease.timeout_s" must be twice "lease.period_s"'
        )
    shortest_s = settings.lease.timeout_s + settings.fence.give_up_s
    if settings.fence.reset_after_s and settings.fence.reset_after_s < shortest_s:
        raise SettingsError(
            where.at(("fence", "reset_after_s")),
            '"fence.reset_after_s" is shorter than "lease.timeout_s" and "fence.give_up_s"',
            hint=f"0 is right, or {shortest_s:g} and more: giving up must have its time",
        )
    for server in settings.servers:
        if not _SERVER.fullmatch(server):
            raise SettingsError(
                where.at(("servers",)), f'"servers": {server!r} is not https://ADDRESS:PORT'
            )
    for address in settings.listen:
        _check_address(address, settings, where)


def _check_address(address: str, settings: Settings, where: _Origin) -> None:
    place = where.at(("listen",))
    if address.startswith("unix://"):
        path = address.removeprefix("unix://")
        if not os.path.isabs(path):
            raise SettingsError(place, f'"listen": {address!r} needs an absolute path')
        if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
            raise SettingsError(
                place,
                f'"listen": {path} is longer than the {MAX_SOCKET_PATH_BYTES} bytes that the'
                " kernel allows for a socket",
                hint="choose a shorter --run-dir",
            )
        return
    if not _SERVER.fullmatch(address):
        raise SettingsError(
            place,
            f'"listen": {address!r} is neither unix:///PATH nor https://ADDRESS:PORT',
            hint="plain http is not served: secrets would cross the network readable",
        )
    if bool(settings.tls.certificate) != bool(settings.tls.key):
        raise SettingsError(
            place,
            f'"listen": {address} needs "tls.certificate" and "tls.key", or neither',
            hint="without both, a certificate is made under the state directory",
        )
    if settings.tls.certificate and not (settings.auth.token_file or settings.tls.client_ca):
        raise SettingsError(
            place,
            f'"listen": {address} would let nobody in',
            hint='set "auth.token_file" or "tls.client_ca"',
        )
