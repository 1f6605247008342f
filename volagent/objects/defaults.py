"""What Kubernetes fills in when a manifest is silent.

Source: Kubernetes `pkg/apis/core/v1/defaults.go` and its admission plugins, as far as volagent acts
on the fields. Every function returns a new document that shares what it did not change; the given
one, already validated, is never written to.
"""

from binascii import b2a_base64
from collections.abc import Callable, Mapping
from typing import Any

from volagent.objects.meta import Document
from volagent.objects.quantities import canonical_amounts, canonical_text

PAYLOAD_MODE = 0o644
"""`defaultMode` of secret, configMap, downwardAPI and projected volumes."""
GRACE_S = 30
TOKEN_LIFE_S = 3600
_OLD_SOURCES = {("", "PersistentVolumeClaim"), ("snapshot.storage.k8s.io", "VolumeSnapshot")}
"""What `dataSource` of a claim may name; `dataSourceRef` may name anything."""


def default_pod(document: Document) -> Document:
    """A Pod with its defaults."""
    given = document["spec"]
    account = given.get("serviceAccountName") or given.get("serviceAccount") or "default"
    spec: Document = {
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": GRACE_S,
        "dnsPolicy": "ClusterFirst",
        "schedulerName": "default-scheduler",
        "enableServiceLinks": True,
        "securityContext": {},
        **given,
        "serviceAccountName": account,
        "serviceAccount": account,
    }
    for group in ("containers", "initContainers"):
        if group in given:
            spec[group] = [_default_container(container) for container in given[group]]
    if "volumes" in given:
        spec["volumes"] = [_default_volume(volume) for volume in given["volumes"]]
    return {**document, "spec": spec}


def _default_container(given: Document) -> Document:
    container: Document = {"imagePullPolicy": _pull_policy(given["image"]), **given}
    if not container["imagePullPolicy"]:
        container["imagePullPolicy"] = _pull_policy(given["image"])
    if given.get("resources"):
        container["resources"] = _default_resources(given["resources"])
    if given.get("ports"):
        container["ports"] = [{"protocol": "TCP", **port} for port in given["ports"]]
    if given.get("env"):
        container["env"] = [_default_variable(variable) for variable in given["env"]]
    return container


def _pull_policy(image: str) -> str:
    """`Always` for a tag that moves: `latest`, or none at all."""
    name, digest, _ = image.partition("@")
    tag = name.rpartition("/")[2].partition(":")[2]
    return "IfNotPresent" if digest or tag not in ("", "latest") else "Always"


def _default_resources(given: Document) -> Document:
    """Canonical amounts; what has a limit and no request requests its limit."""
    resources = {**given}
    for group in ("limits", "requests"):
        if given.get(group):
            resources[group] = canonical_amounts(given[group])
    if given.get("limits"):
        resources["requests"] = {**resources["limits"], **(resources.get("requests") or {})}
    return resources


def _default_variable(given: Document) -> Document:
    source = given.get("valueFrom")
    if not source or "fieldRef" not in source:
        return given
    return {**given, "valueFrom": {**source, "fieldRef": _default_field_ref(source["fieldRef"])}}


def _default_field_ref(given: Document) -> Document:
    return given if given.get("apiVersion") else {**given, "apiVersion": "v1"}


def _default_volume(given: Document) -> Document:
    for kind, source in given.items():
        default = _VOLUME_DEFAULTS.get(kind)
        if default is not None and source is not None:
            filled = default(source)
            return given if filled is source else {**given, kind: filled}
    if len(given) == 1:
        return {**given, "emptyDir": {}}
    return given


def _default_mode(source: Document) -> Document:
    return source if "defaultMode" in source else {**source, "defaultMode": PAYLOAD_MODE}


def _default_host_path(source: Document) -> Document:
    return source if "type" in source else {**source, "type": ""}


def _default_iscsi(source: Document) -> Document:
    return {**source, "iscsiInterface": source.get("iscsiInterface") or "default"}


