"""What pods must be: each rule with the field and the words that users see."""

from typing import Any

import pytest

from volagent.objects.field_errors import InvalidObject, MalformedObject
from volagent.objects.validate import prepare_create


def make_pod(*, mounts: Any = (), container: Any = None, **spec: Any) -> dict[str, Any]:
    main = {"name": "main", "image": "busybox:1.36", **(container or {})}
    if mounts:
        main["volumeMounts"] = list(mounts)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web", "namespace": "default", "uid": "u"},
        "spec": {"containers": [main], **spec},
    }


def with_volume(**source: Any) -> dict[str, Any]:
    return make_pod(volumes=[{"name": "v", **source}])


def refuse(pod: dict[str, Any]) -> dict[str, str]:
    """Field → message of everything that is wrong."""
    with pytest.raises(InvalidObject) as caught:
        prepare_create("Pod", pod)
    return {error.field: error.message for error in caught.value.errors}


VOLUME = "spec.volumes[0]"
ISCSI = {"targetPortal": "10.0.0.5", "iqn": "iqn.2026-01.lab:array", "lun": 1}
KNOWN = (
    "awsElasticBlockStore, configMap, csi, downwardAPI, emptyDir, ephemeral, hostPath, iscsi, nfs,"
    " persistentVolumeClaim, projected, secret"
)


