"""What a pod's silence means, and what may change in it later."""

from typing import Any

import pytest

from tests.unit.objects.test_pod_rules import ISCSI, make_pod, with_volume
from volagent.objects.field_errors import InvalidObject, MalformedObject
from volagent.objects.validate import prepare_create, prepare_update

# --- defaults


def test_defaults_are_kubernetes_when_the_manifest_is_silent() -> None:
    pod = with_volume(secret={"secretName": "s"})
    pod["spec"]["volumes"] += [
        {"name": "h", "hostPath": {"path": "/x"}},
        {"name": "n"},
        {"name": "i", "iscsi": ISCSI},
        {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
    ]
    spec = prepare_create("Pod", pod)["spec"]
    assert spec["restartPolicy"] == "Always"
    assert spec["terminationGracePeriodSeconds"] == 30
    assert spec["dnsPolicy"] == "ClusterFirst"
    assert spec["serviceAccountName"] == "default"
    assert spec["securityContext"] == {}
    secret, host, nothing, disk, token = spec["volumes"]
    assert secret["secret"] == {"secretName": "s", "defaultMode": 0o644}
    assert host["hostPath"] == {"path": "/x", "type": ""}
    assert nothing == {"name": "n", "emptyDir": {}}
    assert disk["iscsi"] == ISCSI | {"iscsiInterface": "default"}
    assert token["projected"] == {
        "defaultMode": 0o644,
        "sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 3600}}],
    }


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("busybox", "Always"),
        ("busybox:latest", "Always"),
        ("busybox:1", "IfNotPresent"),
        ("registry:5000/busybox", "Always"),
        ("registry:5000/busybox:1", "IfNotPresent"),
        ("busybox@sha256:abc", "IfNotPresent"),
    ],
)
def test_pull_policy_follows_the_tag(image: str, policy: str) -> None:
    pod = prepare_create("Pod", make_pod(container={"image": image}))
    assert pod["spec"]["containers"][0]["imagePullPolicy"] == policy


def test_requests_follow_limits_and_amounts_are_canonical() -> None:
    resources = {"limits": {"cpu": 1.5, "memory": "1024Mi"}, "requests": {"cpu": "100m"}}
    pod = prepare_create("Pod", make_pod(container={"resources": resources}))
    assert pod["spec"]["containers"][0]["resources"] == {
        "limits": {"cpu": "1500m", "memory": "1Gi"},
        "requests": {"cpu": "100m", "memory": "1Gi"},
    }


def test_given_document_is_not_written_to() -> None:
    import copy

    pod = with_volume(secret={"secretName": "s"})
    before = copy.deepcopy(pod)
    prepared = prepare_create("Pod", pod)
    assert pod == before
    assert prepared != before


def test_defaults_change_nothing_when_applied_again() -> None:
    pod = prepare_create("Pod", with_volume(downwardAPI={"items": [
        {"path": "p", "fieldRef": {"fieldPath": "metadata.labels['a']"}}]}))  # fmt: skip
    assert prepare_create("Pod", pod) == pod
    assert prepare_update("Pod", pod, pod) == pod


# --- changes


def change(**spec: Any) -> dict[str, Any]:
    old = prepare_create("Pod", make_pod())
    return prepare_update("Pod", old, {**old, "spec": {**old["spec"], **spec}})


def test_image_and_deadline_and_tolerations_may_change() -> None:
    new = change(
        containers=[{"name": "main", "image": "other:2", "imagePullPolicy": "IfNotPresent"}],
        activeDeadlineSeconds=5,
        tolerations=[{"key": "a"}],
        nodeName="vm-1",
    )
    assert new["spec"]["containers"][0]["image"] == "other:2"


@pytest.mark.parametrize(
    "spec",
    [
        {"hostname": "x"},
        {"volumes": [{"name": "v", "emptyDir": {}}]},
        {"terminationGracePeriodSeconds": 5},
        {"containers": [{"name": "other", "image": "busybox:1.36"}]},
    ],
)
def test_rest_of_the_spec_may_not_change(spec: dict[str, Any]) -> None:
    with pytest.raises(InvalidObject, match="pod updates may not change fields other than") as info:
        change(**spec)
    assert info.value.errors[0].field == "spec"
    assert f"spec.{next(iter(spec))}" in info.value.errors[0].message


def test_node_is_kept_when_left_out_and_refused_when_changed() -> None:
    old = prepare_create("Pod", make_pod(nodeName="vm-1"))
    silent = {**old, "spec": {k: v for k, v in old["spec"].items() if k != "nodeName"}}
    assert prepare_update("Pod", old, silent)["spec"]["nodeName"] == "vm-1"
    with pytest.raises(InvalidObject, match=r"spec\.nodeName"):
        prepare_update("Pod", old, {**old, "spec": {**old["spec"], "nodeName": "vm-2"}})


def test_toleration_may_not_be_taken_away() -> None:
    old = prepare_create("Pod", make_pod(tolerations=[{"key": "a"}]))
    with pytest.raises(InvalidObject, match=r"spec\.tolerations"):
        prepare_update("Pod", old, {**old, "spec": {**old["spec"], "tolerations": []}})


def test_status_is_checked_for_types_when_it_changes_alone() -> None:
    old = prepare_create("Pod", make_pod())
    good = {**old, "status": {"phase": "Running", "podIP": "1.2.3.4"}}
    assert prepare_update("Pod", old, good, subresource="status") == good
    with pytest.raises(MalformedObject, match=r"status\.phase: expected string, got integer"):
        prepare_update("Pod", old, {**old, "status": {"phase": 5}}, subresource="status")
