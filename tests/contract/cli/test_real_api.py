"""The command line against the real API: what the fake daemon of the unit tests stands for."""

from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[3] / "config" / "examples"
FILES = sorted(EXAMPLES.glob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_example_is_created_once_and_unchanged_ever_after(call, file):
    code, out, err = call("apply", "-f", file)
    assert (code, err) == (0, "")
    assert {line.split()[-1] for line in out.splitlines()} == {"created"}
    code, out, err = call("apply", "-f", file)
    assert (code, err) == (0, "")
    assert {line.split()[-1] for line in out.splitlines()} == {"unchanged"}


def test_everything_can_be_listed_in_every_form(call):
    call("apply", "-f", EXAMPLES)
    for kind in ("pods", "pv", "pvc", "secrets", "cm", "nodes", "ns", "sa", "events"):
        for form in ((), ("-o", "wide"), ("-o", "json"), ("-o", "yaml"), ("-o", "name")):
            assert call("get", kind, *form)[0] == 0
    table = call("get", "pv", "-o", "wide")[1]
    assert "image.volagent.dev database" in table
    assert "nfs 192.0.2.10:/srv/shared" in table
    assert "VOLUMES" in call("get", "pods", "-A")[1].splitlines()[0]


def test_everything_can_be_described(call):
    call("apply", "-f", EXAMPLES)
    names = call("get", "pods,pv,pvc,secrets,cm", "-o", "name")[1].split()
    assert len(names) > 20
    code, out, err = call("describe", *names)
    assert (code, err) == (0, "")
    assert "change-me" not in out


def test_changed_value_is_configured_and_the_rest_left_alone(call, tmp_path):
    call("apply", "-f", EXAMPLES / "config-map.yaml")
    changed = tmp_path / "changed.yaml"
    changed.write_text((EXAMPLES / "config-map.yaml").read_text().replace("motd: hello", "motd: x"))
    out = call("apply", "-f", changed)[1]
    assert out == "configmap default/site configured\npod default/config-map unchanged\n"
    changed.write_text((EXAMPLES / "config-map.yaml").read_text().replace("  motd: hello\n", ""))
    call("apply", "-f", changed)
    assert "motd" not in call("describe", "cm", "site")[1]


def test_change_of_an_immutable_field_is_refused_with_the_field(call, tmp_path):
    call("apply", "-f", EXAMPLES / "nfs-claim.yaml")
    changed = tmp_path / "changed.yaml"
    text = (EXAMPLES / "nfs-claim.yaml").read_text()
    changed.write_text(text.replace("nfs: {server: 192.0.2.10", "nfs: {server: 192.0.2.99"))
    code, out, err = call("apply", "-f", changed)
    assert code == 1
    assert "cannot apply persistentvolume shared" in err
    assert "persistentvolumeclaim default/shared unchanged" in out


def test_broken_pod_is_refused_with_the_field(call, tmp_path):
    file = tmp_path / "pod.yaml"
    file.write_text("apiVersion: v1\nkind: Pod\nmetadata: {name: Up}\nspec: {containers: []}\n")
    code, out, err = call("apply", "-f", file)
    assert (code, out) == (1, "")
    assert "metadata.name" in err
    assert "spec.containers" in err


def test_dry_run_on_the_server_stores_nothing(call):
    code, out, _ = call("apply", "--dry-run=server", "-f", EXAMPLES / "secret.yaml")
    assert code == 0
    assert out.count("created (dry run)") == 2
    assert call("get", "pods,secrets", "-o", "name")[1] == ""


def test_objects_without_a_node_are_gone_after_delete(call):
    call("apply", "-f", EXAMPLES / "secret.yaml")
    out = call("delete", "secret", "database")[1]
    assert out == "secret default/database deleted\n"
    out = call("delete", "pod", "secret", "--force")[1]
    assert out == "pod default/secret deleted\n"
    assert call("get", "pod", "secret")[0] == 1


def test_version_is_the_daemons(call):
    assert call("version")[1].split() == ["volagent", "0.1.0", "daemon", "0.1.0"]
