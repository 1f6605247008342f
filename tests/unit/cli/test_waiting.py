"""`apply --wait`, `delete` and `get --watch`: what is followed, and when it ends."""

import io
import threading

import pytest
from rich.console import Console

from volagent.cli.live import LiveScreen
from volagent.cli.progress import Verdict, judge
from volagent.cli.wait import FollowedPod, LineScreen

PODS = "/api/v1/namespaces/default/pods"
EXPLAIN = "/apis/node.volagent.dev/v1/explain/namespaces/default/pods/web"
POD = """
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  containers: [{name: c, image: x}]
  volumes: [{name: data, emptyDir: {}}]
"""
READY = {"type": "volagent.dev/VolumesReady", "status": "True"}


def _explanation(state, step_state, **more):
    volume = {"name": "data", "driver": "kubernetes.io/empty-dir", "state": state, **more}
    step = {"step": "publish", "volume": "data", "state": step_state, "tookMs": 1.25}
    return {"kind": "Explanation", "pod": "default/web", "steps": [step], "volumes": [volume]}


def _pod(**status):
    return {"metadata": {"name": "web", "namespace": "default"}, "status": status}


def _become_ready(daemon):
    """Answer the first question with `Working`, and be ready from then on."""

    def first(query, body):
        daemon.canned[("GET", EXPLAIN)] = (200, _explanation("Ready", "done", mounted="tmpfs"))
        stored = daemon.objects[f"{PODS}/web"]
        daemon.put(f"{PODS}/web", {**stored, "status": {"conditions": [READY]}})
        return 200, _explanation("Working", "running")

    daemon.canned[("GET", EXPLAIN)] = first


def test_apply_waits_until_the_volumes_are_ready_and_prints_each_change(call, daemon, write):
    _become_ready(daemon)
    code, out, err = call("apply", "--wait", "-f", write(POD))
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[:3] == [
        "pod default/web created",
        "pod default/web: data: Working, publish in 1.2 ms",
        "pod default/web: data: Ready after 1.2 ms of work (tmpfs)",
    ]
    assert lines[3].startswith("pod default/web is ready after ")


def test_apply_stops_waiting_and_says_what_to_do_when_nothing_would_happen(call, daemon, write):
    blocked = _explanation("Waiting", "failed", blocker='secret "s" not found', remedy="declare it")
    daemon.canned[("GET", EXPLAIN)] = (200, blocked)
    code, _, err = call("apply", "--wait", "-f", write(POD))
    assert code == 1
    assert err == (
        'volagent: pod default/web is not ready: volume "data": secret "s" not found\n'
        "hint: declare it\n"
    )


def test_apply_gives_up_at_the_timeout_while_the_daemon_retries(call, daemon, write):
    failing = _explanation("Failed", "failed", blocker="timed out", nextRetryAt="2026-01-01")
    daemon.canned[("GET", EXPLAIN)] = (200, failing)
    code, _, err = call("apply", "--wait", "--timeout", "50ms", "-f", write(POD))
    assert code == 1
    assert 'volume "data": timed out' in err


def test_apply_ends_when_the_pod_is_deleted_meanwhile(call, daemon, write):
    def delete(query, body):
        daemon.canned[("GET", EXPLAIN)] = (404, {})
        daemon.drop(f"{PODS}/web")
        return 200, _explanation("Working", "running")

    daemon.canned[("GET", EXPLAIN)] = delete
    code, _, err = call("apply", "--wait", "-f", write(POD))
    assert (code, err) == (
        1,
        "volagent: pod default/web was deleted meanwhile\n"
        "hint: volagent explain pod/web -n default\n",
    )


@pytest.mark.parametrize(
    ("pod", "verdict"),
    [
        (None, Verdict.ENDED),
        (_pod(), Verdict.WORKING),
        (_pod(conditions=[READY]), Verdict.READY),
        (_pod(conditions=[READY], containerStatuses=[{"name": "c"}]), Verdict.WORKING),
        (
            _pod(conditions=[READY], containerStatuses=[{"name": "c"}], phase="Running"),
            Verdict.READY,
        ),
        (_pod(conditions=[READY], phase="Failed"), Verdict.ENDED),
    ],
)
def test_pod_is_ready_with_its_volumes_and_its_containers_where_there_are_any(pod, verdict):
    assert judge(pod, None) is verdict


def test_line_screen_prints_a_volume_again_only_when_it_changed(capsys):
    pod = FollowedPod("default", "web", _pod(), _explanation("Working", "running"), seen=True)
    screen = LineScreen()
    screen.show([pod])
    screen.show([pod])
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_live_screen_draws_every_volume_and_its_blocker():
    console = Console(file=io.StringIO(), width=100)
    blocked = _explanation("Failed", "failed", blocker="no route\x1b[2J", nextRetryAt="x")
    pods = [FollowedPod("default", "web", _pod(), blocked, seen=True)]
    pods += [
        FollowedPod("default", f"p{i}", _pod(conditions=[READY]), seen=True) for i in range(20)
    ]
    with LiveScreen(console) as screen:
        screen.show(pods)
    drawn = console.file.getvalue()
    assert "data  Failed  publish" in drawn
    assert "no route�[2J" in drawn
    assert "20 of 21 pods are ready" in drawn


def test_delete_waits_until_the_object_is_gone(call, daemon, write):
    daemon.keep_deleted = True
    daemon.put(f"{PODS}/web", _pod())
    original = daemon.watch

    def watch(path):
        events = original(path)
        threading.Thread(target=daemon.drop, args=(f"{PODS}/web",)).start()
        return events

    daemon.watch = watch
    assert call("delete", "pod", "web") == (0, "pod default/web deleted\n", "")


def test_delete_without_wait_returns_at_once(call, daemon):
    daemon.keep_deleted = True
    daemon.put(f"{PODS}/web", _pod())
    out = call("delete", "pod/web", "--no-wait", "--grace-period", "3")[1]
    assert out == "pod default/web is being deleted\n"
    assert daemon.sent("DELETE")[0][1] == {"gracePeriodSeconds": "3"}


def test_delete_by_manifest_goes_backwards(call, daemon, write):
    config = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n"
    file = write(POD + config)
    call("apply", "-f", file)
    out = call("delete", "-f", file)[1]
    assert out == "pod default/web deleted\nconfigmap default/c deleted\n"


def test_delete_tells_what_was_not_there(call):
    code, _, err = call("delete", "pod", "nope")
    assert (code, err) == (1, "volagent: cannot delete pod default/nope: not found\n")
    assert call("delete", "pod", "nope", "--ignore-not-found")[0] == 0


def test_delete_says_who_keeps_it_at_the_timeout(call, daemon):
    daemon.keep_deleted = True
    daemon.put(f"{PODS}/web", _pod())
    held = {"summary": "being withdrawn: volumes still held"}
    daemon.canned[("GET", EXPLAIN)] = (200, held)
    code, _, err = call("delete", "pod", "web", "--timeout", "50ms")
    assert code == 1
    assert "is not gone after 0 s: being withdrawn: volumes still held" in err


def test_watch_prints_the_present_and_then_every_change(call, daemon):
    daemon.put(f"{PODS}/web", _pod(phase="Pending"))
    original = daemon.watch

    def watch(path):
        events = original(path)
        daemon.put(f"{PODS}/web", _pod(phase="Running"))
        events.put(None)
        return events

    daemon.watch = watch
    code, out, err = call("get", "pods", "-w")
    assert code == 1
    assert [line.split()[2] for line in out.splitlines()] == ["STATUS", "Pending", "Running"]
    assert "the daemon ended the watch" in err
