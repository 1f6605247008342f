"""What a secret, configMap, downwardAPI or projected volume shows, from declarations. Pure.

`render` turns a pod's volume and the objects it names into files, or says what is missing, in the
kubelet's words. Nothing is written here. Sources of the rules: `MakePayload` and `collectData` in
`pkg/volume/{secret,configmap,downwardapi,projected}`, paths as in `pkg/volume/util/
atomic_writer.go`. Differences, on purpose: a path is cleaned *before* it is checked, a path that is
both a file and a directory is refused here instead of failing half written, and every missing thing
of a projected volume is named at once.

Contents are secrets: they are in no message, no `repr` and, but hashed, in no fingerprint.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b

from volagent.host.contract import Payload, PayloadFile
from volagent.objects.downward import Allocatable, DownwardError, read_field, read_resource
from volagent.objects.pod import Pod
from volagent.objects.storage import ConfigMap, Secret
from volagent.objects.volumes import (
    ConfigMapSource,
    DownwardAPISource,
    DownwardItem,
    KeyToPath,
    Projection,
    SecretProjection,
    ServiceAccountTokenProjection,
    Volume,
)

DEFAULT_MODE = 0o644
OWNED_TOKEN_MODE = 0o600
"""A token's mode when it belongs to the pod's user or, by way of fsGroup, to its group."""
DEFAULT_TOKEN_EXPIRATION_S = 3600
MAX_PATH_CHARS = 4096
MAX_NAME_BYTES = 255

SECRET = "Secret"
CONFIG_MAP = "ConfigMap"

LookUp = Callable[[str, str], Secret | ConfigMap | None]
"""(kind, name) → the object of the pod's namespace."""


@dataclass(frozen=True, slots=True)
class ObjectNeed:
    """An object that a volume shows."""

    kind: str
    """`Secret` or `ConfigMap`."""
    name: str
    optional: bool = False


@dataclass(frozen=True, slots=True)
class TokenNeed:
    """A service account token that a volume shows."""

    audience: str = ""
    """"": the API server itself."""
    expiration_seconds: int = DEFAULT_TOKEN_EXPIRATION_S


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What downwardAPI may tell about this node."""

    node_name: str = ""
    host_ip: str = ""
    allocatable: Allocatable = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Missing:
    """Why a volume cannot be filled yet, and what would change that."""

    message: str
    remedy: str = ""


class _Refused(Exception):
    """One reason for `Missing`, on its way up."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.missing = Missing(message, remedy)


def needed_objects(volume: Volume) -> tuple[ObjectNeed, ...]:
    """The secrets and configMaps that a pod's volume shows."""
    if volume.secret is not None:
        source = volume.secret
        return (ObjectNeed(SECRET, source.secret_name, bool(source.optional)),)
    if volume.config_map is not None:
        return (ObjectNeed(CONFIG_MAP, volume.config_map.name, bool(volume.config_map.optional)),)
    needs = []
    for projection in _projections(volume):
        if projection.secret is not None:
            secret = projection.secret
            needs.append(ObjectNeed(SECRET, secret.name, bool(secret.optional)))
        elif projection.config_map is not None:
            config_map = projection.config_map
            needs.append(ObjectNeed(CONFIG_MAP, config_map.name, bool(config_map.optional)))
    return tuple(needs)


def needed_tokens(volume: Volume) -> tuple[TokenNeed, ...]:
    """The service account tokens that a pod's volume shows."""
    return tuple(
        _token_need(projection.service_account_token)
        for projection in _projections(volume)
        if projection.service_account_token is not None
    )


def render(
    volume: Volume, pod: Pod, lookup: LookUp, tokens: Mapping[TokenNeed, bytes], node: NodeFacts
) -> Payload | Missing:
    """The files of an API-backed volume of a pod, or everything that keeps it from having them.

    `lookup` answers for the pod's namespace. Paths are unique, relative and clean; of two sources
    for one path the last wins.
    """
    rendering = _Rendering(pod, lookup, tokens, node)
    refused: list[Missing] = []
    for projection, mode in _sources(volume):
        try:
            rendering.add(projection, DEFAULT_MODE if mode is None else mode)
        except _Refused as reason:
            refused.append(reason.missing)
    if not refused:
        clash = _find_clash(rendering.files)
        if clash is None:
            return _seal(rendering.files, pod.metadata.uid)
        refused.append(clash)
    if len(refused) == 1:
        return refused[0]
    remedies = dict.fromkeys(missing.remedy for missing in refused if missing.remedy)
    return Missing(f"[{', '.join(m.message for m in refused)}]", "; ".join(remedies))


