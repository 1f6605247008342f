"""What the node says: the plan, the explanation, the mounts to hand over, the Node object."""

import json
import subprocess
import sys
from pathlib import Path

from tests.cluster.manifests import bound_pair, claim_volume, image_source, pod, scratch, secret
from tests.kernel.daemon.harness import Daemon, until


def test_plan_names_the_steps_and_does_none(daemon: Daemon) -> None:
    volume, claim = bound_pair("data", image_source("data", "data.img"))
    daemon.declare(volume, claim)
    daemon.wait_bound(claim)
    volumes = [claim_volume("data", "data"), scratch("disk"),
               {"name": "key", "secret": {"secretName": "key"}}]  # fmt: skip
    web = pod("web", volumes)

    plan = daemon.call("POST", "/apis/node.volagent.dev/v1/plan", web)

    steps = [(step["volume"], step["step"]) for step in plan["steps"]]
    assert steps[:4] == [("data", s) for s in ("attach", "prepare", "stage", "publish")]
    assert ("disk", "publish") in steps
    assert [p["volume"] for p in plan["problems"]] == ["key"]
    assert 'secret "key" not found' in plan["problems"][0]["error"]
    assert not daemon.pods.exists() or list(daemon.pods.iterdir()) == []
    assert daemon.mounts() == {}
    assert not (daemon.images / "data.img").exists()


def test_command_line_prints_the_plan(daemon: Daemon) -> None:
    manifest = daemon.base / "web.yaml"
    manifest.write_text(json.dumps(pod("web", [scratch("memory", "Memory")])))
    volagent = str(Path(sys.executable).parent / "volagent")
    socket = daemon.run / "volagent.sock"

    said = subprocess.run(
        [volagent, "--socket", str(socket), "apply", "-f", str(manifest),
         "--dry-run=node"],
        capture_output=True, text=True, check=False, timeout=20,
    )  # fmt: skip

    assert said.returncode == 0, said.stderr
    assert "publish" in said.stdout
    assert "memory" in said.stdout
    assert daemon.mounts() == {}


def test_ready_pod_is_explained_with_evidence_for_every_step(daemon: Daemon) -> None:
    daemon.declare(*bound_pair("data", image_source("data", "data.img")))
    web = pod("web", [claim_volume("data", "data"), scratch("memory", "Memory")])
    (home,) = daemon.declare_ready(web)

    told = daemon.ask_node("explain", web)

    steps = {(step["volume"], step["step"]): step for step in told["steps"]}
    assert [step["step"] for step in told["steps"] if step["volume"] == "data"] == [
        "bind", "attach", "prepare", "stage", "publish",
    ]  # fmt: skip
    assert {step["state"] for step in told["steps"]} == {"done"}
    assert "formatted as ext4" in steps["data", "prepare"]["evidence"]
    assert "/dev/loop" in steps["data", "attach"]["evidence"]
    assert told["summary"] == "all 2 volumes are mounted"
    mounts = daemon.mounts()
    for volume in told["volumes"]:
        assert volume["state"] == "Ready"
        assert mounts[volume["target"]][0] == volume["mountId"]
        assert volume["target"].startswith(f"{home}/")


def test_failing_pod_is_explained_with_blocker_retry_and_remedy(daemon: Daemon) -> None:
    path = daemon.base / "missing"
    web = pod("web", [{"name": "host", "hostPath": {"path": str(path), "type": "Directory"}},
                      {"name": "key", "secret": {"secretName": "key"}}])  # fmt: skip
    daemon.declare(web)
    daemon.wait_blocked(web, str(path), "next try at", 'secret "key" not found')

    told = daemon.ask_node("explain", web)

    by_name = {volume["name"]: volume for volume in told["volumes"]}
    assert by_name["host"]["state"] == "Failed"
    assert str(path) in by_name["host"]["blocker"]
    assert by_name["host"]["nextRetryAt"]
    assert "make a directory" in by_name["host"]["remedy"]
    assert by_name["key"]["state"] == "Waiting"
    failed = {step["step"] for step in told["steps"] if step["state"] == "failed"}
    assert failed == {"bind", "publish"}
    assert str(path) in told["summary"]


def test_node_lists_volumes_in_use_while_they_are(daemon: Daemon) -> None:
    daemon.declare(*bound_pair("data", image_source("data", "data.img")))
    web = pod("web", [claim_volume("data", "data")])

    def in_use() -> list[str]:
        node = daemon.call("GET", "/api/v1/nodes/vm1")
        return node.get("status", {}).get("volumesInUse") or []

    assert in_use() == []
    daemon.declare_ready(web)
    until(in_use)
    assert in_use() == ["kubernetes.io/csi/image.volagent.dev^data"]
    daemon.delete_gone(web)
    until(lambda: not in_use(), told=in_use)


def test_each_container_is_handed_its_own_mounts(daemon: Daemon) -> None:
    daemon.declare(secret("key", token="t0p"))
    web = pod("web", [scratch("disk"), {"name": "key", "secret": {"secretName": "key"}}])
    web["spec"]["containers"].append(
        {"name": "backup", "image": "busybox", "volumeMounts": [
            {"name": "disk", "mountPath": "/backup", "readOnly": True,
             "recursiveReadOnly": "IfPossible"},
            {"name": "disk", "mountPath": "/sub", "subPath": "sub"},
        ]}
    )  # fmt: skip
    (home,) = daemon.declare_ready(web)
    disk = str(home / "volumes/kubernetes.io~empty-dir/disk")
    sub = str(home / "volume-subpaths/disk/backup/1")

    told = daemon.ask_node("mounts", web)
    cdi = json.loads((daemon.run / "cdi/volagent.dev-pod-default_web.json").read_text())

    assert told["ready"] is True
    handed = {
        container["name"]: {m["destination"]: m for m in container["mounts"]}
        for container in told["containers"]
    }
    assert {d: m["source"] for d, m in handed["backup"].items()} == {"/backup": disk, "/sub": sub}
    assert {"ro", "rw"} & set(handed["backup"]["/backup"]["options"]) == {"ro"}
    assert {"ro", "rw"} & set(handed["backup"]["/sub"]["options"]) == {"rw"}
    assert {"ro", "rw"} & set(handed["main"]["/key"]["options"]) == {"ro"}
    devices = {device["name"]: device["containerEdits"]["mounts"] for device in cdi["devices"]}
    assert devices.keys() == {"default_web", "default_web_main", "default_web_backup"}
    assert devices["default_web"] == devices["default_web_main"]
    backup = {m["containerPath"]: m["hostPath"] for m in devices["default_web_backup"]}
    assert backup == {"/backup": disk, "/sub": sub}

    daemon.delete_gone(web)
    assert list((daemon.run / "cdi").iterdir()) == []
