"""Every example is accepted as it is, says what it is for, and reaches a driver."""

from pathlib import Path

import pytest

from volagent.cli.manifests import read_manifests
from volagent.objects.validate import prepare_create

EXAMPLES = Path(__file__).parents[2] / "config" / "examples"
FILES = sorted(EXAMPLES.rglob("*.yaml"))
KINDS = {
    "emptyDir", "hostPath", "secret", "configMap", "downwardAPI", "projected", "nfs",
    "persistentVolumeClaim", "ephemeral", "awsElasticBlockStore",
    "iscsi",
}  # fmt: skip


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_example_passes_the_api_rules(file):
    for manifest in read_manifests((str(file),), ""):
        prepare_create(manifest.resource.kind, manifest.document)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_example_says_in_its_first_line_what_it_is_for(file):
    first = file.read_text().splitlines()[0]
    assert first.startswith("# ")
    assert first.endswith(".")


def test_examples_show_every_kind_of_volume():
    shown = set()
    for manifest in read_manifests(tuple(map(str, EXAMPLES.glob("*.yaml"))), ""):
        for volume in manifest.document.get("spec", {}).get("volumes", ()):
            shown |= set(volume) - {"name"}
    assert shown == KINDS


def test_demo_pod_asks_for_what_the_demo_declares():
    objects = {
        (one.resource.kind, one.name): one.document
        for one in read_manifests((str(EXAMPLES / "demo"),), "")
    }
    volumes = {one["name"]: one for one in objects["Pod", "web"]["spec"]["volumes"]}
    claim = objects["PersistentVolumeClaim", volumes["data"]["persistentVolumeClaim"]["claimName"]]
    assert ("PersistentVolume", claim["spec"]["volumeName"]) in objects
    assert ("Secret", volumes["password"]["secret"]["secretName"]) in objects
    assert ("ConfigMap", volumes["config"]["configMap"]["name"]) in objects
