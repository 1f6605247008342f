"""Stock kubectl against our API: what a user of Kubernetes types must simply work."""

import asyncio
import json
from typing import Any

import pytest
import yaml

from tests.contract.kubernetes.conftest import Served
from tests.contract.kubernetes.kubectl import kubectl, needs_kubectl, start
from volagent.client.contract import CONFIG_MAPS, PODS, NotFound

pytestmark = needs_kubectl
POD: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "web", "labels": {"app": "web"}},
    "spec": {
        "nodeName": "vm-1",
        "containers": [
            {
                "name": "main",
                "image": "busybox:1.36",
                "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
            }
        ],
        "volumes": [{"name": "scratch", "emptyDir": {}}],
    },
}
CONFIG = {
    "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"},
    "data": {"a": "1", "b": "2"},
}  # fmt: skip


async def test_pod_is_there_when_applied_and_gone_when_deleted(served: Served) -> None:
    manifest = yaml.safe_dump_all([POD, CONFIG])
    code, text = await kubectl(served, "apply", "-f", "-", stdin=manifest)
    assert (code, "pod/web created" in text, "configmap/settings created" in text) == (
        0, True, True,
    ), text  # fmt: skip
    pod = await served.client.get(PODS, "web", "default")
    assert pod["spec"]["volumes"] == [{"name": "scratch", "emptyDir": {}}]

    code, text = await kubectl(served, "apply", "-f", "-", stdin=manifest)
    assert (code, "pod/web unchanged" in text) == (0, True), text

    code, text = await kubectl(
        served, "delete", "pod", "web", "--grace-period=0", "--force", "--wait=true"
    )
    assert code == 0, text
    with pytest.raises(NotFound):
        await served.client.get(PODS, "web", "default")


async def test_object_changes_when_a_changed_manifest_is_applied(served: Served) -> None:
    await kubectl(served, "apply", "-f", "-", stdin=yaml.safe_dump(CONFIG))
    changed = {**CONFIG, "data": {"a": "3"}}
    code, text = await kubectl(served, "apply", "-f", "-", stdin=yaml.safe_dump(changed))
    assert (code, "configured" in text) == (0, True), text
    stored = await served.client.get(CONFIG_MAPS, "settings", "default")
    assert stored["data"] == {"a": "3"}


async def test_columns_are_those_of_kubernetes_when_listing(served: Served) -> None:
    await served.client.create(PODS, POD, "default")
    code, text = await kubectl(served, "get", "pods", "-o", "wide")
    assert code == 0, text
    head, row = (line.split() for line in text.splitlines()[:2])
    assert head[:5] == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert row[:4] == ["web", "0/1", "Pending", "0"]
    assert "vm-1" in row
    code, text = await kubectl(served, "get", "po,ns,cm,secret,pv,pvc,no,sa,ev", "-A")
    assert (code, "namespace/default" in text) == (0, True), text


async def test_document_is_complete_when_asked_for_as_json(served: Served) -> None:
    await served.client.create(PODS, POD, "default")
    code, text = await kubectl(served, "get", "pod", "web", "-o", "json")
    assert (code, json.loads(text)["spec"]["nodeName"]) == (0, "vm-1")
    code, text = await kubectl(served, "get", "pod", "-l", "app=other", "-o", "name")
    assert (code, text.strip()) == (0, "")
    code, text = await kubectl(served, "describe", "pod", "web")
    assert (code, "EmptyDir" in text) == (0, True), text


async def test_reason_is_shown_when_a_pod_is_invalid(served: Served) -> None:
    broken = {**POD, "spec": {**POD["spec"], "volumes": [{"name": "X"}]}}
    code, text = await kubectl(served, "create", "-f", "-", stdin=yaml.safe_dump(broken))
    assert code == 1
    assert 'The Pod "web" is invalid' in text
    assert "spec.volumes[0].name" in text
    typo = {**POD, "specc": {}}
    code, text = await kubectl(served, "create", "-f", "-", stdin=yaml.safe_dump(typo))
    assert (code, 'unknown field "specc"' in text) == (1, True), text


async def test_label_is_set_when_patched_or_labelled(served: Served) -> None:
    await served.client.create(PODS, POD, "default")
    for arguments in (
        ("label", "pod", "web", "tier=front"),
        ("annotate", "pod", "web", "note=x"),
        ("patch", "pod", "web", "-p", '{"metadata":{"labels":{"b":"c"}}}'),
        ("patch", "pod", "web", "--type=json", "-p",
         '[{"op":"add","path":"/metadata/labels/d","value":"e"}]'),
    ):  # fmt: skip
        code, text = await kubectl(served, *arguments)
        assert code == 0, text
    labels = (await served.client.get(PODS, "web", "default"))["metadata"]["labels"]
    assert labels == {"app": "web", "tier": "front", "b": "c", "d": "e"}


async def test_change_is_shown_when_watching(served: Served) -> None:
    process = await start(served, "get", "configmaps", "-w", "--no-headers")
    assert process.stdout is not None
    await served.client.create(CONFIG_MAPS, CONFIG, "default")
    async with asyncio.timeout(30):
        line = await process.stdout.readline()
    assert line.decode().split()[:2] == ["settings", "2"]
    process.terminate()
    await process.wait()


async def test_condition_is_met_when_waiting_for_it(served: Served) -> None:
    await served.client.create(PODS, POD, "default")
    waiting = asyncio.ensure_future(
        kubectl(
            served, "wait", "pod/web", "--for=jsonpath={.status.phase}=Running", "--timeout=30s"
        )
    )
    status = {"status": {"phase": "Running"}}
    await served.client.patch(PODS, "web", status, "default", subresource="status")
    code, text = await waiting
    assert (code, "condition met" in text) == (0, True), text
