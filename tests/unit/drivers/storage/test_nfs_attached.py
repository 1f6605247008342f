"""The node's half of nfs.volagent.dev: the mount of any export, and a right that is attached."""

import pytest

from tests.unit.drivers.test_nfs import Machine
from volagent.drivers.contract import (
    Attaches,
    Networked,
    Phase,
    Publication,
    VolumeKey,
    VolumeMode,
    VolumeSource,
    VolumeSpec,
)
from volagent.drivers.errors import Rejected
from volagent.drivers.nfs_attached import AttachedNfsDriver, read_handle
from volagent.objects.meta import PodUid

BODY = {
    "driver": "nfs.volagent.dev", "volumeHandle": "pvc-1",
    "volumeAttributes": {"server": "10.0.0.5", "path": "/pool/pvc-1"},
}  # fmt: skip
TARGET = "/k/pods/u/volumes/kubernetes.io~csi/v/mount"


@pytest.fixture
def machine():
    return Machine()


@pytest.fixture
def driver(machine):
    return AttachedNfsDriver(machine.driver)


def options_of(driver, **changes):
    return driver.read_options(VolumeSource("csi", {**BODY, **changes}))


def test_it_is_a_networked_volume_known_by_its_handle(driver):
    options = options_of(driver)
    assert isinstance(driver, Attaches)
    assert isinstance(driver, Networked)
    assert driver.identify(options) == read_handle(VolumeSource("csi", BODY)) == "pvc-1"
    assert driver.backend(options) == "nfs:10.0.0.5"
    assert driver.phases(options, VolumeMode.FILESYSTEM) == (Phase.ATTACH, Phase.PUBLISH)


async def test_it_is_mounted_as_any_export_and_unmounted_before_it_is_given_back(machine, driver):
    options = options_of(driver)
    volume = VolumeSpec(
        VolumeKey("pv/pv-1"), driver.name, "pv-1", options, backend=driver.backend(options)
    )
    attached = await driver.attach(volume)
    use = Publication(PodUid("u"), "shop/web", TARGET)
    mounted = await driver.publish(volume, use, staged=None, device=attached.device)
    assert machine.mounts.calls[0][:2] == ("mount", "10.0.0.5:/pool/pvc-1")
    await driver.unpublish(mounted.mount)
    assert machine.mounts.calls[1][0] == "umount"
    assert (await driver.detach("pv-1", attached.device)).evidence == "nothing is mounted"


@pytest.mark.parametrize(
    "changes",
    [
        {"volumeAttributes": {"server": "10.0.0.5"}},
        {"volumeAttributes": {"server": "10.0.0.5", "path": "/a/../b"}},
        {"volumeAttributes": {"server": "-o bad", "path": "/a"}},
        {"colour": "red"},
    ],
)
def test_source_that_is_none_is_refused(driver, changes):
    with pytest.raises(Rejected):
        options_of(driver, **changes)


def test_raw_device_of_it_is_refused(driver):
    with pytest.raises(Rejected, match="Block"):
        driver.phases(options_of(driver), VolumeMode.BLOCK)
