"""EBS volumes are taken by the API's word, and from no instance that runs."""

import pytest

from tests.simulation.fake_ec2 import FakeEc2, Lasting
from tests.simulation.virtual_time import VirtualClock
from volagent.drivers.contract import VolumeSource
from volagent.drivers.ebs.volumes import EbsVolumes
from volagent.drivers.errors import Transient
from volagent.drivers.fencing.contract import FenceOrder, NoProof
from volagent.drivers.fencing.ebs import EbsFence


class Setting:
    def __init__(self, **lasting):
        self.ec2 = FakeEc2(VirtualClock(), Lasting(**lasting))
        self.disk = self.ec2.add()
        self.disk.instance, self.disk.device = "i-lost", "/dev/xvdba"
        body = {"volumeID": f"aws://us-east-1a/{self.disk.id}"}
        source = VolumeSource("awsElasticBlockStore", body, persistent=True)
        self.order = FenceOrder(source, "disk", "node01", "a1")

    async def fence(self):
        return await EbsFence(EbsVolumes(self.ec2)).fence(self.order)


@pytest.mark.parametrize("state", ["running", "stopping", "shutting-down", "pending"])
async def test_nothing_is_detached_from_an_instance_that_may_write(state):
    setting = Setting()
    setting.ec2.instances["i-lost"] = state
    with pytest.raises(NoProof, match=f"i-lost, which is {state}") as caught:
        await setting.fence()
    assert "stop" in caught.value.remedy
    assert "DetachVolume" not in setting.ec2.calls
    assert setting.disk.instance == "i-lost"


@pytest.mark.parametrize("state", ["stopped", "terminated", "unknown"])
async def test_volume_of_an_ended_instance_is_free_when_the_api_says_so(state):
    setting = Setting()
    setting.ec2.instances["i-lost"] = state
    with pytest.raises(Transient, match="is being detached"):
        await setting.fence()
    assert "attached to no instance" in await setting.fence()


async def test_volume_that_is_being_detached_is_no_proof_yet_and_not_detached_twice():
    setting = Setting(detaching=60.0)
    setting.ec2.instances["i-lost"] = "stopped"
    for _ in range(2):
        with pytest.raises(Transient):
            await setting.fence()
    assert setting.ec2.calls.count("DetachVolume") == 1


async def test_volume_that_the_api_does_not_know_is_no_proof():
    setting = Setting()
    setting.disk.deleted = True
    with pytest.raises(Transient, match="knows no"):
        await setting.fence()
