"""Stock kubectl applies: on either side, with conflicts, owners, dry runs and differences."""

from pathlib import Path

import yaml

from tests.contract.kubernetes.conftest import Served
from tests.contract.kubernetes.kubectl import expect, kubectl, needs_kubectl, refuse
from tests.contract.kubernetes.manifests import CLAIM, CLASS, EVERYTHING, VOLUME, changed, manifest
from volagent.client.contract import PERSISTENT_VOLUMES, STORAGE_CLASSES

pytestmark = needs_kubectl
APPLY = ("apply", "--server-side", "-f", "-")
WITHOUT_C = changed(VOLUME, "metadata", "labels", "c")


def _editor(directory: Path, old: str, new: str) -> str:
    script = directory / "editor"
    script.write_text(f"#!/bin/sh\nsed -i 's/{old}/{new}/' \"$1\"\n")
    script.chmod(0o700)
    return str(script)


async def test_objects_are_made_and_then_kept_when_applied_on_the_server(served: Served) -> None:
    for _ in range(2):
        text = await expect(served, *APPLY, stdin=manifest(*EVERYTHING))
        assert text.count("serverside-applied") == len(EVERYTHING)
    stored = await served.client.get(PERSISTENT_VOLUMES, "pv1")
    first = stored["metadata"]["resourceVersion"]
    await expect(served, *APPLY, stdin=manifest(VOLUME))
    stored = await served.client.get(PERSISTENT_VOLUMES, "pv1")
    assert stored["metadata"]["resourceVersion"] == first
    (entry,) = stored["metadata"]["managedFields"]
    assert (entry["manager"], entry["operation"]) == ("kubectl", "Apply")


async def test_field_is_taken_out_when_it_is_no_longer_applied(served: Served) -> None:
    await expect(served, *APPLY, stdin=manifest(VOLUME))
    await expect(served, *APPLY, stdin=manifest(WITHOUT_C))
    stored = await served.client.get(PERSISTENT_VOLUMES, "pv1")
    assert stored["metadata"]["labels"] == {"a": "b"}


async def test_edit_is_not_undone_unawares_when_applied_again(
    served: Served, tmp_path: Path
) -> None:
    await expect(served, *APPLY, stdin=manifest(VOLUME))
    editor = _editor(tmp_path, "a: b", "a: edited")
    await expect(served, "edit", "pv", "pv1", EDITOR=editor)
    text = await refuse(served, *APPLY, stdin=manifest(VOLUME))
    assert (
        'Apply failed with 1 conflict: conflict with "kubectl-edit" using v1: .metadata.labels.a'
    ) in text
    assert "--force-conflicts" in text
    await expect(served, *APPLY, "--force-conflicts", stdin=manifest(VOLUME))
    stored = await served.client.get(PERSISTENT_VOLUMES, "pv1")
    assert stored["metadata"]["labels"] == {"a": "b", "c": "d"}


async def test_managers_conflict_until_one_is_forced(served: Served) -> None:
    larger = changed(VOLUME, "spec", "capacity", "storage", value="2Gi")
    await expect(served, *APPLY, stdin=manifest(VOLUME))
    text = await refuse(served, *APPLY, "--field-manager=other", stdin=manifest(larger))
    assert 'conflict with "kubectl": .spec.capacity.storage' in text
    forced = ("--field-manager=other", "--force-conflicts")
    await expect(served, *APPLY, *forced, stdin=manifest(larger))
    text = await refuse(served, *APPLY, stdin=manifest(VOLUME))
    assert 'conflict with "other": .spec.capacity.storage' in text


async def test_owner_of_everything_else_is_named_when_a_program_made_it(served: Served) -> None:
    await served.client.create(PERSISTENT_VOLUMES, VOLUME)
    await expect(served, *APPLY, stdin=manifest(VOLUME))
    larger = changed(VOLUME, "spec", "capacity", "storage", value="2Gi")
    text = await refuse(served, *APPLY, stdin=manifest(larger))
    assert 'conflict with "before-first-apply" using v1: .spec.capacity.storage' in text


