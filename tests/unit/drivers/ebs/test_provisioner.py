"""The provisioner against an API that takes its time, shows tags late, and fails in between."""

import asyncio

import pytest

from tests.simulation.fake_ec2 import ZONE, FakeEc2, Lasting
from tests.simulation.virtual_time import VirtualClock, run_virtually
from volagent.drivers.ebs.api import Ec2Error
from volagent.drivers.ebs.cloud import Cloud, EbsConfig
from volagent.drivers.ebs.kept import EXPIRES, OWNER
from volagent.drivers.ebs.provisioner import EbsProvisioner
from volagent.drivers.ebs.volumes import EbsVolumes
from volagent.drivers.errors import Rejected, Transient, Uncertain
from volagent.drivers.provisioning.contract import OutOfSpace, ReclaimRequest, VolumeRequest

GIB = 1 << 30


class Killed(BaseException):
    """The daemon dies here."""


def make(lasting=None, region="us-east-1"):
    clock = VirtualClock()
    config = EbsConfig(cluster="vm1", region=region, zone=ZONE, instance_id="i-me")
    ec2 = FakeEc2(clock, lasting or Lasting())
    return ec2, EbsProvisioner(Cloud(config, clock), EbsVolumes(ec2))


def a_request(**changes):
    given = {
        "name": "pvc-1", "owner": "1", "claim_namespace": "default", "claim_name": "data",
        "capacity_bytes": GIB, "access_modes": ("ReadWriteOnce",), "parameters": {"type": "gp3"},
    }  # fmt: skip
    return VolumeRequest(**{**given, **changes})


def released(source, *, owner="1", keep_s=0, manifest=None):
    given = manifest or {"metadata": {"name": "pvc-1"}}
    return ReclaimRequest(name="pvc-1", owner=owner, source=source, keep_s=keep_s, manifest=given)


def source_of(id, zone=ZONE):
    return {"awsElasticBlockStore": {"volumeID": f"aws://{zone}/{id}"}}


def refuse(action, code, status=400):
    def mishap(when, called):
        if when == "before" and called == action:
            raise Ec2Error(action, code, "the API says no", status)

    return mishap


def test_volume_is_answered_when_it_can_be_used():
    async def main():
        ec2, provisioner = make(Lasting(creating=9))
        made = await provisioner.create(a_request(capacity_bytes=GIB + 1))
        (disk,) = ec2.there
        assert ec2.state_of(disk) == "available"
        assert asyncio.get_running_loop().time() >= 9
        assert made.source == {
            "awsElasticBlockStore": {"volumeID": f"aws://{ZONE}/{disk.id}", "fsType": "ext4"}
        }
        assert made.capacity_bytes == 2 * GIB
        assert made.labels["topology.kubernetes.io/region"] == "us-east-1"

    run_virtually(main())


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("moment", range(8))
def test_killed_in_between_there_is_one_volume_in_the_end(when, moment):
    async def main():
        ec2, provisioner = make(Lasting(creating=3, tags_unseen=60))
        left = [moment]

        def mishap(now, _action):
            if now == when:
                left[0] -= 1
                if left[0] < 0:
                    ec2.mishap = lambda *_: None
                    raise Killed

        ec2.mishap = mishap
        try:
            await provisioner.create(a_request())
        except Killed:
            await provisioner.create(a_request())
        assert len(ec2.there) == 1

    run_virtually(main())


def test_volume_is_made_again_when_that_of_its_token_was_discarded():
    async def main():
        ec2, provisioner = make()
        await provisioner.create(a_request())
        await provisioner.discard(a_request())
        assert ec2.there == []
        await provisioner.create(a_request())
        await provisioner.discard(a_request())
        await provisioner.create(a_request(capacity_bytes=5 * GIB))
        (disk,) = ec2.there
        assert disk.size_gib == 5

    run_virtually(main())


def test_volume_that_fails_is_taken_away_and_its_key_is_named():
    async def main():
        ec2, provisioner = make()
        ec2.mishap = lambda when, _: [setattr(disk, "state", "error") for disk in ec2.there]
        parameters = {"encrypted": "true", "kmsKeyId": "arn:aws:kms:mine"}
        with pytest.raises(Rejected) as caught:
            await provisioner.create(a_request(parameters=parameters))
        assert "arn:aws:kms:mine" in caught.value.remedy
        assert ec2.there == []

    run_virtually(main())


def test_volume_that_is_never_finished_is_uncertain():
    async def main():
        _, provisioner = make(Lasting(creating=1e9))
        with pytest.raises(Uncertain, match="still being made"):
            await provisioner.create(a_request())

    run_virtually(main())


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("VolumeLimitExceeded", 400, OutOfSpace), ("InvalidZone.NotFound", 400, Rejected),
        ("UnauthorizedOperation", 403, Transient), ("RequestLimitExceeded", 503, Transient),
        ("InternalError", 500, Uncertain), ("UnknownVolumeType", 400, Rejected),
    ],
)  # fmt: skip
def test_refusal_is_sorted_by_who_must_act(code, status, kind):
    async def main():
        ec2, provisioner = make()
        ec2.mishap = refuse("CreateVolume", code, status)
        with pytest.raises(kind, match=code):
            await provisioner.create(a_request())

    run_virtually(main())


