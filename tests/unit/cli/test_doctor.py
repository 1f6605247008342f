"""What the doctor finds, and what it advises."""

import json
import os

import pytest

from volagent.cli import checks
from volagent.cli.checks import FAIL, OK, WARN, Finding
from volagent.cli.doctor import (
    check_pods,
    check_status,
    check_versions,
    find_flag,
    format_findings,
    is_daemon,
    judge_rivals,
)
from volagent.host.contract import MountEntry, MountId
from volagent.host.features import Feature
from volagent.settings import RuntimeSettings, load_settings

STATUS = "/apis/node.volagent.dev/v1/status"


def _settings(tmp_path, **overrides):
    paths = {
        "root_dir": f"{tmp_path}/root", "state_dir": f"{tmp_path}/state",
        "run_dir": f"{tmp_path}/run", "node_name": "n",
    }  # fmt: skip
    return load_settings(None, {**paths, **overrides})


def _mount(point, fs_type="tmpfs"):
    return MountEntry(MountId(1), MountId(0), "0:1", "/", point, fs_type, "x")


def _levels(findings):
    return {finding.name: finding.level for finding in findings}


def test_missing_feature_fails_only_when_it_is_required():
    features = [
        Feature("a", True, "there", "never shown"),
        Feature("b", False, "slower", "newer kernel"),
        Feature("c", False, "needed", "newer kernel", required=True),
    ]
    found = list(checks.check_features(features))
    assert [one.level for one in found] == [OK, WARN, FAIL]
    assert [one.remedy for one in found] == ["", "newer kernel", "newer kernel"]


def test_missing_tool_names_the_package_to_install():
    found = list(checks.check_tools(lambda name: None if name == "mount.nfs" else f"/x/{name}"))
    missing = [one for one in found if one.level != OK]
    assert [(one.name, one.remedy) for one in missing] == [
        ("mount.nfs", "apt-get install nfs-common")
    ]


def test_podman_socket_that_is_missing_fails_with_the_way_to_start_it(tmp_path):
    settings = RuntimeSettings(kind="podman", podman_socket=f"{tmp_path}/s", cdi_dir="")
    (found,) = checks.check_runtime(settings)
    assert found.level == FAIL
    assert "systemctl enable --now podman.socket" in found.remedy


@pytest.mark.skipif(os.geteuid() != 0, reason="directories must be root's: run as root")
def test_directories_that_others_may_write_or_read_secrets_in_fail(tmp_path):
    settings = _settings(tmp_path)
    for name, mode in (("root", 0o777), ("state", 0o755), ("run", 0o755)):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(mode)
    (tmp_path / "state" / "objects.sqlite").touch(0o644)
    levels = _levels(checks.check_permissions(settings, [_mount("/"), _mount(f"{tmp_path}/run")]))
    assert levels["root_dir"] == FAIL
    assert levels["state_dir"] == FAIL
    assert levels["run_dir"] == OK
    (tmp_path / "root").chmod(0o755)
    (tmp_path / "state" / "objects.sqlite").chmod(0o600)
    levels = _levels(checks.check_permissions(settings, []))
    assert (levels["root_dir"], levels["state_dir"]) == (OK, OK)


def test_run_dir_on_a_disk_is_told(tmp_path):
    mounts = [_mount("/", "ext4"), _mount("/run"), _mount("/runny")]
    levels = _levels(checks.check_permissions(_settings(tmp_path, run_dir="/data/run"), mounts))
    assert levels["run_dir on tmpfs"] == WARN
    levels = _levels(checks.check_permissions(_settings(tmp_path, run_dir="/run/v"), mounts))
    assert "run_dir on tmpfs" not in levels


def test_mounts_of_unknown_pods_are_told_with_their_place(tmp_path):
    settings = _settings(tmp_path)
    pods = f"{settings.root_dir}/pods"
    os.makedirs(f"{pods}/known")
    os.makedirs(f"{pods}/empty")
    mounts = [_mount(f"{pods}/known/volumes/a/b"), _mount(f"{pods}/lost/volumes/a/b")]
    found = list(checks.check_leftovers(settings, mounts, {"known"}, sys_block="/nowhere"))
    assert _levels(found) == {"pod lost": WARN, "pod empty": WARN}
    assert f"the first at {pods}/lost/volumes/a/b" in found[1].detail
    assert "volagent never will" in found[0].remedy


def test_mounts_without_a_daemon_are_one_warning(tmp_path):
    settings = _settings(tmp_path)
    mounts = [_mount(f"{settings.root_dir}/pods/u/volumes/a/{name}") for name in "abc"]
    (found,) = checks.check_leftovers(settings, mounts, None, sys_block="/nowhere")
    assert found.detail.startswith("3 mounts below")


def test_half_removed_directory_is_told(tmp_path):
    settings = _settings(tmp_path)
    aside = f"{settings.root_dir}/pods/u/volumes/kubernetes.io~empty-dir/.data.removing-1a2b"
    os.makedirs(aside)
    found = list(checks.check_leftovers(settings, [], {"u"}, sys_block="/nowhere"))
    assert any(one.level == WARN and aside in one.detail for one in found)