async def test_applying_moves_from_client_to_server_without_losing_track(served: Served) -> None:
    await expect(served, "apply", "-f", "-", stdin=manifest(VOLUME))
    await expect(served, *APPLY, stdin=manifest(WITHOUT_C))
    stored = await served.client.get(PERSISTENT_VOLUMES, "pv1")
    assert stored["metadata"]["labels"] == {"a": "b"}
    text = await expect(served, "get", "pv", "pv1", "-o", "yaml", "--show-managed-fields")
    assert "kubectl-client-side-apply" not in text


async def test_lists_are_merged_when_applied_on_the_client(served: Served) -> None:
    await expect(served, "apply", "-f", "-", stdin=manifest(*EVERYTHING))
    extra = '{"spec":{"tolerations":[{"key":"x","operator":"Exists"}]}}'
    await expect(served, "patch", "pod", "web", "-p", extra)
    text = await expect(served, "apply", "-f", "-", stdin=manifest(*EVERYTHING))
    assert "pod/web configured" in text or "pod/web unchanged" in text
    await expect(served, "apply", "-f", "-", stdin=manifest(WITHOUT_C))
    stored = await served.client.get(PERSISTENT_VOLUMES, "pv1")
    assert stored["metadata"]["labels"] == {"a": "b"}


async def test_nothing_is_written_when_run_dry(served: Served) -> None:
    text = await expect(served, *APPLY, "--dry-run=server", stdin=manifest(CLASS))
    assert "serverside-applied (server dry run)" in text
    assert await expect(served, "get", "sc", "-o", "name") == ""
    await expect(served, *APPLY, stdin=manifest(CLASS))
    slower = changed(CLASS, "allowVolumeExpansion", value=False)
    await expect(served, *APPLY, "--dry-run=server", stdin=manifest(slower))
    assert (await served.client.get(STORAGE_CLASSES, "fast"))["allowVolumeExpansion"] is True
    wrong = changed(CLASS, "parameters", "type", value="hdd")
    text = await refuse(served, *APPLY, "--dry-run=server", stdin=manifest(wrong))
    assert "parameters: Forbidden: updates to parameters are forbidden." in text


async def test_differences_are_shown_before_anything_is_changed(served: Served) -> None:
    await expect(served, "apply", "-f", "-", stdin=manifest(VOLUME))
    larger = changed(VOLUME, "spec", "capacity", "storage", value="2Gi")
    for side in ((), ("--server-side", "--force-conflicts")):
        code, text = await kubectl(served, "diff", *side, "-f", "-", stdin=manifest(larger))
        assert code == 1, text
        assert "-    storage: 1Gi" in text
        assert "+    storage: 2Gi" in text
    code, text = await kubectl(served, "diff", "-f", "-", stdin=manifest(VOLUME))
    assert (code, text) == (0, "")


async def test_status_is_applied_through_its_own_door(served: Served) -> None:
    await expect(served, "apply", "-f", "-", stdin=manifest(CLAIM))
    status = {
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"},
        "status": {"phase": "Lost"}, "spec": {"volumeName": "ignored"},
    }  # fmt: skip
    door = ("--subresource=status", "--field-manager=controller", "--force-conflicts")
    await expect(served, *APPLY, *door, stdin=manifest(status))
    text = await expect(served, "get", "pvc", "data", "-o", "yaml", "--show-managed-fields")
    stored = yaml.safe_load(text)
    assert stored["status"]["phase"] == "Lost"
    assert "volumeName" not in stored["spec"]
    entries = {entry["manager"]: entry for entry in stored["metadata"]["managedFields"]}
    assert entries["controller"]["subresource"] == "status"


async def test_unknown_field_is_named_whatever_way_it_comes(served: Served) -> None:
    typo = changed(CLASS, "reclaimPolcy", value="Retain")
    named = 'strict decoding error: unknown field "reclaimPolcy"'
    assert named in await refuse(served, "create", "-f", "-", stdin=manifest(typo))
    assert named in await refuse(served, "apply", "-f", "-", stdin=manifest(typo))
    text = await refuse(served, *APPLY, stdin=manifest(typo))
    assert ".reclaimPolcy: field not declared in schema" in text
    text = await expect(served, "create", "--validate=warn", "-f", "-", stdin=manifest(typo))
    assert 'Warning: unknown field "reclaimPolcy"' in text
    patch = ("patch", "sc", "fast", "--type=merge", "-p", '{"spec":{"foo":1}}')
    assert 'Warning: unknown field "spec"' in await expect(served, *patch)
