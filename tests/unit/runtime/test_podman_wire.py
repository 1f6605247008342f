from datetime import UTC, datetime

import pytest

from tests.unit.runtime.pod_making import REF, UID
from volagent.runtime.contract import (
    ContainerRejected,
    ContainerSpec,
    ContainerState,
    DeviceSpec,
    OciMount,
    SecurityOptions,
    Stage,
)
from volagent.runtime.podman_wire import choose_user, make_body, read_container, read_event

NEVER = -62135596800
"""Podman's "never": the year 1."""


def body_of(*, network="", user="", **fields):
    return make_body(REF, ContainerSpec("main", "app:1", **fields), 2, network, user)


def listed(**fields):
    return {
        "Id": "abc", "State": "running", "StartedAt": 1795413515, "ExitedAt": NEVER, "ExitCode": 0,
        "Image": "app:1", "ImageID": "sha", "Mounts": ["/data"],
        "Labels": {
            "volagent.dev/pod-uid": UID, "volagent.dev/pod-name": "web",
            "volagent.dev/pod-namespace": "default", "volagent.dev/container": "main",
            "volagent.dev/attempt": "2",
        },
        **fields,
    }  # fmt: skip


def test_container_is_named_and_labelled_for_its_pod():
    body = body_of()
    assert body["name"] == f"k8s_main_web_default_{UID}_2"
    assert body["labels"] == listed()["Labels"]
    assert body["restart_policy"] == "no"


def test_image_s_own_command_is_used_when_none_is_given():
    assert not {"entrypoint", "command"} & body_of().keys()
    body = body_of(command=("/run",), args=("a", "b"))
    assert (body["entrypoint"], body["command"]) == (["/run"], ["a", "b"])


def test_mounts_and_devices_are_handed_over():
    body = body_of(
        mounts=(OciMount("/d", "/s", ("rbind", "ro", "rslave")),),
        devices=(DeviceSpec("/dev/x", "/dev/loop1", "r"),),
    )
    assert body["mounts"] == [
        {"destination": "/d", "type": "bind", "source": "/s", "options": ["rbind", "ro", "rslave"]}
    ]
    assert body["devices"] == [{"path": "/dev/loop1:/dev/x:r"}]


@pytest.mark.parametrize(
    ("mode", "host", "expected"),
    [
        ("", False, {}),
        ("none", False, {"netns": {"nsmode": "none"}}),
        ("none", True, {"netns": {"nsmode": "host"}}),
        ("shop", False, {"netns": {"nsmode": "bridge"}, "networks": {"shop": {}}}),
    ],
)
def test_network_is_the_setting_s_unless_the_pod_is_on_the_host_s(mode, host, expected):
    body = body_of(network=mode, host_network=host)
    assert {key: body[key] for key in ("netns", "networks") if key in body} == expected


def test_limits_are_told_in_the_kernel_s_units():
    body = body_of(memory_limit_bytes=1 << 20, cpu_limit_millis=250)
    assert body["resource_limits"] == {
        "memory": {"limit": 1 << 20}, "cpu": {"period": 100_000, "quota": 25_000},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("security", "image_user", "user"),
    [
        (SecurityOptions(), "", ""),
        (SecurityOptions(uid=5), "", "5"),
        (SecurityOptions(uid=5, gid=6), "", "5:6"),
        (SecurityOptions(gid=6), "", "0:6"),
        (SecurityOptions(gid=6), "1000:1000", "1000:6"),
        (SecurityOptions(must_not_be_root=True), "1000:0", "1000"),
    ],
)
def test_user_is_the_declared_one_and_else_the_image_s(security, image_user, user):
    assert choose_user(ContainerSpec("main", "app:1", security=security), image_user) == user


@pytest.mark.parametrize(
    ("image_user", "message"), [("", "run as root"), ("0", "run as root"), ("www", "non-numeric")]
)
def test_user_is_refused_when_it_may_be_root_and_must_not(image_user, message):
    spec = ContainerSpec("main", "app:1", security=SecurityOptions(must_not_be_root=True))
    with pytest.raises(ContainerRejected, match=message):
        choose_user(spec, image_user)


def test_running_container_is_read():
    assert read_container(listed()) == ContainerState(
        "abc", REF, "main", 2, Stage.RUNNING,
        started_at=datetime(2026, 11, 23, 5, 58, 35, tzinfo=UTC),
        image="app:1", image_id="sha", mounts=("/data",),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("podman", "stage"),
    [
        ("paused", Stage.RUNNING), ("stopping", Stage.RUNNING), ("unknown", Stage.RUNNING),
        ("exited", Stage.EXITED), ("stopped", Stage.EXITED), ("removing", Stage.EXITED),
    ],
)  # fmt: skip
def test_state_that_may_hold_mounts_counts_as_running(podman, stage):
    assert read_container(listed(State=podman)).stage is stage


def test_container_that_never_started_is_created():
    state = read_container(listed(State="created", StartedAt=NEVER))
    assert (state.stage, state.exit_code, state.started_at) == (Stage.CREATED, None, None)


def test_container_that_went_down_with_the_machine_has_ended():
    state = read_container(listed(State="created"))
    assert (state.stage, state.exit_code) == (Stage.EXITED, 255)


@pytest.mark.parametrize(
    "labels",
    [
        None,
        {},
        {"volagent.dev/pod-uid": "x"},
        {**listed()["Labels"], "volagent.dev/attempt": "-"},
    ],
)
def test_container_without_our_labels_is_not_ours(labels):
    assert read_container(listed(Labels=labels)) is None


def test_event_tells_the_pod_by_the_container_s_labels():
    attributes = {"name": "x", "volagent.dev/pod-uid": UID}
    assert read_event({"Actor": {"Attributes": attributes}}) == UID
    assert read_event({"Actor": {"Attributes": {"name": "x"}}}) is None
    assert read_event({}) is None