def _default_empty_dir(source: Document) -> Document:
    limit = source.get("sizeLimit")
    if limit is None:
        return source
    return {**source, "sizeLimit": canonical_text(str(limit))}


def _default_downward(source: Document) -> Document:
    source = _default_mode(source)
    if not source.get("items"):
        return source
    return {**source, "items": [_default_downward_item(item) for item in source["items"]]}


def _default_downward_item(given: Document) -> Document:
    if "fieldRef" not in given:
        return given
    return {**given, "fieldRef": _default_field_ref(given["fieldRef"])}


def _default_projected(source: Document) -> Document:
    source = _default_mode(source)
    if not source.get("sources"):
        return source
    return {**source, "sources": [_default_projection(given) for given in source["sources"]]}


def _default_projection(given: Document) -> Document:
    token, downward = given.get("serviceAccountToken"), given.get("downwardAPI")
    if token is not None and token.get("expirationSeconds") is None:
        return {**given, "serviceAccountToken": {**token, "expirationSeconds": TOKEN_LIFE_S}}
    if downward is not None and downward.get("items"):
        items = [_default_downward_item(item) for item in downward["items"]]
        return {**given, "downwardAPI": {**downward, "items": items}}
    return given


_VOLUME_DEFAULTS: Mapping[str, Callable[[Document], Document]] = {
    "emptyDir": _default_empty_dir,
    "hostPath": _default_host_path,
    "iscsi": _default_iscsi,
    "secret": _default_mode,
    "configMap": _default_mode,
    "downwardAPI": _default_downward,
    "projected": _default_projected,
}


def default_volume(document: Document) -> Document:
    """A PersistentVolume with its defaults."""
    given = document["spec"]
    spec: Document = {
        "persistentVolumeReclaimPolicy": "Retain",
        "volumeMode": "Filesystem",
        **given,
        "capacity": canonical_amounts(given["capacity"]),
    }
    if given.get("hostPath"):
        spec["hostPath"] = _default_host_path(given["hostPath"])
    if given.get("iscsi"):
        spec["iscsi"] = _default_iscsi(given["iscsi"])
    return {**document, "spec": spec}


def default_claim(document: Document) -> Document:
    """A PersistentVolumeClaim with its defaults."""
    given = document["spec"]
    resources = {**given["resources"]}
    for group in ("limits", "requests"):
        if resources.get(group):
            resources[group] = canonical_amounts(resources[group])
    spec = {"volumeMode": "Filesystem", **given, "resources": resources}
    if "dataSource" in given or "dataSourceRef" in given:
        _match_sources(spec)
    return {**document, "spec": spec}


def _match_sources(spec: Document) -> None:
    """The older of the two fields that name a claim's source mirrors the newer, where it can."""
    source, reference = spec.get("dataSource"), spec.get("dataSourceRef")
    if source and not reference:
        spec["dataSourceRef"] = source
    elif reference and not source and not reference.get("namespace"):
        kind = (reference.get("apiGroup") or "", reference["kind"])
        if kind in _OLD_SOURCES:
            spec["dataSource"] = reference


def default_secret(document: Document) -> Document:
    """A Secret with its type, and with `stringData` (write-only) moved into `data`."""
    secret: Document = {"type": "Opaque", **document}
    texts: Mapping[str, Any] | None = secret.pop("stringData", None)
    if texts:
        encoded = {key: encode_text(text) for key, text in texts.items()}
        secret["data"] = {**(secret.get("data") or {}), **encoded}
    return secret


def encode_text(text: str) -> str:
    """A text as base64."""
    return b2a_base64(text.encode(), newline=False).decode()


def default_node(document: Document) -> Document:
    """A Node; what is allocatable is what there is, unless it says otherwise."""
    status = document.get("status") or {}
    if not status.get("capacity"):
        return document
    capacity = canonical_amounts(status["capacity"])
    allocatable = canonical_amounts(status.get("allocatable") or capacity)
    return {**document, "status": {**status, "capacity": capacity, "allocatable": allocatable}}


def keep(document: Document) -> Document:
    """A kind without defaults."""
    return document
