"""Stock kubectl, verb by verb: what it shows, changes, waits for and explains."""

import asyncio
import json

import pytest

from tests.contract.kubernetes.conftest import Served
from tests.contract.kubernetes.kubectl import expect, kubectl, needs_kubectl, refuse, start
from tests.contract.kubernetes.manifests import (
    CLAIM,
    CLASS,
    EVERYTHING,
    NODE,
    POD,
    VOLUME,
    changed,
    manifest,
)
from volagent.client.contract import (
    CLAIMS,
    EVENTS,
    NODES,
    PERSISTENT_VOLUMES,
    PODS,
    STORAGE_CLASSES,
    NotFound,
)

pytestmark = needs_kubectl


async def _everything(served: Served) -> None:
    await expect(served, "create", "-f", "-", stdin=manifest(*EVERYTHING))


def _rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


async def test_tables_have_kubernetes_columns(served: Served) -> None:
    await _everything(served)
    for name, head, row in (
        ("sc", "NAME PROVISIONER RECLAIMPOLICY VOLUMEBINDINGMODE ALLOWVOLUMEEXPANSION AGE",
         "fast (default) example.com/fast Delete Immediate true"),
        ("pv", "NAME CAPACITY ACCESS MODES RECLAIM POLICY STATUS CLAIM STORAGECLASS"
         " VOLUMEATTRIBUTESCLASS REASON AGE VOLUMEMODE", "pv1 1Gi RWX Retain Pending fast"),
        ("pvc", "NAME STATUS VOLUME CAPACITY ACCESS MODES STORAGECLASS VOLUMEATTRIBUTESCLASS AGE"
         " VOLUMEMODE", "data Pending fast <unset>"),
    ):  # fmt: skip
        shown = _rows(await expect(served, "get", name, "-o", "wide"))
        assert " ".join(shown[0]) == head
        assert " ".join(shown[1]).startswith(row)


async def test_output_is_as_asked_for(served: Served) -> None:
    await _everything(served)
    assert await expect(served, "get", "pvc,pv", "-o", "name") == (
        "persistentvolumeclaim/data\npersistentvolume/pv1\n"
    )
    path = "jsonpath={.spec.resources.requests.storage}"
    assert await expect(served, "get", "pvc", "data", "-o", path) == "1Gi"
    shown = json.loads(await expect(served, "get", "sc", "fast", "-o", "json"))
    assert shown["parameters"] == {"type": "ssd"}
    assert "managedFields" not in await expect(served, "get", "sc", "fast", "-o", "yaml")
    text = await expect(served, "get", "pods", "-A", "-o", "custom-columns=N:.metadata.name")
    assert _rows(text) == [["N"], ["web"]]


async def test_objects_are_chosen_by_labels_and_fields(served: Served) -> None:
    await _everything(served)
    for chosen, found in (
        ("-l=app=web", "pod/web"), ("-l=app in (web,db)", "pod/web"), ("-l=app!=web", ""),
        ("--field-selector=status.phase=Pending", "pod/web"),
        ("--field-selector=spec.nodeName=vm-2", ""),
    ):  # fmt: skip
        assert (await expect(served, "get", "pod", "-o", "name", chosen)).strip() == found


async def test_changes_are_shown_when_watching(served: Served) -> None:
    await _everything(served)
    process = await start(served, "get", "pv", "-w", "--no-headers")
    assert process.stdout is not None
    async with asyncio.timeout(30):
        assert (await process.stdout.readline()).split()[4] == b"Pending"
        status = {"status": {"phase": "Available"}}
        await served.client.patch(PERSISTENT_VOLUMES, "pv1", status, subresource="status")
        assert (await process.stdout.readline()).split()[4] == b"Available"
    process.terminate()
    await process.wait()


