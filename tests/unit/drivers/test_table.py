"""The table of drivers: complete, and each with the capabilities that its phases call for."""

import pytest

from tests.contract.drivers.worlds import drivers_on
from tests.simulation.fake_host import make_fake_host
from tests.simulation.fake_kernel import FakeKernel
from volagent.drivers import choose_driver
from volagent.drivers.contract import Attaches, Publishes
from volagent.drivers.layout import directory_name
from volagent.objects.volumes import POD_SOURCES, PV_SOURCES

DRIVERS = drivers_on(make_fake_host(FakeKernel()))
FIELDS = sorted({*POD_SOURCES, *PV_SOURCES} - {"csi"})


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_of_a_volume_has_a_driver(field):
    name = choose_driver(field, {})
    assert DRIVERS[name].name == name


def test_our_own_kinds_are_chosen_by_the_name_in_csi():
    assert choose_driver("csi", {"driver": "image.volagent.dev"}) in DRIVERS


@pytest.mark.parametrize("name", DRIVERS)
def test_driver_publishes_and_has_a_name_that_can_be_a_directory(name):
    assert isinstance(DRIVERS[name], Publishes)
    assert "/" not in directory_name(name)


def test_only_drivers_of_devices_attach_and_that_of_what_a_storage_node_shows():
    attaching = {name for name, driver in DRIVERS.items() if isinstance(driver, Attaches)}
    assert attaching == {
        "image.volagent.dev", "kubernetes.io/local-volume", "kubernetes.io/aws-ebs",
        "kubernetes.io/iscsi",
        "nbd.volagent.dev", "nfs.volagent.dev",
    }  # fmt: skip
