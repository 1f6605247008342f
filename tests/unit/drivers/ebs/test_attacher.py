"""The server's half against an API that takes its time: attached once, and given back by name."""

import asyncio

import pytest

from tests.simulation.fake_ec2 import ZONE, Lasting
from tests.simulation.virtual_time import run_virtually
from tests.unit.drivers.ebs.machine import ME, Killed, World, on_world
from volagent.drivers.contract import VolumeSource
from volagent.drivers.ebs.api import Ec2Error
from volagent.drivers.ebs.kept import EXPIRES
from volagent.drivers.errors import Rejected, Transient, Uncertain


@on_world(Lasting(attaching=8, detaching=5))
async def test_disk_is_attached_to_the_instance_that_the_node_is(world):
    facts = await world.attacher.attach(world.placed())
    assert facts == {"devicePath": "/dev/xvdba", "instanceID": ME}
    assert await world.attacher.attach(world.placed()) == facts
    assert world.ec2.calls.count("AttachVolume") == 1
    await world.attacher.detach(world.placed(facts=facts))
    assert world.disk.instance == ""
    await world.attacher.detach(world.placed(facts=facts))
    assert world.ec2.calls.count("DetachVolume") == 1


@on_world()
async def test_node_that_has_not_said_what_it_is_gets_nothing(world):
    for said in ("", "gce://project/zone/name"):
        world.machines["vm1"] = said
        with pytest.raises(Transient, match="has not said which instance"):
            await world.attacher.attach(world.placed())
    assert world.ec2.calls == []


@on_world()
async def test_disk_is_taken_from_a_node_whose_object_is_gone(world):
    facts = await world.attacher.attach(world.placed())
    del world.machines["vm1"]
    with pytest.raises(Transient, match="nobody knows whether that is node vm1"):
        await world.attacher.detach(world.placed())
    await world.attacher.detach(world.placed(facts=facts))
    assert world.disk.instance == ""
    await world.attacher.detach(world.placed())


@on_world()
async def test_disk_is_taken_from_where_it_was_attached_when_the_node_is_another_instance(world):
    facts = await world.attacher.attach(world.placed())
    world.machines["vm1"] = f"aws:///{ZONE}/i-reinstalled"
    assert await world.attacher.find_lost([world.placed(facts=facts)]) == [
        world.placed(facts=facts)
    ]
    with pytest.raises(Transient, match=r"Multi-Attach error.*i-me"):
        await world.attacher.attach(world.placed(facts=facts))
    await world.attacher.detach(world.placed(facts=facts))
    assert world.disk.instance == ""


@on_world(Lasting(attaching=5))
async def test_lost_are_those_that_the_api_shows_elsewhere_or_nowhere(world):
    others = [world.ec2.add() for _ in range(3)]
    held = [
        world.placed(disk, facts=await world.attacher.attach(world.placed(disk)))
        for disk in (world.disk, *others)
    ]
    assert await world.attacher.find_lost(held) == []
    others[0].instance = ""
    others[1].instance = "i-you"
    others[2].deleted = True
    assert await world.attacher.find_lost(held) == held[1:]


@on_world()
async def test_many_disks_are_looked_for_by_a_few_calls(world):
    disks = [world.ec2.add() for _ in range(450)]
    held = [world.placed(disk) for disk in disks]
    for disk in disks:
        disk.instance = ME
    assert await world.attacher.find_lost(held) == []
    assert world.ec2.calls == ["DescribeVolumes"] * 3


@on_world(Lasting(attaching=1e9))
async def test_attachment_that_never_ends_is_uncertain(world):
    with pytest.raises(Uncertain, match="still being attached"):
        await world.attacher.attach(world.placed())


@on_world(Lasting(detaching=10))
async def test_disk_that_is_on_its_way_out_is_attached_again(world):
    await world.attacher.attach(world.placed())
    world.disk.detaching, world.disk.changed_s = True, world.ec2.clock.monotonic()
    await world.attacher.attach(world.placed())
    assert world.disk.instance == ME
    assert not world.disk.detaching