def _projections(volume: Volume) -> list[Projection]:
    return (volume.projected.sources or []) if volume.projected is not None else []


def _sources(volume: Volume) -> list[tuple[Projection, int | None]]:
    """Every kind of API-backed volume as projections, each with its default mode."""
    if volume.secret is not None:
        secret = volume.secret
        source = SecretProjection(secret.secret_name, secret.items, secret.optional)
        return [(Projection(secret=source), secret.default_mode)]
    if volume.config_map is not None:
        return [(Projection(config_map=volume.config_map), volume.config_map.default_mode)]
    if volume.downward_api is not None:
        downward = volume.downward_api
        return [(Projection(downward_api=downward), downward.default_mode)]
    mode = volume.projected.default_mode if volume.projected is not None else None
    return [(projection, mode) for projection in _projections(volume)]


def _token_need(source: ServiceAccountTokenProjection) -> TokenNeed:
    return TokenNeed(source.audience, source.expiration_seconds or DEFAULT_TOKEN_EXPIRATION_S)


@dataclass(frozen=True, slots=True)
class _Rendering:
    """The files of one volume, as its sources are added one after the other."""

    pod: Pod
    lookup: LookUp
    tokens: Mapping[TokenNeed, bytes]
    node: NodeFacts
    files: dict[str, PayloadFile] = field(default_factory=dict)

    def add(self, projection: Projection, mode: int) -> None:
        """Add one source. Raises `_Refused`; the files are then of no use."""
        if projection.secret is not None:
            self._add_secret(projection.secret, mode)
        elif projection.config_map is not None:
            self._add_config_map(projection.config_map, mode)
        elif projection.downward_api is not None:
            self._add_downward(projection.downward_api, mode)
        elif projection.service_account_token is not None:
            self._add_token(projection.service_account_token, mode)

    def _put(self, path: str, content: bytes, mode: int, uid: int | None = None) -> None:
        clean = _clean_path(path)
        if not 0 <= mode <= 0o777:
            raise _Refused(
                f"mode {mode} of {path}: must be a number between 0 and 0777 (octal), both "
                "inclusive",
                "correct the mode; in JSON it is a decimal number (0644 is 420)",
            )
        self.files[clean] = PayloadFile(clean, content, mode, uid)

    def _add_secret(self, source: SecretProjection, mode: int) -> None:
        found = self.lookup(SECRET, source.name)
        if not isinstance(found, Secret):
            if not source.optional:
                self._refuse_object("secret", source.name)
            return
        data = found.data or {}
        said = "references non-existent secret key: "
        self._add_keys(data, source.items, mode, said=said, optional=source.optional)

    def _add_config_map(self, source: ConfigMapSource, mode: int) -> None:
        found = self.lookup(CONFIG_MAP, source.name)
        if not isinstance(found, ConfigMap):
            if not source.optional:
                self._refuse_object("configmap", source.name)
            return
        data = dict(found.binary_data or {})
        data.update((key, text.encode()) for key, text in (found.data or {}).items())
        said = "configmap references non-existent config key: "
        self._add_keys(data, source.items, mode, said=said, optional=source.optional)

    def _refuse_object(self, kind: str, name: str) -> None:
        raise _Refused(
            f'{kind} "{name}" not found',
            f"create the {kind} {self.pod.metadata.namespace}/{name}, "
            "or mark it optional in the pod",
        )

    def _add_keys(
        self,
        data: Mapping[str, bytes],
        items: list[KeyToPath] | None,
        mode: int,
        *,
        said: str,
        optional: bool | None,
    ) -> None:
        if not items:
            for key, content in data.items():
                self._put(key, content, mode)
            return
        for item in items:
            found = data.get(item.key)
            if found is not None:
                self._put(item.path, found, mode if item.mode is None else item.mode)
            elif not optional:
                raise _Refused(said + item.key, "add the key, or mark the source optional")

    def _add_downward(self, source: DownwardAPISource, mode: int) -> None:
        for item in source.items or ():
            try:
                text = self._read(item)
            except DownwardError as error:
                raise _Refused(str(error), f"correct the item {item.path} in the pod") from error
            self._put(item.path, text.encode(), mode if item.mode is None else item.mode)

    def _read(self, item: DownwardItem) -> str:
        if item.field_ref is not None:
            return read_field(
                self.pod, item.field_ref.field_path,
                node_name=self.node.node_name, host_ip=self.node.host_ip,
            )  # fmt: skip
        if item.resource_field_ref is not None:
            return read_resource(self.pod, item.resource_field_ref, self.node.allocatable)
        raise DownwardError(f"{item.path}: one of fieldRef and resourceFieldRef is required")

    def _add_token(self, source: ServiceAccountTokenProjection, mode: int) -> None:
        token = self.tokens.get(_token_need(source))
        if token is None:
            raise _Refused("waiting for a service account token", "")
        security = self.pod.spec.security_context
        owner = find_common_user(self.pod)
        owned = owner is not None or (security is not None and security.fs_group is not None)
        self._put(source.path, token, OWNED_TOKEN_MODE if owned else mode, owner)


