"""`get`, `describe`, `explain`, `mounts`, `version`, and how failures are told."""

import json
import socket
import subprocess
import sys

import pytest

from tests.unit.cli.fake_daemon import fail
from volagent.cli.main import run_command
from volagent.cli.output import clean, format_ms, format_seconds

PODS = "/api/v1/namespaces/default/pods"
EXPLAIN = "/apis/node.volagent.dev/v1/explain/namespaces/default/pods/web"
MOUNTS = "/apis/node.volagent.dev/v1/mounts/namespaces/default/pods/web"


def _pod(name="web", **status):
    return {
        "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
        "spec": {
            "nodeName": "vm-1",
            "containers": [{"name": "c", "image": "i"}],
            "volumes": [{"name": "data", "emptyDir": {"medium": "Memory"}}],
        },
        "status": {"phase": "Pending", **status},
    }


def _ready(status="True", **more):
    return {"type": "volagent.dev/VolumesReady", "status": status, **more}


EXPLANATION = {
    "kind": "Explanation", "pod": "default/web", "node": "vm-1", "phase": "Pending",
    "summary": 'volume "data": it failed',
    "steps": [
        {"step": "declare", "volume": "", "state": "done", "evidence": "durable in the store"},
        {
            "step": "stage", "volume": "data", "state": "failed", "tookMs": 12.3,
            "error": "mount 10.0.0.5:/x: Connection timed out (ETIMEDOUT)", "attempts": 3,
        },
        {"step": "hand-over", "volume": "", "state": "pending"},
    ],
    "volumes": [
        {
            "name": "data", "driver": "kubernetes.io/nfs", "state": "Failed", "target": "/t",
            "blocker": "mount 10.0.0.5:/x: Connection timed out (ETIMEDOUT)",
            "remedy": "start the server", "nextRetryAt": "2026-01-01T10:00:00.500000Z",
        }
    ],
    "timeline": [{"at": "2026-01-01T09:00:00.25Z", "volume": "data", "what": "mounted again"}],
}  # fmt: skip


def test_pods_are_listed_with_their_volumes(call, daemon):
    daemon.put(f"{PODS}/web", _pod(conditions=[_ready()]))
    daemon.put(f"{PODS}/db", _pod("db", conditions=[_ready("False", reason="FailedMount")]))
    code, out, err = call("get", "pods")
    assert (code, err) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["NAME", "READY", "STATUS", "VOLUMES", "RESTARTS", "AGE"]
    assert lines[1][:4] == ["db", "0/1", "Pending", "FailedMount"]
    assert lines[2][:4] == ["web", "0/1", "Pending", "Ready"]


def test_one_object_is_printed_as_it_is(call, daemon):
    stored = daemon.put(f"{PODS}/web", _pod())
    assert json.loads(call("get", "pod", "web", "-o", "json")[1]) == stored
    assert json.loads(call("-o", "json", "get", "pod/web")[1]) == stored
    assert "medium: Memory" in call("get", "po/web", "-o", "yaml")[1]
    assert call("get", "pods", "-o", "name")[1] == "pod/web\n"
    listed = json.loads(call("get", "pods", "-o", "json")[1])
    assert listed["kind"] == "List"
    assert listed["items"][0]["kind"] == "Pod"


def test_selector_is_passed_on_and_nothing_found_is_no_failure(call, daemon):
    code, out, err = call("get", "pods", "-l", "app=x", "-n", "other")
    assert (code, out, err) == (0, "", "no pods in namespace other\n")
    assert daemon.requests[-1][1:3] == (
        "/api/v1/namespaces/other/pods",
        {"labelSelector": "app=x", "includeObject": "Object"},
    )


def test_missing_object_is_told_by_name(call):
    code, out, err = call("get", "pod", "nope")
    assert (code, out) == (1, "")
    assert err.startswith("volagent: cannot get pod default/nope: ")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("get",), "name a kind"),
        (("get", "pots"), 'there is no kind "pots"\nhint: did you mean pods?'),
        (("get", "pods", "--nope"), "No such option"),
        (("get", "pod", "x", "-l", "a=b"), "a name goes neither with a selector"),
        (("get", "pods,pv", "-w"), "only one kind"),
        (("delete",), "say either what to delete, or -f FILE"),
        (("delete", "pods"), "name the pods to delete; there is no delete-all"),
        (("explain", "secret/x/y/z"), "names no pod"),
        (("apply",), "say what to read with -f FILE"),
        (("apply", "-f", "x", "--timeout", "soon"), "'soon' is no duration such as 30s or 2m"),
        (("frobnicate",), "No such command"),
        (("get", "pods", "--server", "http://x"), "expected https://ADDRESS:PORT"),
    ],
)
def test_wrong_usage_exits_with_2_and_says_what_is_right(call, arguments, told):
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert told in err


def test_absent_daemon_exits_with_3_and_says_how_to_start_one(tmp_path, capsys):
    assert run_command(["get", "pods", "--run-dir", str(tmp_path)]) == 3
    err = capsys.readouterr().err
    assert f"cannot reach the daemon at {tmp_path}/volagent.sock: No such file" in err
    assert "volagent run" in err


def test_dead_socket_exits_with_3(tmp_path, capsys):
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    assert run_command(["get", "pods", "--socket", path]) == 3
    assert "Connection refused" in capsys.readouterr().err


