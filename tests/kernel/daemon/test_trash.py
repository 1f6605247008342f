"""A volume made for a claim, deleted with it, and had back from the trash: the real daemon."""

from pathlib import Path

import pytest

from tests.kernel.daemon.harness import Daemon, Json, until

TRASH = "/apis/node.volagent.dev/v1/trash"
CLASS: Json = {
    "kind": "StorageClass",
    "apiVersion": "storage.k8s.io/v1",
    "metadata": {"name": "directories"},
    "provisioner": "directory.volagent.dev",
    "parameters": {"volagent.dev/trash-retention": "1h"},
}
CLAIM: Json = {
    "kind": "PersistentVolumeClaim",
    "apiVersion": "v1",
    "metadata": {"name": "data"},
    "spec": {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "directories",
        "resources": {"requests": {"storage": "1Mi"}},
    },
}


def volume_of(daemon: Daemon) -> Json:
    name = daemon.get(CLAIM)["spec"]["volumeName"]
    return daemon.get({"kind": "PersistentVolume", "apiVersion": "v1", "metadata": {"name": name}})


def wait_claimed(daemon: Daemon) -> Path:
    """Wait until the claim is bound; the directory of its volume."""
    daemon.wait_bound(CLAIM)
    return Path(volume_of(daemon)["spec"]["local"]["path"])


def trash_it(daemon: Daemon) -> Json:
    """Delete the claim; its volume's entry in the trash."""
    daemon.delete_gone(CLAIM)
    volumes = "/api/v1/persistentvolumes"
    until(lambda: not daemon.call("GET", volumes)["items"], told=daemon.read_log)
    (entry,) = daemon.call("GET", TRASH)["items"]
    assert isinstance(entry, dict)
    return entry


@pytest.mark.parametrize("killed", [False, True], ids=["running on", "killed in between"])
def test_data_is_had_back_from_the_trash_by_a_new_claim_of_the_name(
    daemon: Daemon, killed: bool
) -> None:
    daemon.declare(CLASS, CLAIM)
    directory = wait_claimed(daemon)
    (directory / "file").write_text("precious")
    entry = trash_it(daemon)
    assert entry["claim"] == "default/data"
    assert not directory.exists()
    if killed:
        daemon.kill()
        daemon.start()
    daemon.call("POST", f"{TRASH}/restore", {"ids": [entry["id"]]})
    daemon.declare(CLAIM)
    assert wait_claimed(daemon) == directory
    assert (directory / "file").read_text() == "precious"
    assert volume_of(daemon)["spec"]["persistentVolumeReclaimPolicy"] == "Retain"
    assert daemon.call("GET", TRASH)["items"] == []


def test_emptied_trash_leaves_nothing_on_the_disk(daemon: Daemon) -> None:
    daemon.declare(CLASS, CLAIM)
    directory = wait_claimed(daemon)
    (directory / "file").write_text("rubbish")
    entry = trash_it(daemon)
    daemon.call("POST", f"{TRASH}/empty", {"ids": [entry["id"]]})
    assert list(directory.parent.rglob("file")) == []


def test_volume_made_while_the_daemon_is_killed_is_bound_or_gone_and_never_left(
    daemon: Daemon,
) -> None:
    daemon.declare(CLASS)
    claims = [{**CLAIM, "metadata": {"name": f"data-{index}"}} for index in range(8)]
    daemon.declare(*claims)
    daemon.kill()
    daemon.start()
    for claim in claims:
        daemon.wait_bound(claim)
    made = {
        Path(volume["spec"]["local"]["path"])
        for volume in daemon.call("GET", "/api/v1/persistentvolumes")["items"]
    }
    assert len(made) == len(claims)
    (home,) = {directory.parent for directory in made}
    assert {each for each in home.iterdir() if not each.name.startswith(".")} == made