def find_common_user(pod: Pod) -> int | None:
    """The user that every container runs as, when the pod says so; else None."""
    security = pod.spec.security_context
    general = security.run_as_user if security is not None else None
    users = set()
    for container in (*(pod.spec.init_containers or ()), *pod.spec.containers):
        own = container.security_context
        users.add(general if own is None or own.run_as_user is None else own.run_as_user)
    return users.pop() if len(users) == 1 else None


def _clean_path(path: str) -> str:
    """A path in its shortest form. Raises `_Refused` when it is none, or leads out."""
    if "/" not in path and path and path[0] != "." and len(path) < 64 and "\0" not in path:
        return path
    why = _find_fault(path)
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not why and not parts:
        why = "must name a file"
    elif not why and parts[0].startswith(".."):
        why = "must not start with '..'"  # the names of the atomic writer itself
    if why:
        raise _Refused(f"invalid path: {why}: {path!r}", "correct the path or the key")
    return "/".join(parts)


def _find_fault(path: str) -> str:
    if not path:
        return "must not be empty"
    if path.startswith("/"):
        return "must be relative path"
    if "\0" in path:
        return "must not contain NUL"
    if len(path) > MAX_PATH_CHARS:
        return f"must be less than or equal to {MAX_PATH_CHARS} characters"
    parts = path.split("/")
    if ".." in parts:
        return "must not contain '..'"
    if any(len(part.encode()) > MAX_NAME_BYTES for part in parts):
        return f"filenames must be less than or equal to {MAX_NAME_BYTES} bytes"
    return ""


def _find_clash(files: Mapping[str, PayloadFile]) -> Missing | None:
    """A path that would have to be a file and a directory at once."""
    for path in files:
        parent = path
        while "/" in parent:
            parent = parent.rpartition("/")[0]
            if parent in files:
                return Missing(
                    f"invalid path: {parent!r} is a file and cannot hold {path!r}",
                    "give one of the two another path",
                )
    return None


def _seal(files: Mapping[str, PayloadFile], uid: str) -> Payload:
    ordered = tuple(files[path] for path in sorted(files))
    # Keyed, so that equal contents of two pods do not show as equal. Lengths keep parts apart.
    digest = blake2b(digest_size=16, key=uid.encode()[:64])
    for file in ordered:
        path = file.path.encode()
        owner = -1 if file.uid is None else file.uid
        digest.update(b"%d %d %o %d\n" % (len(path), len(file.content), file.mode, owner))
        digest.update(path)
        digest.update(file.content)
    return Payload(ordered, digest.hexdigest())