def test_loop_device_of_a_deleted_image_is_told(tmp_path):
    settings = _settings(tmp_path)
    for name, backing in (
        ("loop0", f"{settings.image_dir}/a.img"),
        ("loop1", f"{settings.image_dir}/b.img (deleted)"),
        ("loop2", "/elsewhere/c.img (deleted)"),
    ):
        os.makedirs(tmp_path / "block" / name / "loop")
        (tmp_path / "block" / name / "loop" / "backing_file").write_text(f"{backing}\n")
    os.makedirs(tmp_path / "block" / "loop3")
    found = list(checks.check_leftovers(settings, [], set(), sys_block=f"{tmp_path}/block"))
    assert _levels(found)["/dev/loop1"] == WARN
    assert "/dev/loop2" not in _levels(found)
    assert any(one.detail.startswith("2 for images") for one in found)


def test_records_of_another_boot_are_told(tmp_path):
    settings = _settings(tmp_path)
    assert list(checks.check_records(settings, "b2")) == []
    os.makedirs(settings.run_dir)
    with open(f"{settings.run_dir}/records", "w") as file:
        file.write('{"format":1,"boot":"b1"}\n')
    assert list(checks.check_records(settings, "b1")) == []
    (found,) = checks.check_records(settings, "b2")
    assert (found.name, found.level) == ("records", WARN)


def test_second_daemon_and_kubelet_on_the_same_root_fail():
    daemons = [
        (10, ["python", "/x/volagent", "run", "--root-dir", "/a"]),
        (11, ["python", "/x/volagent", "run", "--root-dir=/a"]),
        (12, ["/x/volagent", "run"]),
    ]
    kubelets = [(20, ["kubelet"]), (21, ["kubelet", "--root-dir=/a"])]
    assert [one.name for one in judge_rivals("/a", daemons, kubelets)] == [
        "second daemon",
        "kubelet",
    ]
    (found,) = judge_rivals("/var/lib/kubelet", daemons, kubelets)
    assert "pid 20" in found.detail


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("/x/python3 /x/volagent run --root-dir /a", True),
        ("/x/volagent --run-dir /r run", True),
        ("/x/volagent agent", True),
        ("/x/volagent get pods", False),
        ("vim volagent run", False),
        ("bash -c sleep volagent run", False),
    ],
)
def test_daemon_is_known_by_its_command_line(line, answer):
    assert is_daemon(line.split()) is answer


def test_agents_of_another_version_are_told():
    nodes = [
        {"metadata": {"name": name}, "status": {"nodeInfo": {"kubeletVersion": version}}}
        for name, version in (("a", "volagent-0.1.0"), ("b", "volagent-0.2.0"), ("c", ""))
    ]
    (found,) = check_versions("v1.30.0+volagent.0.1.0", nodes)
    assert (found.name, found.level) == ("version of node b", "warn")
    assert found.detail.startswith("0.2.0, and 0.1.0 here")
    assert found.remedy == "upgrade the servers first, then the agents"


def test_flag_is_found_in_both_forms():
    assert find_flag(["--a", "1"], "--a", "0") == "1"
    assert find_flag(["--a=2"], "--a", "0") == "2"
    assert find_flag(["--a"], "--a", "0") == "0"


def test_failing_volumes_and_backends_are_told():
    status = {
        "volumes": {"ready": 3, "failed": 1},
        "backends": [
            {"name": "nfs:a", "state": "closed"},
            {"name": "nfs:b", "state": "open", "detail": "3 timeouts"},
        ],
    }
    found = list(check_status(status))
    assert [one.level for one in found] == [WARN, OK, WARN]
    assert found[0].detail == "3 ready, 1 failed"
    assert found[2].detail == "open 3 timeouts"


def test_pod_without_its_volumes_is_told_with_the_reason():
    condition = {"type": "volagent.dev/VolumesReady", "reason": "FailedMount", "message": "why"}
    metadata = {"name": "web", "namespace": "default"}
    pods = [{"metadata": metadata, "status": {"conditions": [condition]}}, {"metadata": metadata}]
    (found,) = check_pods(pods)
    assert (found.level, found.detail) == (WARN, "why")
    assert found.remedy == "volagent explain pod/web -n default"


def test_diagnosis_counts_and_may_be_quiet():
    findings = [Finding("a", "x", OK, "fine"), Finding("b", "y", WARN, "hm", "do this")]
    assert list(format_findings(findings, quiet=True)) == [
        "b",
        "  warn  y  hm",
        "           → do this",
        "",
        "1 ok, 1 to look at, 0 to mend",
    ]


def test_doctor_as_json_holds_every_finding(call, daemon, tmp_path):
    daemon.canned[("GET", "/readyz")] = (200, {})
    daemon.canned[("GET", STATUS)] = (200, {"node": "n", "recoverySeconds": 0.5, "volumes": {}})
    _, out, _ = call("doctor", "--root-dir", tmp_path, "--state-dir", tmp_path, "-o", "json")
    findings = json.loads(out)["findings"]
    assert {one["area"] for one in findings} >= {"kernel", "tools", "permissions", "daemon"}
    (ready,) = [one for one in findings if one["name"] == "ready"]
    assert "after 0.500 s" in ready["detail"]
