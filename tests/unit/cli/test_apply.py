"""`volagent apply` against a fake daemon."""

import base64

import pytest

from tests.unit.cli.fake_daemon import fail
from volagent.cli.merge import LAST_APPLIED

SECRET = "/api/v1/namespaces/default/secrets/s"
CONFIG = "/api/v1/namespaces/default/configmaps/c"
PODS = "/api/v1/namespaces/default/pods"
PLAN = "/apis/node.volagent.dev/v1/plan"


def _config(data, name="c"):
    return f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {data}\n"


POD = """
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  containers: [{name: c, image: x}]
  volumes: [{name: data, emptyDir: {}}]
"""


def test_object_is_created_then_unchanged_then_configured(call, write):
    file = write(_config("{a: '1'}"))
    assert call("apply", "-f", file) == (0, "configmap default/c created\n", "")
    assert call("apply", "-f", file)[1] == "configmap default/c unchanged\n"
    write(_config("{a: '2'}"))
    assert call("apply", "-f", file)[1] == "configmap default/c configured\n"


def test_removed_key_is_deleted_but_a_foreign_one_stays(call, write, daemon):
    file = write(_config("{a: '1', b: '2'}"))
    call("apply", "-f", file)
    stored = daemon.objects[CONFIG]
    daemon.put(CONFIG, {**stored, "data": {**stored["data"], "foreign": "x"}})
    write(_config("{a: '1'}"))
    call("apply", "-f", file)
    assert daemon.objects[CONFIG]["data"] == {"a": "1", "foreign": "x"}


def test_values_filled_in_by_the_server_are_no_change(call, write, daemon):
    file = write(POD)
    call("apply", "-f", file)
    stored = daemon.objects[f"{PODS}/web"]
    container = {**stored["spec"]["containers"][0], "imagePullPolicy": "Always"}
    spec = {**stored["spec"], "containers": [container], "restartPolicy": "Always"}
    daemon.put(f"{PODS}/web", {**stored, "spec": spec})
    assert call("apply", "-f", file)[1] == "pod default/web unchanged\n"


def test_secret_values_stay_out_of_the_annotation(call, write, daemon):
    text = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {k: hush}\n"
    file = write(text)
    call("apply", "-f", file)
    stored = daemon.objects[SECRET]
    assert stored["data"] == {"k": base64.b64encode(b"hush").decode()}
    annotation = stored["metadata"]["annotations"][LAST_APPLIED]
    assert "hush" not in annotation
    assert stored["data"]["k"] not in annotation
    assert call("apply", "-f", file)[1] == "secret default/s unchanged\n"
    write(text.replace("k: hush", "other: hush"))
    call("apply", "-f", file)
    assert list(daemon.objects[SECRET]["data"]) == ["other"]


def test_directory_is_applied_in_an_order_that_works(call, write, tmp_path):
    write(POD, "d/a.yaml")
    write("apiVersion: v1\nkind: Namespace\nmetadata: {name: n}\n---\n" + _config("{}"), "d/b.yml")
    write("not a manifest", "d/README")
    code, out, _ = call("apply", "-f", tmp_path / "d")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["namespace", "configmap", "pod"]


def test_refused_object_is_told_with_its_causes_and_its_siblings_are_applied(call, write, daemon):
    cause = {"field": "spec.containers", "message": "Required value"}
    daemon.canned[("POST", PODS)] = (422, fail(422, "Invalid", "Pod is invalid", [cause]))
    file = write(POD + "---\n" + _config("{a: b}"))
    code, out, err = call("apply", "-f", file)
    assert code == 1
    assert out == "configmap default/c created\n"
    assert err == (
        f"volagent: cannot apply pod default/web ({file}:2): Pod is invalid;"
        " spec.containers: Required value\n"
    )


def test_object_that_is_being_deleted_is_refused_with_a_way_out(call, write, daemon):
    file = write(_config("{a: '1'}"))
    call("apply", "-f", file)
    daemon.keep_deleted = True
    call("delete", "configmap", "c", "--no-wait")
    write(_config("{a: '2'}"))
    code, _, err = call("apply", "-f", file)
    assert code == 1
    assert "it is being deleted\nhint: apply again when it is gone" in err


def test_change_under_the_apply_is_merged_again(call, write, daemon):
    file = write(_config("{a: '1'}"))
    call("apply", "-f", file)
    calls = iter([(409, fail(409, "Conflict", "changed meanwhile"))])

    def conflict_once(query, body):
        answer = next(calls, None)
        if answer is None:
            del daemon.canned[("PATCH", CONFIG)]
            return daemon.answer("PATCH", CONFIG, query, body)
        return answer

    daemon.canned[("PATCH", CONFIG)] = conflict_once
    write(_config("{a: '2'}"))
    assert call("apply", "-f", file)[1] == "configmap default/c configured\n"


def test_dry_run_on_the_client_sends_nothing(call, write, daemon):
    assert call("apply", "--dry-run", "client", "-f", write(POD))[0] == 0
    assert daemon.requests == []


def test_dry_run_on_the_server_stores_nothing(call, write, daemon):
    code, out, _ = call("apply", "--dry-run=server", "-f", write(POD))
    assert (code, out) == (0, "pod default/web created (dry run)\n")
    assert daemon.objects == {}
    assert daemon.sent("POST")[0][1]["dryRun"] == "All"


def test_dry_run_on_the_node_prints_the_steps_and_fails_on_problems(call, write, daemon):
    steps = [{"volume": "data", "step": "publish", "what": "publish to x"}]
    daemon.canned[("POST", PLAN)] = (200, {"kind": "Plan", "steps": steps, "problems": []})
    code, out, err = call("apply", "--dry-run=node", "-f", write(POD))
    assert (code, err) == (0, "")
    assert "data     publish   publish to x" in out
    problems = [{"volume": "key", "error": 'secret "s" not found', "remedy": "declare it"}]
    daemon.canned[("POST", PLAN)] = (200, {"kind": "Plan", "steps": [], "problems": problems})
    code, _, err = call("apply", "--dry-run=node", "-f", write(POD))
    assert code == 1
    assert 'volume key: secret "s" not found\n  hint: declare it\n' in err


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: 1\na: 2\n", 'm.yaml:2: the key "a" stands twice'),
        ("a: [\n", "m.yaml:2: did not find expected node content"),
        ("- x\n", "m.yaml:1: expected an object with apiVersion, kind and metadata"),
        ("kind: Pod\napiVersion: v9\nmetadata: {name: x}\n", "there is no kind Pod in v9"),
        ("kind: Pod\napiVersion: v1\n", "Pod: metadata.name must be given, as text"),
        ("kind: Pod\napiVersion: v1\nmetadata: {name: 7}\n", "metadata.name must be given"),
        ("kind: [Pod]\napiVersion: v1\n", "apiVersion and kind must be given"),
        (POD + "---" + POD, "pod default/web is declared already at"),
        ("? [a]\n: b\n", "m.yaml:1: found unhashable key"),
        ("a: \x01\n", "control characters are not allowed"),
        ("{" * 5000, "m.yaml"),
    ],
)
def test_broken_manifest_is_told_with_its_line_and_nothing_is_sent(call, write, daemon, text, told):
    code, out, err = call("apply", "-f", write(text))
    assert (code, out) == (1, "")
    assert told in err
    assert "Traceback" not in err
    assert daemon.requests == []


def test_dates_in_manifests_stay_text(call, write, daemon):
    call("apply", "-f", write(_config("{day: 2024-02-30}")))
    assert daemon.objects[CONFIG]["data"] == {"day": "2024-02-30"}
