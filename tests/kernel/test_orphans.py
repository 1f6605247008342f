"""What a machine that lost its power leaves of pods that are elsewhere: swept, never emptied."""

from pathlib import Path

import pytest

from volagent.drivers.layout import Layout
from volagent.host.errors import HostError
from volagent.host.real import make_host
from volagent.node.orphans import find_orphans, remove_pod_directory, sweep_skeletons

VOLUME = "volumes/kubernetes.io~iscsi/pv-1"
CSI = "volumes/kubernetes.io~csi/pv-3/mount"
DEVICE = "volumeDevices/kubernetes.io~iscsi/pv-2"
SUB_PATH = "volume-subpaths/data/main/0"


@pytest.fixture
def layout(scratch):
    (scratch / "pods").mkdir()
    return Layout(str(scratch))


@pytest.fixture
def host(helpers):
    return make_host(helpers=helpers)


def leave(layout: Layout, pod: str, path: str) -> Path:
    where = Path(layout.pods) / pod / path
    where.parent.mkdir(parents=True)
    return where


def test_links_to_devices_and_empty_mount_points_go_with_their_pod(host, layout):
    leave(layout, "gone", VOLUME).mkdir()
    leave(layout, "gone", CSI).mkdir()
    leave(layout, "gone", DEVICE).symlink_to("/dev/no-such-disk")
    leave(layout, "gone", SUB_PATH).touch()
    sweep_skeletons(host, layout, known=())
    assert list(Path(layout.pods).iterdir()) == []


def test_pod_that_is_known_is_left_alone(host, layout):
    link = leave(layout, "known", DEVICE)
    link.symlink_to("/dev/no-such-disk")
    sweep_skeletons(host, layout, known=("known",))
    assert link.is_symlink()


@pytest.mark.parametrize(
    "path", [f"{VOLUME}/precious", f"{CSI}/precious", CSI, VOLUME, DEVICE, SUB_PATH]
)
def test_data_is_reported_and_never_removed(host, layout, path):
    file = leave(layout, "gone", path)
    file.write_text("precious")
    sweep_skeletons(host, layout, known=())
    assert file.read_text() == "precious"
    (told,) = find_orphans(host, layout, known=())
    assert told["uid"] == "gone"
    with pytest.raises(HostError):
        remove_pod_directory(host.trees, f"{layout.pods}/gone")