@pytest.mark.parametrize(
    ("source", "field", "message"),
    [
        (
            {"rbd": {"monitors": ["x"]}}, f"{VOLUME}.rbd",
            f"Forbidden: volagent has no driver for it yet; it has {KNOWN}",
        ),
        (
            {"emptydir": {}}, f"{VOLUME}.emptydir",
            f"Forbidden: unknown kind of volume; it has {KNOWN}",
        ),
        (
            {"emptyDir": {}, "secret": {"secretName": "s"}}, f"{VOLUME}.secret",
            "Forbidden: may not specify more than 1 volume type",
        ),
        ({"emptyDir": {"medium": "Disk"}}, f"{VOLUME}.emptyDir.medium", "Unsupported value"),
        (
            {"emptyDir": {"sizeLimit": "-1Gi"}}, f"{VOLUME}.emptyDir.sizeLimit",
            'Invalid value: "-1Gi": must be greater than or equal to 0',
        ),
        ({"hostPath": {}}, f"{VOLUME}.hostPath.path", "Required value"),
        (
            {"hostPath": {"path": "/a/../b"}}, f"{VOLUME}.hostPath.path",
            'Invalid value: "/a/../b": must not contain \'..\'',
        ),
        (
            {"hostPath": {"path": "a"}}, f"{VOLUME}.hostPath.path",
            'Invalid value: "a": must be an absolute path',
        ),
        ({"hostPath": {"path": "/a", "type": "Dir"}}, f"{VOLUME}.hostPath.type", "Unsupported"),
        ({"secret": {}}, f"{VOLUME}.secret.secretName", "Required value"),
        (
            {"secret": {"secretName": "s", "defaultMode": 512}}, f"{VOLUME}.secret.defaultMode",
            "Invalid value: 512: must be a number between 0 and 0777 (octal), both inclusive",
        ),
        (
            {"secret": {"secretName": "s", "items": [{"key": "k", "path": "/p"}]}},
            f"{VOLUME}.secret.items[0].path", 'Invalid value: "/p": must be a relative path',
        ),
        (
            {"secret": {"secretName": "s", "items": [{"key": "k", "path": "..data"}]}},
            f"{VOLUME}.secret.items[0].path", "must not start with '..'",
        ),
        (
            {"configMap": {"name": "c", "items": [{"key": "k", "path": "p", "mode": -1}]}},
            f"{VOLUME}.configMap.items[0].mode", "Invalid value: -1",
        ),
        (
            {"configMap": {"name": "c", "items": [{"path": "p"}]}},
            f"{VOLUME}.configMap.items[0].key", "Required value",
        ),
        ({"configMap": {}}, f"{VOLUME}.configMap.name", "Required value"),
        (
            {"downwardAPI": {"items": [{"path": "p"}]}}, f"{VOLUME}.downwardAPI.items[0].fieldRef",
            "Required value: one of fieldRef and resourceFieldRef is required",
        ),
        (
            {"downwardAPI": {"items": [{"path": "p", "fieldRef": {"fieldPath": "spec.x"}}]}},
            f"{VOLUME}.downwardAPI.items[0].fieldRef.fieldPath", 'Unsupported value: "spec.x"',
        ),
        (
            {"downwardAPI": {"items": [
                {"path": "p", "resourceFieldRef": {"resource": "limits.cpu"}}]}},
            f"{VOLUME}.downwardAPI.items[0].resourceFieldRef.containerName", "Required value",
        ),
        (
            {"projected": {"sources": [{}]}}, f"{VOLUME}.projected.sources[0]", "Required value",
        ),
        (
            {"projected": {"sources": [
                {"serviceAccountToken": {"path": "t", "expirationSeconds": 60}}]}},
            f"{VOLUME}.projected.sources[0].serviceAccountToken.expirationSeconds",
            "may not specify a duration less than 10 minutes",
        ),
        (
            {"projected": {"sources": [
                {"secret": {"name": "a", "items": [{"key": "k", "path": "p"}]}},
                {"secret": {"name": "b", "items": [{"key": "k", "path": "p"}]}}]}},
            f"{VOLUME}.projected.sources[1]", "conflicting duplicate paths",
        ),
        (
            {"awsElasticBlockStore": {"volumeID": "vol-0001", "partition": 256}},
            f"{VOLUME}.awsElasticBlockStore.partition", "must be between 0 and 255, inclusive",
        ),
        (
            {"awsElasticBlockStore": {"volumeID": ""}},
            f"{VOLUME}.awsElasticBlockStore.volumeID", "Required value",
        ),
        ({"iscsi": ISCSI | {"targetPortal": ""}}, f"{VOLUME}.iscsi.targetPortal", "Required value"),
        ({"iscsi": ISCSI | {"iqn": ""}}, f"{VOLUME}.iscsi.iqn", "Required value"),
        (
            {"iscsi": ISCSI | {"iqn": "wwn.1"}}, f"{VOLUME}.iscsi.iqn",
            "must be valid format starting with iqn, eui, or naa",
        ),
        ({"iscsi": ISCSI | {"iqn": "iqn.2026-01.lab"}}, f"{VOLUME}.iscsi.iqn", "valid format"),
        ({"iscsi": ISCSI | {"iqn": "eui.123"}}, f"{VOLUME}.iscsi.iqn", "must be valid format"),
        (
            {"iscsi": ISCSI | {"lun": 256}}, f"{VOLUME}.iscsi.lun",
            "Invalid value: 256: must be between 0 and 255, inclusive",
        ),
        (
            {"iscsi": ISCSI | {"chapAuthSession": True}}, f"{VOLUME}.iscsi.secretRef",
            "Required value",
        ),
        (
            {"iscsi": ISCSI | {"initiatorName": "me"}}, f"{VOLUME}.iscsi.initiatorname",
            "must be valid format starting with iqn, eui, or naa",
        ),
        ({"nfs": {"server": "s", "path": "x"}}, f"{VOLUME}.nfs.path", "must be an absolute path"),
        ({"nfs": {"server": "", "path": "/x"}}, f"{VOLUME}.nfs.server", "Required value"),
        ({"nfs": {"server": "a b", "path": "/x"}}, f"{VOLUME}.nfs.server", "Invalid value"),
        ({"csi": {"driver": "a_b"}}, f"{VOLUME}.csi.driver", "RFC 1123 subdomain"),
        ({"persistentVolumeClaim": {}}, f"{VOLUME}.persistentVolumeClaim.claimName", "Required"),
    ],
)  # fmt: skip
def test_volume_is_refused_when_its_source_breaks_a_rule(
    source: dict[str, Any], field: str, message: str
) -> None:
    errors = refuse(with_volume(**source))
    assert list(errors) == [field]
    assert message in errors[field]


def two_volumes() -> list[dict[str, Any]]:
    return [
        {"name": "v", "emptyDir": {}},
        {"name": "c", "persistentVolumeClaim": {"claimName": "c"}},
    ]


MOUNT = "spec.containers[0].volumeMounts[0]"


