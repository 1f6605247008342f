"""The stock kubectl and an external provisioner, over TLS with certificates of the daemon's own."""

import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.kernel.daemon.harness import Daemon, Json, until

MANIFESTS = Path(__file__).parents[3] / "config" / "examples" / "external-provisioner.yaml"
KUBECTL = shutil.which("kubectl")
needs_kubectl = pytest.mark.skipif(
    KUBECTL is None, reason="no kubectl on this machine; install one to run this"
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def served(stopped: Daemon) -> Daemon:
    """A daemon that also listens on a port, and a kubeconfig for it in its directory."""
    run = stopped.run
    stopped.start(
        "--listen", f"unix://{run}/volagent.sock", "--listen", f"https://127.0.0.1:{free_port()}"
    )
    volagent = Path(sys.executable).parent / "volagent"
    done = subprocess.run(
        [volagent, "kubeconfig", "--run-dir", run], capture_output=True, text=True, timeout=30,
        check=True,
    )  # fmt: skip
    (stopped.base / "kubeconfig").write_text(done.stdout)
    return stopped


def kubectl(daemon: Daemon, *arguments: str, config: str = "kubeconfig") -> str:
    done = subprocess.run(
        [str(KUBECTL), f"--kubeconfig={daemon.base}/{config}", *arguments],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


def as_service_account(daemon: Daemon, name: str, namespace: str = "default") -> None:
    """Write the kubeconfig of a service account to `<base>/<name>`."""
    config = yaml.safe_load((daemon.base / "kubeconfig").read_text())
    token = kubectl(daemon, "create", "token", name, "-n", namespace).strip()
    config["users"][0]["user"] = {"token": token}
    (daemon.base / name).write_text(yaml.safe_dump(config))


@needs_kubectl
def test_administrator_may_do_everything_and_a_service_account_what_roles_allow(served: Daemon):
    assert "system:masters" in kubectl(served, "auth", "whoami")
    assert kubectl(served, "auth", "can-i", "delete", "pv").startswith("yes")
    as_service_account(served, "default")
    said = kubectl(served, "get", "pods", config="default")
    assert (
        'pods is forbidden: User "system:serviceaccount:default:default" cannot list resource'
        ' "pods" in API group "" in the namespace "default"'
    ) in said
    assert kubectl(served, "auth", "can-i", "list", "pods", config="default").startswith("no")

    kubectl(served, "create", "rolebinding", "look", "--clusterrole=view",
            "--serviceaccount=default:default")  # fmt: skip

    until(lambda: "No resources found" in kubectl(served, "get", "pods", config="default"))
    assert "forbidden" in kubectl(served, "get", "secrets", config="default")
    assert "forbidden" in kubectl(served, "delete", "pod", "any", config="default")
    more = ("create", "clusterrolebinding", "all", "--clusterrole=cluster-admin", "--user=me")
    assert "forbidden" in kubectl(served, *more, config="default")


@needs_kubectl
def test_certificate_is_kept_over_a_restart_and_no_key_is_readable(served: Daemon):
    before = (served.state / "pki" / "ca.crt").read_bytes()
    for key in (served.state / "pki").glob("*.key"):
        assert key.stat().st_mode & 0o077 == 0
    port = yaml.safe_load((served.base / "kubeconfig").read_text())["clusters"][0]["cluster"]
    served.stop()
    served.start("--listen", f"unix://{served.run}/volagent.sock", "--listen", port["server"])
    assert (served.state / "pki" / "ca.crt").read_bytes() == before
    assert "vm1" in kubectl(served, "get", "nodes")


def test_nobody_without_a_certificate_or_token_is_let_in(served: Daemon):
    server = yaml.safe_load((served.base / "kubeconfig").read_text())["clusters"][0]["cluster"]
    done = subprocess.run(
        ["curl", "-s", "--cacert", served.state / "pki" / "ca.crt",
         f"{server['server']}/api/v1/namespaces/default/secrets"],
        capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    assert '"code":401' in done.stdout


PROVISIONER = """
import sys
from kubernetes import client, config, watch

config.load_kube_config(sys.argv[1])
core = client.CoreV1Api()
try:
    core.list_namespaced_secret("default")
    sys.exit("it may read secrets")
except client.ApiException as error:
    assert error.status == 403, error
for event in watch.Watch().stream(core.list_persistent_volume_claim_for_all_namespaces):
    claim = event["object"]
    asked = (claim.metadata.annotations or {}).get("volume.kubernetes.io/storage-provisioner")
    if asked != "example.com/nfs" or claim.spec.volume_name:
        continue
    core.create_persistent_volume({
        "metadata": {
            "name": f"pvc-{claim.metadata.uid}",
            "annotations": {"pv.kubernetes.io/provisioned-by": "example.com/nfs"},
        },
        "spec": {
            "capacity": {"storage": claim.spec.resources.requests["storage"]},
            "accessModes": claim.spec.access_modes,
            "persistentVolumeReclaimPolicy": "Delete",
            "storageClassName": claim.spec.storage_class_name,
            "claimRef": {
                "kind": "PersistentVolumeClaim", "namespace": claim.metadata.namespace,
                "name": claim.metadata.name, "uid": claim.metadata.uid,
            },
            "nfs": {"server": "192.0.2.1", "path": "/made"},
        },
    })
    break
"""


@needs_kubectl
def test_external_provisioner_runs_with_its_usual_rights(served: Daemon):
    said = kubectl(served, "apply", "-f", str(MANIFESTS))
    assert "created" in said, said
    as_service_account(served, "nfs-client-provisioner")
    with subprocess.Popen(
        [sys.executable, "-c", PROVISIONER, str(served.base / "nfs-client-provisioner")],
        stderr=subprocess.PIPE, text=True,
    ) as provisioner:  # fmt: skip
        try:
            claim: Json = {"kind": "PersistentVolumeClaim", "metadata": {"name": "external"}}
            until(
                lambda: served.get(claim)["status"]["phase"] == "Bound",
                within_s=40.0,
                told=lambda: (served.events(claim), provisioner.poll()),
            )
            assert provisioner.wait(20) == 0, provisioner.stderr
        finally:
            provisioner.kill()
    assert served.wait_event(claim, "ExternalProvisioning", "example.com/nfs")
    served.delete_gone(claim)
    (volume,) = served.call("GET", "/api/v1/persistentvolumes")["items"]
    assert volume["status"]["phase"] == "Released"  # its provisioner deletes it, not we
