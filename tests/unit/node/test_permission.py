"""The permission for a disk, read from a server before and after a node makes itself known."""

import pytest

from tests.simulation.fake_host import make_fake_host
from tests.simulation.fake_initiator import FakeInitiator
from tests.simulation.fake_kernel import FakeKernel
from tests.unit.control.controllers import start_server
from volagent.client.contract import NODES, VOLUME_ATTACHMENTS, ApiError
from volagent.drivers.contract import VolumeKey, VolumeSource, VolumeSpec
from volagent.drivers.errors import Transient, Waiting
from volagent.drivers.iscsi.driver import IscsiDriver
from volagent.node.attached import AttachmentFinder
from volagent.node.attachment import attachment_of
from volagent.node.permission import Permissions
from volagent.objects.attachments import attachment_name

BODY = {"targetPortal": "10.0.0.5", "iqn": "iqn.2026-01.lab:a", "lun": 1}


class Setting:
    def __init__(self, client):
        self.client = client
        host = make_fake_host(FakeKernel())
        self.initiator = FakeInitiator(host, reserves=True)
        self.driver = IscsiDriver(host, self.initiator)
        finder = AttachmentFinder(client, "node01")
        self.permissions = Permissions({self.driver.name: self.driver}, finder.fetch_permission)
        options = self.driver.read_options(VolumeSource("iscsi", BODY))
        self.spec = VolumeSpec(
            VolumeKey("pv/disk"), self.driver.name, "disk", options,
            identity=self.driver.identify(options),
        )  # fmt: skip
        self.volume = attachment_of(self.spec)

    async def attach(self, node="node01"):
        name = attachment_name(self.volume, node, exclusive=True)
        spec = {
            "attacher": "volagent.dev", "nodeName": node,
            "source": {"persistentVolumeName": "disk"},
        }  # fmt: skip
        made = await self.client.create(
            VOLUME_ATTACHMENTS, {"metadata": {"name": name}, "spec": spec}
        )
        return made["metadata"]["uid"]

    async def detach(self):
        name = attachment_name(self.volume, "", exclusive=True)
        await self.client.delete(VOLUME_ATTACHMENTS, name)

    async def tell(self, *, attached=True, in_use=True):
        status = {
            "volumesAttached": [{"name": self.volume, "devicePath": ""}] if attached else None,
            "volumesInUse": [self.volume] if in_use else None,
        }
        await self.client.patch(NODES, "node01", {"status": status}, subresource="status")


@pytest.fixture
async def setting():
    client = await start_server()
    await client.create(NODES, {"metadata": {"name": "node01"}})
    return Setting(client)


async def test_permission_names_the_attachment(setting):
    uid = await setting.attach()
    await setting.tell()
    permission = await setting.permissions.ask(setting.spec)
    assert permission.attachment_uid == uid
    assert permission.node == "node01"
    assert permission.exclusive
    assert await permission.confirm() == ""


async def test_driver_that_tells_nobody_needs_none(setting):
    setting.initiator.reserves = False
    assert await setting.permissions.ask(setting.spec) is None


@pytest.mark.parametrize("lists", [{"attached": False}, {"in_use": False}])
async def test_disk_that_only_one_side_names_is_waited_for(setting, lists):
    await setting.attach()
    await setting.tell(**lists)
    with pytest.raises(Waiting):
        await setting.permissions.ask(setting.spec)


async def test_disk_of_another_node_is_waited_for(setting):
    await setting.attach("node02")
    await setting.tell()
    with pytest.raises(Waiting):
        await setting.permissions.ask(setting.spec)


async def test_permission_that_was_withdrawn_is_not_confirmed(setting):
    await setting.attach()
    await setting.tell()
    permission = await setting.permissions.ask(setting.spec)
    await setting.tell(attached=False)
    assert "not attached to this node any more" in await permission.confirm()


async def test_another_permission_for_the_same_disk_is_not_this_one(setting):
    await setting.attach()
    await setting.tell()
    permission = await setting.permissions.ask(setting.spec)
    await setting.detach()
    await setting.attach()
    assert "anew" in await permission.confirm()


async def test_silent_server_permits_nothing(setting):
    await setting.attach()
    await setting.tell()
    permission = await setting.permissions.ask(setting.spec)

    class Silent:
        async def get(self, *_):
            raise ApiError("no answer")

    finder = AttachmentFinder(Silent(), "node01")
    silent = Permissions({setting.driver.name: setting.driver}, finder.fetch_permission)
    with pytest.raises(Transient, match="no server says so"):
        await silent.ask(setting.spec)
    assert permission.attachment_uid