@pytest.mark.parametrize(
    ("mount", "field", "message"),
    [
        ({"name": "x", "mountPath": "/a"}, f"{MOUNT}.name", 'Not found: "x"'),
        ({"name": "v"}, f"{MOUNT}.mountPath", "Required value"),
        ({"name": "v", "mountPath": "/a:b"}, f"{MOUNT}.mountPath", "must not contain ':'"),
        ({"name": "v", "mountPath": "/a/../b"}, f"{MOUNT}.mountPath", "must not contain '..'"),
        ({"name": "v", "mountPath": "/a", "subPath": "/x"}, f"{MOUNT}.subPath", "relative path"),
        ({"name": "v", "mountPath": "/a", "subPath": "x/.."}, f"{MOUNT}.subPath", "'..'"),
        (
            {"name": "v", "mountPath": "/a", "subPath": "x", "subPathExpr": "y"},
            f"{MOUNT}.subPathExpr", "subPathExpr and subPath are mutually exclusive",
        ),
        (
            {"name": "v", "mountPath": "/a", "mountPropagation": "Shared"},
            f"{MOUNT}.mountPropagation", 'Unsupported value: "Shared"',
        ),
        (
            {"name": "v", "mountPath": "/a", "mountPropagation": "Bidirectional"},
            f"{MOUNT}.mountPropagation",
            "Forbidden: Bidirectional mount propagation is available only to privileged containers",
        ),
        (
            {"name": "v", "mountPath": "/a", "recursiveReadOnly": "Enabled"},
            f"{MOUNT}.recursiveReadOnly",
            "Forbidden: may only be specified when readOnly is true",
        ),
    ],
)  # fmt: skip
def test_mount_is_refused_when_it_breaks_a_rule(
    mount: dict[str, Any], field: str, message: str
) -> None:
    errors = refuse(make_pod(mounts=[mount], volumes=two_volumes()))
    assert list(errors) == [field]
    assert message in errors[field]


def test_mounts_are_refused_when_they_share_a_path() -> None:
    mounts = [{"name": "v", "mountPath": "/a"}, {"name": "v", "mountPath": "/a/"}]
    errors = refuse(make_pod(mounts=mounts, volumes=two_volumes()))
    field = "spec.containers[0].volumeMounts[1].mountPath"
    assert errors == {field: 'Invalid value: "/a/": must be unique'}


def test_bidirectional_mount_is_accepted_when_the_container_is_privileged() -> None:
    mount = {"name": "v", "mountPath": "/a", "mountPropagation": "Bidirectional"}
    container = {"securityContext": {"privileged": True}}
    prepare_create("Pod", make_pod(mounts=[mount], container=container, volumes=two_volumes()))


@pytest.mark.parametrize(
    ("device", "field", "message"),
    [
        ({"name": "v", "devicePath": "/dev/x"}, "name", "PersistentVolumeClaim"),
        ({"name": "y", "devicePath": "/dev/x"}, "name", "Not found"),
        ({"name": "c"}, "devicePath", "Required value"),
        ({"name": "c", "devicePath": "/dev/../x"}, "devicePath", "'..'"),
    ],
)
def test_device_is_refused_when_it_breaks_a_rule(
    device: dict[str, Any], field: str, message: str
) -> None:
    pod = make_pod(container={"volumeDevices": [device]}, volumes=two_volumes())
    assert message in refuse(pod)[f"spec.containers[0].volumeDevices[0].{field}"]


def test_claim_is_refused_when_it_is_device_and_mount_at_once() -> None:
    container = {"volumeDevices": [{"name": "c", "devicePath": "/x"}]}
    mounts = [{"name": "c", "mountPath": "/x"}]
    errors = refuse(make_pod(mounts=mounts, container=container, volumes=two_volumes()))
    assert "must not already exist in volumeDevices" in errors[f"{MOUNT}.name"]
    assert "must not already exist as a path in volumeDevices" in errors[f"{MOUNT}.mountPath"]


