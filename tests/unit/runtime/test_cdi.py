import json
import os
import stat

import pytest

from tests.unit.runtime.pod_making import make_container, make_pod
from volagent.runtime.cdi import CdiDirectory, device_name, render
from volagent.runtime.contract import DeviceSpec, OciMount

HANDED = {
    "main": ((OciMount("/data", "/pods/v", ("rbind", "rw", "rprivate")),), ()),
    "side": ((), (DeviceSpec("/dev/x", "/dev/loop3", "r"),)),
}
POD = make_pod(make_container("main"), make_container("side"))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cdi"


@pytest.fixture
def directory(path):
    return CdiDirectory(str(path))


def file_of(path):
    return path / "volagent.dev-pod-default_web.json"


def test_file_has_a_device_for_the_pod_and_one_for_each_container():
    document = json.loads(render(POD, HANDED))
    assert document["kind"] == "volagent.dev/pod"
    assert document["cdiVersion"] == "0.5.0"
    devices = {device["name"]: device["containerEdits"] for device in document["devices"]}
    assert list(devices) == ["default_web", "default_web_main", "default_web_side"]
    assert devices["default_web"] == devices["default_web_main"] == {
        "mounts": [
            {
                "hostPath": "/pods/v", "containerPath": "/data", "type": "bind",
                "options": ["rbind", "rw", "rprivate"],
            }
        ]
    }  # fmt: skip
    assert devices["default_web_side"]["deviceNodes"] == [
        {"path": "/dev/x", "hostPath": "/dev/loop3", "type": "b", "permissions": "r"}
    ]


def test_file_is_readable_by_all_and_nothing_else_is_left(directory, path):
    before = os.umask(0o077)
    try:
        assert directory.write(POD, HANDED)
    finally:
        os.umask(before)
    assert os.listdir(path) == [file_of(path).name]
    assert stat.S_IMODE(file_of(path).stat().st_mode) == 0o644
    assert file_of(path).read_bytes() == render(POD, HANDED)


def test_file_is_written_only_when_it_changes(directory, path):
    directory.write(POD, HANDED)
    written = file_of(path).stat()
    assert not directory.write(POD, HANDED)
    assert not CdiDirectory(str(path)).write(POD, HANDED)
    assert file_of(path).stat().st_ino == written.st_ino
    assert directory.write(POD, {"main": HANDED["main"]})
    assert file_of(path).read_bytes() == render(POD, {"main": HANDED["main"]})


def test_file_goes_with_its_pod(directory, path):
    directory.write(POD, HANDED)
    directory.remove(POD)
    assert os.listdir(path) == []
    directory.remove(POD)


def test_file_stays_when_the_pod_was_declared_again(directory, path):
    directory.write(POD, HANDED)
    successor = make_pod(make_container("main"), metadata={"uid": "another"})
    directory.write(successor, {"main": HANDED["main"]})
    directory.remove(POD)
    assert file_of(path).exists()
    directory.remove(successor)
    assert not file_of(path).exists()


def test_file_is_written_again_when_somebody_removed_the_directory(directory, path):
    directory.write(POD, HANDED)
    file_of(path).unlink()
    path.rmdir()
    assert directory.write(POD, {"main": HANDED["main"]})
    assert file_of(path).exists()


def test_leftovers_of_pods_that_are_gone_are_pruned_and_nothing_else(directory, path):
    assert directory.prune([]) == 0
    directory.write(POD, HANDED)
    gone = make_pod(make_container("main"), metadata={"name": "gone"})
    directory.write(gone, HANDED)
    (path / ".volagent.dev-pod-default_half").write_text("{")
    (path / "nvidia.yaml").write_text("x")
    assert directory.prune([device_name(POD)]) == 2
    assert sorted(os.listdir(path)) == ["nvidia.yaml", file_of(path).name]


def test_link_in_the_place_of_a_draft_is_not_followed(directory, path, tmp_path):
    path.mkdir()
    (tmp_path / "victim").write_text("precious")
    (path / ".volagent.dev-pod-default_web").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic links"):
        directory.write(POD, HANDED)
    assert (tmp_path / "victim").read_text() == "precious"
