"""Stock kubectl and a real daemon: what controllers do to objects that people apply."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.kernel.daemon.harness import Daemon, Json, until
from tests.kernel.daemon.test_access import KUBECTL, as_service_account, free_port, needs_kubectl

pytestmark = needs_kubectl
CLASS: Json = {
    "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "here"},
    "provisioner": "image.volagent.dev", "volumeBindingMode": "WaitForFirstConsumer",
    "allowVolumeExpansion": True,
    "parameters": {"csi.storage.k8s.io/fstype": "btrfs", "volagent.dev/trash-retention": "0"},
}  # fmt: skip
CLAIM: Json = {
    "apiVersion": "v1", "kind": "PersistentVolumeClaim",
    "metadata": {"name": "data", "labels": {"team": "red"}},
    "spec": {
        "storageClassName": "here", "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "128Mi"}},
    },
}  # fmt: skip
POD: Json = {
    "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"},
    "spec": {
        "automountServiceAccountToken": False,
        "containers": [
            {"name": "main", "image": "none", "volumeMounts": [{"name": "d", "mountPath": "/d"}]}
        ],
        "volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}],
    },
}  # fmt: skip


class Kubectl:
    """Stock kubectl, connected to a daemon."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.config = "kubeconfig"

    def __call__(self, *arguments: str, given: tuple[Json, ...] = (), **environment: str) -> str:
        """What a command that must succeed prints."""
        done = self._run(arguments, given, environment)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stdout}"
        return done.stdout

    def refuse(self, *arguments: str, given: tuple[Json, ...] = ()) -> str:
        """What a command that must fail prints."""
        done = self._run(arguments, given, {})
        assert done.returncode != 0, f"kubectl {' '.join(arguments)}: {done.stdout}"
        return done.stdout

    def _run(
        self, arguments: tuple[str, ...], given: tuple[Json, ...], environment: dict[str, str]
    ) -> subprocess.CompletedProcess[str]:
        base = self.daemon.base
        return subprocess.run(
            [str(KUBECTL), f"--kubeconfig={base}/{self.config}", *arguments],
            input=yaml.safe_dump_all(given), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, timeout=60, check=False,
            env={"HOME": str(base), "PATH": os.environ["PATH"], **environment},
        )  # fmt: skip


@pytest.fixture
def kubectl(stopped: Daemon) -> Kubectl:
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
    return Kubectl(stopped)


APPLY = ("apply", "--server-side", "-f", "-")


def test_claim_lives_its_life_when_only_kubectl_is_used(kubectl: Kubectl):
    kubectl(*APPLY, given=(CLASS, CLAIM))
    assert "Pending" in kubectl("get", "pvc", "data", "--no-headers")
    until(lambda: "waiting for first consumer" in kubectl("describe", "pvc", "data"))
    kubectl(*APPLY, given=(POD,))
    kubectl("wait", "pvc/data", "--for=jsonpath={.status.phase}=Bound", "--timeout=30s")
    kubectl("wait", "pod/web", "--for=condition=volagent.dev/VolumesReady", "--timeout=30s")
    assert "default/data" in kubectl("get", "pv", "-o", "wide")

    kubectl(*APPLY, given=(CLASS, CLAIM, POD))  # what controllers added is nobody's loss
    managers = kubectl(
        "get", "pvc", "data", "--show-managed-fields",
        "-o", "jsonpath={.metadata.managedFields[*].manager}",
    ).split()  # fmt: skip
    assert {"kubectl", "volagent"} <= set(managers)

    larger = {**CLAIM, "spec": {**CLAIM["spec"], "resources": {"requests": {"storage": "256Mi"}}}}
    assert "storage: 256Mi" in kubectl.refuse("diff", "-f", "-", given=(larger,))
    kubectl(*APPLY, given=(larger,))
    kubectl("wait", "pvc/data", "--for=jsonpath={.status.capacity.storage}=256Mi", "--timeout=30s")
    smaller = kubectl.refuse(*APPLY, given=(CLAIM,))
    assert "field can not be less than status.capacity" in smaller

    kubectl("delete", "pod", "web", "--timeout=30s")
    kubectl("delete", "pvc", "data", "--timeout=30s")
    kubectl("wait", "pv", "--all", "--for=delete", "--timeout=30s")
    assert "No resources found" in kubectl("get", "pv")


def test_claim_stays_while_its_pod_does_when_deleted(kubectl: Kubectl):
    kubectl("create", "-f", "-", given=(CLASS, CLAIM, POD))
    kubectl("wait", "pod/web", "--for=condition=volagent.dev/VolumesReady", "--timeout=30s")
    kubectl("delete", "pvc", "data", "--wait=false")
    assert "Terminating" in kubectl("get", "pvc", "data")
    kubectl("delete", "pod", "web", "--grace-period=1", "--timeout=30s")
    kubectl("wait", "pvc/data", "--for=delete", "--timeout=30s")


def test_apply_makes_nothing_new_for_whom_roles_let_only_patch(kubectl: Kubectl):
    kubectl("create", "role", "changer", "--verb=patch,get", "--resource=pvc")
    kubectl("create", "rolebinding", "b", "--role=changer", "--serviceaccount=default:default")
    as_service_account(kubectl.daemon, "default")
    kubectl.config = "default"
    said = kubectl.refuse(*APPLY, given=(CLAIM,))
    assert "there is none yet, and the user cannot create one" in said
    kubectl.config = "kubeconfig"
    kubectl(*APPLY, given=(CLAIM,))
    kubectl.config = "default"
    blue = {**CLAIM, "metadata": {"name": "data", "labels": {"team": "blue"}}}
    kubectl(*APPLY, "--field-manager=other", "--force-conflicts", given=(blue,))
    assert kubectl("get", "pvc", "data", "-o", "jsonpath={.metadata.labels.team}") == "blue"


def test_tables_of_fields_cost_no_memory_until_somebody_asks(kubectl: Kubectl):
    process = kubectl.daemon.process
    assert process is not None
    before_kb = _resident_kb(process.pid)
    assert "provisioner" in kubectl("explain", "storageclass")
    kubectl("create", "configmap", "c", "--from-literal=a=1")
    assert _resident_kb(process.pid) - before_kb < 8 * 1024


def _resident_kb(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError("no VmRSS")