@pytest.mark.parametrize(
    ("pod", "field", "message"),
    [
        ({**make_pod(), "spec": {"containers": []}}, "spec.containers", "Required value"),
        (
            make_pod(initContainers=[{"name": "main", "image": "x"}]),
            "spec.containers[0].name", "Duplicate",
        ),
        (make_pod(container={"name": ""}), "spec.containers[0].name", "Required value"),
        (make_pod(container={"name": "a/b"}), "spec.containers[0].name", "RFC 1123 label"),
        (make_pod(container={"image": ""}), "spec.containers[0].image", "Required value"),
        (
            make_pod(container={"imagePullPolicy": "Sometimes"}),
            "spec.containers[0].imagePullPolicy", "Unsupported value",
        ),
        (make_pod(container={"env": [{"name": "a=b"}]}), "spec.containers[0].env[0].name", "'='"),
        (
            make_pod(container={"env": [{"name": "a", "value": "x", "valueFrom": {
                "fieldRef": {"fieldPath": "metadata.name"}}}]}),
            "spec.containers[0].env[0].valueFrom", "may not be specified when `value`",
        ),
        (
            make_pod(container={"resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}}),
            "spec.containers[0].resources.requests", "must be less than or equal to cpu limit of 1",
        ),
        (make_pod(restartPolicy="Sometimes"), "spec.restartPolicy", "Unsupported value"),
        (
            make_pod(terminationGracePeriodSeconds=-1), "spec.terminationGracePeriodSeconds",
            "must be greater than or equal to 0",
        ),
        (make_pod(securityContext={"fsGroup": -1}), "spec.securityContext.fsGroup", "2147483647"),
        (
            make_pod(securityContext={"fsGroup": 2**31}), "spec.securityContext.fsGroup",
            "must be between 0 and 2147483647, inclusive",
        ),
        (
            make_pod(securityContext={"fsGroupChangePolicy": "Never"}),
            "spec.securityContext.fsGroupChangePolicy", "Unsupported value",
        ),
        (
            make_pod(securityContext={"supplementalGroups": [1, -2]}),
            "spec.securityContext.supplementalGroups[1]", "Invalid value: -2",
        ),
        (make_pod(activeDeadlineSeconds=0), "spec.activeDeadlineSeconds", "between 1 and"),
        (make_pod(hostname="a.b"), "spec.hostname", "RFC 1123 label"),
    ],
)  # fmt: skip
def test_pod_is_refused_when_it_breaks_a_rule(
    pod: dict[str, Any], field: str, message: str
) -> None:
    errors = refuse(pod)
    assert list(errors) == [field]
    assert message in errors[field]


@pytest.mark.parametrize(
    ("metadata", "field", "message"),
    [
        ({"name": ""}, "metadata.name", "Required value"),
        ({"name": "Web"}, "metadata.name", "RFC 1123 subdomain"),
        ({"labels": {"a b": "c"}}, "metadata.labels", "name part must consist of"),
        ({"labels": {"a": "b c"}}, "metadata.labels", "a valid label must be an empty string"),
        ({"labels": {"/x": "y"}}, "metadata.labels", "prefix part must be non-empty"),
        ({"annotations": {"a": "x" * 300_000}}, "metadata.annotations", "Too long: "),
        ({"finalizers": ["mine"]}, "metadata.finalizers[0]", "fully qualified"),
        (
            {"ownerReferences": [{"apiVersion": "v1", "kind": "X", "name": "n"}]},
            "metadata.ownerReferences[0].uid", "must not be empty",
        ),
    ],
)  # fmt: skip
def test_metadata_is_refused_when_it_breaks_a_rule(
    metadata: dict[str, Any], field: str, message: str
) -> None:
    pod = make_pod()
    pod["metadata"] |= metadata
    errors = refuse(pod)
    assert list(errors) == [field]
    assert message in errors[field]


def test_every_broken_rule_is_listed_when_there_are_several() -> None:
    pod = make_pod(volumes=[{"name": "A"}], restartPolicy="x")
    with pytest.raises(InvalidObject) as caught:
        prepare_create("Pod", pod)
    text = str(caught.value)
    assert text.startswith('Pod "web" is invalid: [spec.volumes[0].name: Invalid value: "A": ')
    assert 'spec.restartPolicy: Unsupported value: "x"' in text


def test_quantity_is_malformed_when_it_cannot_be_read() -> None:
    for text in ("lots", "1GiB", "9" * 5000, ""):
        with pytest.raises(MalformedObject) as caught:
            prepare_create("Pod", with_volume(emptyDir={"sizeLimit": text}))
        assert caught.value.field == "spec.volumes[0].emptyDir.sizeLimit"