@pytest.mark.parametrize("mode", ["ReadWriteMany", "ReadOnlyMany"])
def test_mode_of_several_machines_is_refused(mode):
    _, provisioner = make()
    with pytest.raises(Rejected, match=mode):
        provisioner.check({}, a_request().mode, (mode,))


def test_attached_volume_is_neither_deleted_nor_put_into_the_trash():
    async def main():
        ec2, provisioner = make()
        disk = ec2.add(**{OWNER: "1"})
        disk.instance, disk.device = "i-me", "/dev/xvdba"
        for keep_s in (0, 60):
            with pytest.raises(Transient, match="still attached to i-me"):
                await provisioner.reclaim(released(source_of(disk.id), keep_s=keep_s))
        assert not disk.deleted
        assert EXPIRES not in disk.tags

    run_virtually(main())


@pytest.mark.parametrize("tags", [{}, {OWNER: "2"}, {"KubernetesCluster": "vm1"}])
def test_volume_without_the_owners_tag_is_never_deleted(tags):
    async def main():
        ec2, provisioner = make()
        disk = ec2.add(**tags)
        with pytest.raises(Rejected, match=disk.id):
            await provisioner.reclaim(released(source_of(disk.id)))
        assert not disk.deleted

    run_virtually(main())


def test_volume_of_another_region_does_not_count_as_gone():
    async def main():
        _, provisioner = make(region="eu-west-1")
        with pytest.raises(Rejected, match="eu-west-1"):
            await provisioner.reclaim(released(source_of("vol-0001")))

    run_virtually(main())


def test_trash_of_another_cluster_is_neither_shown_nor_purged():
    async def main():
        ec2, provisioner = make()
        theirs = {"KubernetesCluster": "vm2", OWNER: "1", EXPIRES: "2020-01-01T00:00:00Z"}
        disk = ec2.add(**theirs)
        assert await provisioner.list_trash() == []
        await provisioner.sweep()
        await provisioner.purge(f"kubernetes.io/aws-ebs/{disk.id}")
        assert not disk.deleted

    run_virtually(main())


def test_trash_whose_tags_were_damaged_can_be_had_back():
    async def main():
        ec2, provisioner = make()
        made = await provisioner.create(a_request())
        await provisioner.reclaim(released(made.source, keep_s=60))
        (disk,) = ec2.there
        disk.tags["volagent.dev/trash-manifest-00"] = "damaged"
        (entry,) = await provisioner.list_trash()
        manifest = await provisioner.restore(entry.id)
        assert manifest["metadata"]["name"] == "pvc-1"
        assert manifest["spec"]["claimRef"]["name"] == "data"
        assert await provisioner.list_trash() == []
        await provisioner.reclaim(released(manifest["spec"]))
        assert disk.deleted

    run_virtually(main())


def test_entry_whose_expiry_cannot_be_read_is_kept():
    async def main():
        ec2, provisioner = make()
        ec2.add(**{"KubernetesCluster": "vm1", OWNER: "1", EXPIRES: "some day"})
        assert await provisioner.sweep() is None
        assert len(ec2.there) == 1

    run_virtually(main())


def test_growth_waits_until_the_size_can_be_used():
    async def main():
        ec2, provisioner = make(Lasting(modifying=40))
        disk = ec2.add(**{OWNER: "1"})
        grown = await provisioner.grow(source_of(disk.id), {}, 3 * GIB)
        assert (disk.size_gib, grown.capacity_bytes, grown.node_half) == (3, 3 * GIB, True)
        assert asyncio.get_running_loop().time() >= 40

    run_virtually(main())


def test_growth_that_was_interrupted_is_followed_not_asked_again():
    async def main():
        ec2, provisioner = make(Lasting(modifying=40))
        disk = ec2.add(**{OWNER: "1"})
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(10):
                await provisioner.grow(source_of(disk.id), {}, 3 * GIB)
        await provisioner.grow(source_of(disk.id), {}, 3 * GIB)
        assert ec2.calls.count("ModifyVolume") == 1
        await provisioner.grow(source_of(disk.id), {}, 2 * GIB)
        assert disk.size_gib == 3

    run_virtually(main())


def test_growth_too_soon_after_another_is_tried_later():
    async def main():
        ec2, provisioner = make()
        disk = ec2.add(**{OWNER: "1"})
        await provisioner.grow(source_of(disk.id), {}, 2 * GIB)
        with pytest.raises(Transient, match="VolumeModificationRateExceeded"):
            await provisioner.grow(source_of(disk.id), {}, 3 * GIB)

    run_virtually(main())


def test_growth_of_anothers_volume_is_refused():
    async def main():
        ec2, provisioner = make()
        disk = ec2.add(**{OWNER: "2"})
        with pytest.raises(Rejected):
            await provisioner.grow(source_of(disk.id), {OWNER: "1"}, 2 * GIB)

    run_virtually(main())