@pytest.mark.parametrize(
    ("what", "parts"),
    [
        (("pv", "pv1"), ("StorageClass: fast", "Type: NFS", "Reclaim Policy: Retain")),
        (("pvc", "data"), ("Used By: web", "StorageClass: fast", "no volume fits")),
        (("sc", "fast"), ("IsDefaultClass: Yes", "type=ssd", "AllowVolumeExpansion: True")),
        (("pod", "web"), ("ClaimName: data", "Port: 80/TCP", "/d from d (rw)")),
        (("node", "vm-1"), ("AgentReady", "cpu: 2", "web")),
    ],
    ids=lambda value: value[0],
)
async def test_object_is_described_with_its_events(
    served: Served, what: tuple[str, str], parts: tuple[str, ...]
) -> None:
    await _everything(served)
    claim = await served.client.get(CLAIMS, "data", "default")
    involved = {
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": "data",
        "namespace": "default", "uid": claim["metadata"]["uid"],
    }  # fmt: skip
    event = {
        "metadata": {"name": "data.1"}, "involvedObject": involved, "reason": "FailedBinding",
        "message": "no volume fits", "type": "Warning", "source": {"component": "binder"},
        "firstTimestamp": "2024-01-01T00:00:00Z", "lastTimestamp": "2024-01-01T00:00:00Z",
    }  # fmt: skip
    await served.client.create(EVENTS, event, "default")
    text = await expect(served, "describe", *what)
    for part in parts:
        assert part in " ".join(text.split()), text
    assert "FailedBinding" in await expect(served, "events", "--for=pvc/data")
    assert "no volume fits" in await expect(served, "get", "events", "-A")


@pytest.mark.parametrize(
    ("what", "parts"),
    [
        ("pvc.spec.resources", ("VolumeResourceRequirements", "requests\t<map[string]Quantity>")),
        ("storageclass", ("GROUP:      storage.k8s.io", "provisioner\t<string> -required-")),
        ("pod.spec.volumes.nfs.server", ("The server's name",)),
        ("volumesnapshot.spec.source", ("persistentVolumeClaimName",)),
        ("lease.spec", ("holderIdentity",)),
        ("clusterrole.rules", ("nonResourceURLs",)),
        ("pv.metadata", ("annotations",)),
    ],
)
async def test_fields_are_explained(served: Served, what: str, parts: tuple[str, ...]) -> None:
    text = await expect(served, "explain", what)
    for part in parts:
        assert part in text, text
    assert "FIELDS" in await expect(served, "explain", what.partition(".")[0], "--recursive")


async def test_every_kind_and_version_is_listed(served: Served) -> None:
    text = await expect(served, "api-resources", "--no-headers")
    kinds = {line.split()[-1] for line in text.splitlines()}
    assert kinds >= {"StorageClass", "VolumeSnapshot", "Lease", "CSINode", "PersistentVolumeClaim"}
    versions = (await expect(served, "api-versions")).split()
    assert {"v1", "storage.k8s.io/v1", "snapshot.storage.k8s.io/v1"} <= set(versions)
    assert "Server Version: v1." in await expect(served, "version")


async def test_three_kinds_of_patch_are_applied(served: Served) -> None:
    await _everything(served)
    for kind, patch in (
        ("strategic", '{"spec":{"tolerations":[{"key":"x","operator":"Exists"}]}}'),
        ("merge", '{"metadata":{"labels":{"m":"1"}}}'),
        ("json", '[{"op":"add","path":"/metadata/labels/j","value":"2"}]'),
    ):
        await expect(served, "patch", "pod", "web", f"--type={kind}", "-p", patch)
    pod = await served.client.get(PODS, "web", "default")
    assert pod["metadata"]["labels"] == {"app": "web", "m": "1", "j": "2"}
    assert {"key": "x", "operator": "Exists"} in pod["spec"]["tolerations"]