@on_world(Lasting(attaching=5))
async def test_failure_after_the_attachment_was_begun_is_uncertain(world):
    def mishap(when, action):
        if when == "before" and action == "DescribeVolumes" and world.disk.instance:
            raise Ec2Error(action, "RequestLimitExceeded", "slow down", 503)

    world.ec2.mishap = mishap
    with pytest.raises(Uncertain, match="may be attached"):
        await world.attacher.attach(world.placed())


@on_world()
async def test_disk_that_cannot_be_looked_at_may_be_attached_by_an_attempt_before(world):
    def mishap(when, action):
        raise Ec2Error(action, "RequestLimitExceeded", "slow down", 503)

    world.ec2.mishap = mishap
    with pytest.raises(Uncertain, match="RequestLimitExceeded"):
        await world.attacher.attach(world.placed())


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("moment", range(12))
def test_killed_in_between_the_disk_is_attached_once_and_given_back(when, moment):
    async def main():
        world = World(Lasting(attaching=2, detaching=2))
        left = [moment]

        def mishap(now, _action):
            if now == when:
                left[0] -= 1
                if left[0] == -1:
                    raise Killed

        async def persist(call):
            try:
                return await call()
            except Killed:
                return await call()

        world.ec2.mishap = mishap
        await persist(lambda: world.attacher.attach(world.placed()))
        assert world.disk.instance == ME
        await persist(lambda: world.attacher.detach(world.placed()))
        assert world.disk.instance == ""
        assert world.ec2.calls.count("AttachVolume") <= 1 + (when == "before")

    run_virtually(main())


@on_world()
async def test_failure_before_anything_was_asked_leaves_nothing(world):
    def mishap(when, action):
        if action in ("DescribeInstances", "AttachVolume"):
            raise Ec2Error(action, "UnauthorizedOperation", "no", 403)

    world.ec2.mishap = mishap
    with pytest.raises(Transient, match="UnauthorizedOperation"):
        await world.attacher.attach(world.placed())
    assert world.disk.instance == ""


@on_world(Lasting(attaching=3))
async def test_two_disks_at_once_get_names_of_their_own(world):
    other = world.ec2.add()
    await asyncio.gather(
        world.attacher.attach(world.placed()), world.attacher.attach(world.placed(other))
    )
    assert {world.disk.device, other.device} == {"/dev/xvdba", "/dev/xvdbb"}


@on_world()
async def test_name_that_is_refused_is_not_tried_again(world):
    world.ec2.reserved = {"/dev/xvdba"}
    with pytest.raises(Transient, match="another name is tried"):
        await world.attacher.attach(world.placed())
    await world.attacher.attach(world.placed())
    assert world.disk.device == "/dev/xvdbb"


@on_world(zone="us-east-1b")
async def test_disk_of_another_zone_is_refused(world):
    with pytest.raises(Rejected, match="us-east-1b"):
        await world.attacher.attach(world.placed())


@on_world(**{EXPIRES: "2026-02-01T00:00:00Z"})
async def test_disk_of_the_trash_is_not_attached(world):
    with pytest.raises(Rejected, match="in the trash"):
        await world.attacher.attach(world.placed())


@on_world()
async def test_disk_of_another_machine_is_named_with_it_and_not_taken(world):
    world.disk.instance, world.disk.device = "i-other", "/dev/sdf"
    with pytest.raises(Transient, match=r"Multi-Attach error.*i-other"):
        await world.attacher.attach(world.placed())
    await world.attacher.detach(world.placed())
    assert world.disk.instance == "i-other"


@on_world(Lasting(detaching=1e9))
async def test_detachment_that_never_ends_is_uncertain(world):
    await world.attacher.attach(world.placed())
    with pytest.raises(Uncertain, match="still being detached"):
        await world.attacher.detach(world.placed())


def test_disk_is_known_by_its_id_whichever_way_it_is_written():
    named = [
        World().attacher.identify(VolumeSource("awsElasticBlockStore", {"volumeID": text}))
        for text in ("vol-0001", "aws:///vol-0001", "aws://us-east-1a/vol-0001")
    ]
    assert named == ["vol-0001"] * 3