def test_forbidden_caller_is_told_who_may_call(call, daemon):
    daemon.canned[("GET", PODS)] = (403, fail(403, "Forbidden", "uid 1000 may not call"))
    code, _, err = call("get", "pods")
    assert code == 1
    assert err == (
        "volagent: cannot get pods: uid 1000 may not call\n"
        "hint: root and members of the group volagent may call: try sudo\n"
    )


def test_answer_that_is_no_json_is_told_without_traceback(call, daemon):
    daemon.canned[("GET", PODS)] = (502, b"<html>bad gateway</html>")
    code, _, err = call("get", "pods")
    assert code == 1
    assert "bad gateway" in err


def test_explanation_shows_steps_blocker_remedy_and_next_retry(call, daemon):
    daemon.canned[("GET", EXPLAIN)] = (200, EXPLANATION)
    code, out, _ = call("explain", "pod/web")
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == 'pod default/web on node vm-1, Pending: volume "data": it failed'
    assert any(
        line.split()[:4] == ["stage", "data", "failed", "12"] and "(3 times)" in line
        for line in lines
    )
    assert 'volume "data": mount 10.0.0.5:/x: Connection timed out (ETIMEDOUT)' in lines
    assert "  what to do:  start the server" in lines
    assert any(line.startswith("  next retry:  10:00:00.500 UTC") for line in lines)
    assert lines[-1].split() == ["09:00:00.250", "data", "mounted", "again"]
    assert json.loads(call("explain", "web", "-o", "json")[1]) == EXPLANATION


def test_mounts_are_shown_per_container(call, daemon):
    mount = {"destination": "/data", "source": "/t", "type": "bind", "options": ["rbind", "ro"]}
    device = {"path": "/dev/x", "hostPath": "/dev/loop0", "permissions": "mrw"}
    container = {"name": "c", "mounts": [mount], "devices": [device]}
    document = {"kind": "PodMounts", "pod": "default/web", "containers": [container]}
    daemon.canned[("GET", MOUNTS)] = (200, document)
    out = call("mounts", "pod/web")[1]
    rows = [line.split() for line in out.splitlines()]
    assert rows[1:2] == [["container", "c"]]
    assert ["/data", "/t", "rbind,ro"] in rows
    assert ["/dev/x", "/dev/loop0", "mrw"] in rows
    assert json.loads(call("mounts", "pod/web", "-o", "json")[1]) == document


def test_description_of_a_pod_has_conditions_and_events(call, daemon):
    waiting = {"waiting": {"reason": "ErrImageNeverPull", "message": "no image"}}
    status = {"containerStatuses": [{"name": "c", "state": waiting}], "conditions": [_ready()]}
    daemon.put(f"{PODS}/web", _pod(**status))
    event = {"metadata": {"name": "e"}, "type": "Warning", "reason": "FailedMount", "message": "m"}
    daemon.put("/api/v1/namespaces/default/events/e", event)
    out = call("describe", "pod", "web")[1]
    assert "State:           waiting (ErrImageNeverPull, no image)" in out
    assert "Volume data:       emptyDir Memory" in out
    assert "volagent.dev/VolumesReady   True" in out
    assert "FailedMount" in out.split("Events:")[1]


def test_description_of_a_secret_shows_sizes_only(call, daemon):
    secret = {"metadata": {"name": "key", "namespace": "default"}, "data": {"k": "aHVzaA=="}}
    daemon.put("/api/v1/namespaces/default/secrets/key", secret)
    out = call("describe", "secret", "key")[1]
    assert "Key k:             4 bytes" in out
    assert "aHVzaA" not in out


def test_description_of_another_kind_is_its_own_yaml(call, daemon):
    spec = {"capacity": {"storage": "1Gi"}, "nfs": {"server": "10.0.0.5", "path": "/x"}}
    daemon.put("/api/v1/persistentvolumes/data", {"metadata": {"name": "data"}, "spec": spec})
    out = call("describe", "pv/data")[1]
    assert "    server: 10.0.0.5" in out
    assert "nfs 10.0.0.5:/x" in call("get", "pv", "-o", "wide")[1]


def test_version_names_command_and_daemon(call, daemon):
    daemon.canned[("GET", "/version")] = (200, {"gitVersion": "v1.32.0+volagent.9.9"})
    assert call("version")[1].split() == ["volagent", "0.1.0", "daemon", "9.9"]
    assert json.loads(call("version", "-o", "json")[1])["daemon"] == "9.9"


def test_control_characters_never_reach_the_terminal():
    assert clean("a\x1b[2Jb\tc\nd\x9b") == "a�[2Jb c d�"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (119, "119s"), (120, "2m"), (130, "2m10s"), (3600, "60m"), (10801, "3h"),
     (90000, "25h"), (400000, "4d")],
)  # fmt: skip
def test_age_is_told_in_kubectls_short_form(seconds, text):
    assert format_seconds(seconds) == text


def test_duration_keeps_two_figures_while_it_is_small():
    assert [format_ms(x) for x in (None, 0.84, 12.3, 2430.0)] == ["", "0.8 ms", "12 ms", "2.4 s"]


def test_reading_loads_nothing_that_only_other_commands_need(daemon):
    program = (
        "import sys\n"
        "from volagent.cli.main import run_command\n"
        f"assert run_command(['get', 'pods', '--socket', {daemon.socket_path!r}]) == 0\n"
        "print(sorted({'rich', 'yaml', 'aiohttp', 'psutil', 'asyncio'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