async def test_labels_and_annotations_are_set_and_removed(served: Served) -> None:
    await _everything(served)
    await expect(served, "label", "pvc", "data", "tier=gold")
    text = await refuse(served, "label", "pvc", "data", "tier=silver")
    assert "already has a value" in text
    await expect(served, "label", "pvc", "data", "tier=silver", "--overwrite")
    await expect(served, "annotate", "pvc", "--all", "note=x")
    claim = await served.client.get(CLAIMS, "data", "default")
    assert claim["metadata"]["labels"] == {"tier": "silver"}
    assert claim["metadata"]["annotations"]["note"] == "x"
    await expect(served, "label", "pvc", "data", "tier-")
    claim = await served.client.get(CLAIMS, "data", "default")
    assert "labels" not in claim["metadata"]


async def test_objects_are_replaced(served: Served) -> None:
    await _everything(served)
    renamed = changed(VOLUME, "metadata", "labels", value={"new": "yes"})
    await expect(served, "replace", "-f", "-", stdin=manifest(renamed))
    stored = await served.client.get(PERSISTENT_VOLUMES, "pv1")
    assert stored["metadata"]["labels"] == {"new": "yes"}


async def test_waiting_ends_when_it_has_come_true(served: Served) -> None:
    await _everything(served)
    waiting = asyncio.ensure_future(
        expect(served, "wait", "pvc/data", "--for=jsonpath={.status.phase}=Bound", "--timeout=30s")
    )
    bound = {"status": {"phase": "Bound"}}
    await served.client.patch(CLAIMS, "data", bound, "default", subresource="status")
    assert "condition met" in await waiting
    await expect(served, "wait", "node/vm-1", "--for=condition=Ready", "--timeout=30s")
    text = await refuse(served, "wait", "pod/web", "--for=condition=Ready", "--timeout=1s")
    assert "timed out" in text


async def test_deletion_waits_for_finalizers(served: Served) -> None:
    await _everything(served)
    deleting = asyncio.ensure_future(expect(served, "delete", "pv", "pv1", "--timeout=30s"))
    async with asyncio.timeout(30):
        while not await _is_going(served):
            await asyncio.sleep(0.01)
    assert not deleting.done()
    text = await expect(served, "get", "pv", "pv1", "--no-headers")
    assert "Terminating" in text
    await expect(
        served, "patch", "pv", "pv1", "--type=merge", "-p", '{"metadata":{"finalizers":null}}'
    )
    assert "deleted" in await deleting
    with pytest.raises(NotFound):
        await served.client.get(PERSISTENT_VOLUMES, "pv1")


async def _is_going(served: Served) -> bool:
    volume = await served.client.get(PERSISTENT_VOLUMES, "pv1")
    return "deletionTimestamp" in volume["metadata"]


async def test_pod_goes_as_fast_as_asked_for(served: Served) -> None:
    await _everything(served)
    await expect(served, "delete", "pod", "web", "--grace-period=7", "--wait=false")
    pod = await served.client.get(PODS, "web", "default")
    assert pod["metadata"]["deletionGracePeriodSeconds"] == 7
    await expect(served, "delete", "pod", "web", "--grace-period=0", "--force")
    assert "NotFound" in await refuse(served, "get", "pod", "web")
    await expect(served, "create", "-f", "-", stdin=manifest(POD))
    await expect(served, "delete", "pod", "-l", "app=web", "--now", "--wait=false")


