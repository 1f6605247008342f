"""The words of the status."""

import pytest

from tests.unit.runtime.pod_making import (
    UID,
    created,
    ended,
    make_container,
    make_pod,
    make_specs,
    running,
)
from volagent.runtime.contract import SpecError
from volagent.runtime.lifecycle import decide
from volagent.runtime.memory import PodMemory
from volagent.runtime.status import carried_status, summarise


def summary(pod, observed, memory=None, now_s=100.0, specs=None):
    return summarise(
        pod, observed, make_specs(pod) if specs is None else specs, memory or PodMemory(),
        runtime="podman", now_s=now_s,
    )  # fmt: skip


def shown(status, name="main", key="containerStatuses"):
    return next(entry for entry in status[key] if entry["name"] == name)


def test_running_container_is_ready_and_named_with_its_runtime():
    entry = shown(summary(make_pod(make_container()), [running(attempt=2)]))
    assert entry == {
        "name": "main",
        "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
        "lastState": {},
        "ready": True,
        "restartCount": 2,
        "image": "app:1",
        "imageID": "",
        "containerID": "podman://main-2",
        "started": True,
    }


def test_attempt_before_is_the_last_state():
    entry = shown(
        summary(make_pod(make_container()), [ended(exit_code=7, attempt=1), running(attempt=2)])
    )
    assert entry["lastState"] == {
        "terminated": {
            "exitCode": 7,
            "reason": "Error",
            "startedAt": "2026-01-01T00:00:00Z",
            "finishedAt": "2026-01-01T00:00:01Z",
            "containerID": "podman://main-1",
        }
    }


def test_container_that_was_killed_for_its_memory_says_so():
    pod = make_pod(make_container(), restartPolicy="Never")
    entry = shown(summary(pod, [ended(exit_code=137, out_of_memory=True)]))
    assert entry["state"]["terminated"]["reason"] == "OOMKilled"


@pytest.mark.parametrize(
    ("policy", "observed", "phase"),
    [
        ("Always", [], "Pending"),
        ("Always", [created("a"), created("b")], "Pending"),
        ("Always", [running("a")], "Pending"),
        ("Always", [running("a"), running("b")], "Running"),
        ("Always", [ended("a"), running("b")], "Running"),
        ("Always", [ended("a"), ended("b")], "Running"),
        ("OnFailure", [ended("a"), ended("b")], "Succeeded"),
        ("OnFailure", [ended("a"), ended("b", exit_code=1)], "Running"),
        ("Never", [ended("a"), ended("b")], "Succeeded"),
        ("Never", [ended("a"), ended("b", exit_code=1)], "Failed"),
        ("Never", [ended("a", exit_code=1), running("b")], "Running"),
    ],
)
def test_phase_follows_from_containers_and_policy(policy, observed, phase):
    pod = make_pod(make_container("a"), make_container("b"), restartPolicy=policy)
    assert summary(pod, observed)["phase"] == phase


def test_phase_stays_once_the_pod_has_finished():
    pod = make_pod(make_container(), restartPolicy="Never", status={"phase": "Failed"})
    assert summary(pod, [])["phase"] == "Failed"


def test_unready_containers_are_named_in_the_conditions():
    pod = make_pod(make_container("a"), make_container("b"), make_container("c"))
    assert summary(pod, [running("b")])["conditions"] == [
        {"type": "Initialized", "status": "True"},
        {
            "type": "ContainersReady",
            "status": "False",
            "reason": "ContainersNotReady",
            "message": "containers with unready status: [a c]",
        },
        {
            "type": "Ready",
            "status": "False",
            "reason": "ContainersNotReady",
            "message": "containers with unready status: [a c]",
        },
    ]


def test_succeeded_pod_is_not_ready_because_it_is_completed():
    pod = make_pod(make_container(), restartPolicy="Never")
    conditions = summary(pod, [ended()])["conditions"]
    assert {c["type"]: (c["status"], c["reason"]) for c in conditions} == {
        "Initialized": ("True", "PodCompleted"),
        "ContainersReady": ("False", "PodCompleted"),
        "Ready": ("False", "PodCompleted"),
    }  # fmt: skip


def test_waiting_says_what_it_waits_for_during_initialization():
    pod = make_pod(make_container(), init=[make_container("i"), make_container("j")])
    status = summary(pod, [])
    reasons = {
        name: shown(status, name, key)["state"]["waiting"]["reason"]
        for name, key in (
            ("i", "initContainerStatuses"), ("j", "initContainerStatuses"),
            ("main", "containerStatuses"),
        )
    }  # fmt: skip
    assert reasons == {"i": "ContainerCreating", "j": "PodInitializing", "main": "PodInitializing"}
    assert status["phase"] == "Pending"
    assert status["conditions"][0] == {
        "type": "Initialized",
        "status": "False",
        "reason": "ContainersNotInitialized",
        "message": "containers with incomplete status: [i j]",
    }


def test_spec_in_error_is_the_reason_for_waiting():
    pod = make_pod(make_container())
    error = SpecError("main.env[X]", 'secret "s" not found')
    waiting = shown(summary(pod, [], specs={"main": error}))["state"]["waiting"]
    assert waiting == {
        "reason": "CreateContainerConfigError",
        "message": 'main.env[X]: secret "s" not found',
    }


def test_failed_pull_is_an_error_first_and_a_back_off_then():
    pod = make_pod(make_container())
    memory = PodMemory().with_failure(make_specs(pod)["main"], "ErrImagePull", "no route", 100.0)
    assert shown(summary(pod, [], memory, 100.0))["state"]["waiting"] == {
        "reason": "ErrImagePull", "message": "no route",
    }  # fmt: skip
    assert shown(summary(pod, [], memory, 101.0))["state"]["waiting"] == {
        "reason": "ImagePullBackOff",
        "message": 'Back-off pulling image "app:1": no route',
    }


def test_restart_that_waits_is_a_crash_loop():
    pod = make_pod(make_container())
    observed = [ended(exit_code=1, attempt=4)]
    memory = decide(pod, observed, make_specs(pod), PodMemory(), 100.0).memory
    entry = shown(summary(pod, observed, memory, 101.0))
    assert entry["state"]["waiting"] == {
        "reason": "CrashLoopBackOff",
        "message": f"back-off 1m20s restarting failed container=main pod=web_default({UID})",
    }
    assert entry["lastState"]["terminated"]["exitCode"] == 1
    assert entry["restartCount"] == 4
    assert summary(pod, observed, memory, 101.0)["phase"] == "Running"


def test_stored_status_is_carried_on_without_the_times_of_its_conditions():
    status = {
        "phase": "Running",
        "conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"},
            {"type": "PodScheduled", "status": "True"},
        ],
        "containerStatuses": [{"name": "main", "containerID": "podman://x", "restartCount": 3}],
        "startTime": "2026-01-01T00:00:00Z",
    }
    assert carried_status(make_pod(make_container(), status=status)) == {
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [{"name": "main", "containerID": "podman://x", "restartCount": 3}],
    }