async def test_node_is_tainted_and_cordoned(served: Served) -> None:
    await expect(served, "create", "-f", "-", stdin=manifest(NODE))
    await expect(served, "cordon", "vm-1")
    assert "SchedulingDisabled" in await expect(served, "get", "node")
    await expect(served, "taint", "node", "vm-1", "a=b:NoSchedule")
    taints = (await served.client.get(NODES, "vm-1"))["spec"]["taints"]
    assert {"key": "a", "value": "b", "effect": "NoSchedule"} in taints
    await expect(served, "taint", "node", "vm-1", "a-")
    await expect(served, "uncordon", "vm-1")
    assert "SchedulingDisabled" not in await expect(served, "get", "node")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("patch", "sc", "fast", "-p", '{"provisioner":"other"}'),
         "provisioner: Forbidden: updates to provisioner are forbidden."),
        (("patch", "sc", "fast", "-p", '{"volumeBindingMode":"WaitForFirstConsumer"}'),
         "field is immutable"),
        (("patch", "pvc", "data", "-p", '{"spec":{"storageClassName":"slow"}}'),
         "spec is immutable after creation"),
        (("patch", "pvc", "data", "-p", '{"spec":{"accessModes":["Often"]}}'),
         'Unsupported value: "Often"'),
        (("patch", "pv", "pv1", "-p", '{"spec":{"nfs":{"path":"/y"}}}'),
         "spec.persistentvolumesource is immutable after creation"),
        (("patch", "pv", "pv1", "-p", '{"spec":{"capacity":{"storage":"much"}}}'),
         "spec.capacity[storage]: quantities must match the regular expression"),
    ],
)  # fmt: skip
async def test_reason_is_told_when_a_change_is_refused(
    served: Served, arguments: tuple[str, ...], text: str
) -> None:
    await _everything(served)
    assert text in await refuse(served, *arguments)


async def test_generators_make_what_they_promise(served: Served) -> None:
    for arguments in (
        ("configmap", "c", "--from-literal=a=1"), ("secret", "generic", "s", "--from-literal=a=1"),
        ("serviceaccount", "sa"), ("namespace", "other"),
        ("role", "r", "--verb=get", "--resource=pvc"),
        ("rolebinding", "rb", "--role=r", "--serviceaccount=default:sa"),
    ):  # fmt: skip
        await expect(served, "create", *arguments)
    shown = await expect(served, "get", "cm,secret,sa,role,rolebinding", "-o", "wide")
    assert "default/sa" in shown
    assert (await expect(served, "create", "token", "sa")).count(".") == 2
    await expect(served, "delete", "namespace", "other")


async def test_class_is_the_default_no_longer_when_its_annotation_goes(served: Served) -> None:
    await expect(served, "create", "-f", "-", stdin=manifest(CLASS, CLAIM))
    assert "fast (default)" in await expect(served, "get", "sc")
    await expect(served, "annotate", "sc", "fast", "storageclass.kubernetes.io/is-default-class-")
    assert "(default)" not in await expect(served, "get", "sc")
    stored = await served.client.get(STORAGE_CLASSES, "fast")
    assert stored["reclaimPolicy"] == "Delete"
    code, text = await kubectl(served, "get", "sc", "nobody")
    assert (code, "NotFound" in text) == (1, True)


async def test_fencings_tell_who_keeps_whom_from_which_disk(served: Served) -> None:
    spec = {
        "attachment": {"name": "va", "uid": "u1"}, "volume": "kubernetes.io/iscsi/d",
        "nodeName": "vm-1", "executor": "vm-2", "method": "Storage",
    }  # fmt: skip
    fencing = {
        "apiVersion": "volagent.dev/v1", "kind": "Fencing", "metadata": {"name": "f1"}, "spec": spec
    }  # fmt: skip
    await expect(served, "create", "-f", "-", stdin=manifest(fencing))
    proved = json.dumps({"status": {"phase": "Proven", "message": "its key is gone"}})
    patch = ("patch", "fencing", "f1", "--subresource=status", "--type=merge", "-p", proved)
    await expect(served, *patch)
    shown = _rows(await expect(served, "get", "fencings", "-o", "wide"))
    assert " ".join(shown[0]) == "NAME NODE VOLUME METHOD EXECUTOR PHASE AGE MESSAGE"
    told = " ".join(shown[1])
    assert told.startswith("f1 vm-1 kubernetes.io/iscsi/d Storage vm-2 Proven")
    assert told.endswith("its key is gone")
    changed_spec = json.dumps({"spec": {"executor": "vm-3"}})
    text = await refuse(served, "patch", "fencing", "f1", "--type=merge", "-p", changed_spec)
    assert "field is immutable" in text
    chosen = await expect(served, "get", "fencings", "--field-selector=spec.nodeName=vm-2")
    assert "No resources found" in chosen
    assert "cannot be changed" in await expect(served, "explain", "fencing")
