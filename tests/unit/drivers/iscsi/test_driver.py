"""The iSCSI driver over a fake initiator: what is recorded, what is refused, and in which words."""

import json

import msgspec
import pytest

from tests.simulation.fake_host import make_fake_host
from tests.simulation.fake_initiator import FakeInitiator
from tests.simulation.fake_kernel import FakeKernel
from volagent.drivers.contract import (
    Anticipates,
    Attaches,
    Credentials,
    Expands,
    LogsIn,
    Networked,
    Permission,
    Prepares,
    Publication,
    SecretName,
    Stages,
    VolumeKey,
    VolumeMode,
    VolumeSource,
    VolumeSpec,
)
from volagent.drivers.errors import Rejected, Transient, Uncertain
from volagent.drivers.iscsi.driver import IscsiDriver
from volagent.drivers.iscsi.failures import explain
from volagent.host.errors import HostError, TimedOut, Unsupported
from volagent.host.iscsi.contract import (
    Chap,
    Claim,
    Fenced,
    LunChanged,
    LunMissing,
    LunNameless,
    LunWish,
    NoSession,
    PortalFailure,
    Refusal,
    Reserved,
    Withdrawn,
)
from volagent.objects.meta import PodUid
from volagent.objects.reservation_keys import attachment_key, guard_key

MIB = 1 << 20
IQN = "iqn.2026-01.lab:array"
PORTAL = "10.0.0.5:3260"
WISH = LunWish(IQN, 1, (PORTAL,))
SECRET = {
    "node.session.auth.username": b"me",
    "node.session.auth.password": b"word-of-mine",
    "discovery.sendtargets.auth.username": b"finder",
    "discovery.sendtargets.auth.password": b"word-of-finder",
    "discovery.sendtargets.auth.username_in": b"target",
    "discovery.sendtargets.auth.password_in": b"word-of-target",
}


class Setting:
    def __init__(self):
        self.kernel = FakeKernel()
        self.host = make_fake_host(self.kernel)
        self.initiator = FakeInitiator(self.host)
        self.driver = IscsiDriver(self.host, self.initiator)
        self.kernel.add_image("/luns/1.img", 64 * MIB)

    def volume(self, *, secret=None, partition="", **fields):
        body = {"targetPortal": "10.0.0.5", "iqn": IQN, "lun": 1} | fields
        source = VolumeSource("iscsi", body, 64 * MIB, persistent=True, partition=partition)
        return VolumeSpec(
            VolumeKey("pv/disk"), self.driver.name, "disk", self.driver.read_options(source),
            capacity_bytes=64 * MIB,
            credentials=Credentials(secret) if secret is not None else None,
        )  # fmt: skip


@pytest.fixture
def setting():
    return Setting()


async def test_anticipation_uses_no_credentials(setting):
    await setting.driver.anticipate(setting.volume(chapAuthSession=True, secretRef={"name": "s"}))
    assert setting.initiator.anticipated == [WISH]
    await setting.driver.anticipate(
        setting.volume(chapAuthDiscovery=True, secretRef={"name": "s"}, secret=SECRET)
    )
    assert setting.initiator.anticipated == [WISH]
    assert setting.initiator.wishes == []


def test_driver_has_the_capabilities_of_a_disk_on_the_network(setting):
    for capability in (Anticipates, Attaches, Prepares, Stages, Expands, Networked, LogsIn):
        assert isinstance(setting.driver, capability)
    options = setting.volume().options
    assert setting.driver.identify(options) == f"{IQN}:lun-1"
    assert setting.driver.backend(options) == f"iscsi:{PORTAL}"
    assert setting.driver.find_secret(options) is None
    assert len(setting.driver.phases(options, VolumeMode.BLOCK)) == 2


async def test_disk_is_recorded_with_what_gives_it_back(setting):
    done = await setting.driver.attach(setting.volume(portals=["10.0.0.6"]))
    assert "naa.1" in done.evidence
    assert json.loads(done.device.handle) == {
        "iqn": IQN, "lun": 1, "wwid": "naa.1", "interface": "default",
        "portals": [PORTAL, "10.0.0.6:3260"],
    }  # fmt: skip
    given_back = await setting.driver.detach("disk", done.device)
    assert "taken away" in given_back.evidence
    again = await setting.driver.detach("disk", done.device)
    assert "gone already" in again.evidence


async def test_partition_is_the_device_and_the_disk_is_given_back(setting):
    setting.kernel.add_image("/parts/2.img", 32 * MIB)
    setting.kernel.loops["/dev/loop0p2"] = "/parts/2.img"
    volume = setting.volume(partition="2")
    done = await setting.driver.attach(volume)
    assert (done.device.path, done.device.size_bytes) == ("/dev/loop0p2", 32 * MIB)
    assert "at /dev/loop0p2 by" in done.evidence
    assert setting.driver.identify(volume.options) == setting.driver.identify(
        setting.volume().options
    )
    await setting.driver.prepare(volume, done.device)
    assert setting.kernel.disks["/parts/2.img"].signature == "ext4"
    assert not setting.kernel.disks["/luns/1.img"].signature
    await setting.driver.detach("disk", done.device)
    assert setting.initiator.attached == {}


async def test_disk_without_the_partition_is_given_back(setting):
    with pytest.raises(Transient, match="has no partition 2"):
        await setting.driver.attach(setting.volume(partition="2"))
    assert setting.initiator.attached == {}


@pytest.mark.parametrize("given", ["x", "-1", "256", "1.0"])
def test_partition_is_a_number(setting, given):
    with pytest.raises(Rejected, match=r"volagent\.dev/partition"):
        setting.volume(partition=given)


async def test_attachment_is_made_known_by_its_key_where_that_is_wanted(setting):
    setting.initiator.reserves = True
    permission = Permission("a1", "node01", exclusive=True)
    volume = msgspec.structs.replace(setting.volume(), permission=permission)
    done = await setting.driver.attach(volume)
    (wish,) = setting.initiator.wishes
    assert wish.claim == Claim(attachment_key("a1", "node01"), guard_key("node01"))
    assert json.loads(done.device.handle)["key"] == wish.claim.key
    await setting.driver.attach(msgspec.structs.replace(volume, read_only=True))
    assert not setting.initiator.wishes[-1].claim.exclusive
    await setting.driver.attach(msgspec.structs.replace(volume, permission=None))
    assert setting.initiator.wishes[-1].claim is None


async def test_fenced_disk_is_neither_prepared_nor_mounted_and_goes_unwritten(setting):
    driver, volume = setting.driver, setting.volume()
    device = (await driver.attach(volume)).device
    await driver.prepare(volume, device)
    staged = (await driver.stage(volume, device, "/stage")).mount
    setting.initiator.fenced.add(1)
    for call in (
        lambda: driver.prepare(volume, device),
        lambda: driver.stage(volume, device, "/other"),
        lambda: driver.attach(volume),
    ):
        with pytest.raises(Uncertain, match="this node was fenced") as caught:
            await call()
        assert "kubectl get fencings" in caught.value.remedy
    assert "unwritten" in (await driver.unstage(staged)).evidence
    assert "unwritten" in (await driver.detach("disk", device)).evidence
    assert setting.initiator.written_out == []


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (Reserved("reserve", "naa.1", 0, "0xabc; no reservation"), Transient),
        (Withdrawn("reserve", "naa.1", 0, "it was taken from this node"), Transient),
        (Fenced("reservation", "naa.1", 0, "the key is gone"), Uncertain),
    ],
)
def test_what_a_storage_says_of_keys_is_told_with_a_remedy(error, kind):
    told = explain(error, WISH, left=False)
    assert type(told) is kind
    assert error.detail in str(told)
    assert told.remedy


async def test_portal_that_refuses_is_told_when_another_one_answers(setting):
    setting.initiator.refusing = (PortalFailure("10.0.0.6:3260", Refusal.SILENT),)
    done = await setting.driver.attach(setting.volume(portals=["10.0.0.6"]))
    assert "10.0.0.6:3260 does not answer" in done.evidence


async def test_swapped_disk_is_neither_formatted_nor_mounted_nor_linked(setting):
    driver, volume = setting.driver, setting.volume()
    device = (await driver.attach(volume)).device
    setting.initiator.swapped.add(1)
    use = Publication(PodUid("u"), "shop/web", "/var/lib/kubelet/pods/u/disk")
    block = VolumeSpec(
        volume.key, volume.driver, "disk", volume.options, mode=VolumeMode.BLOCK
    )  # fmt: skip
    for call in (
        lambda: driver.prepare(volume, device),
        lambda: driver.stage(volume, device, "/stage"),
        lambda: driver.publish(block, use, staged=None, device=device),
    ):
        with pytest.raises(Uncertain, match="another disk") as caught:
            await call()
        assert "exchanged the LUN" in caught.value.remedy
    assert setting.kernel.disks["/luns/1.img"].formats == 0
    assert all(mount.entry.mount_point == "/" for mount in setting.kernel.mounts)


async def test_growth_is_awaited_until_the_storage_has_grown(setting):
    driver, volume = setting.driver, setting.volume()
    device = (await driver.attach(volume)).device
    await driver.prepare(volume, device)
    staged = (await driver.stage(volume, device, "/stage")).mount
    larger = VolumeSpec(
        volume.key, volume.driver, "disk", volume.options, capacity_bytes=128 * MIB
    )  # fmt: skip
    with pytest.raises(Transient, match="has 64 MiB, and not yet 128"):
        await driver.expand(larger, device, staged)
    setting.kernel.disks["/luns/1.img"].size = 128 * MIB
    done = await driver.expand(larger, device, staged)
    assert done.evidence == "grown to its device"


async def test_what_may_be_lost_is_told_when_no_path_was_up(setting):
    driver, volume = setting.driver, setting.volume()
    device = (await driver.attach(volume)).device
    await driver.prepare(volume, device)
    staged = (await driver.stage(volume, device, "/stage")).mount
    setting.initiator.refusing = (PortalFailure(PORTAL, Refusal.SILENT),)
    done = await driver.unstage(staged)
    assert "not written yet is lost" in done.evidence


async def test_credentials_are_read_from_the_keys_of_kubernetes(setting):
    volume = setting.volume(
        secret=SECRET, chapAuthSession=True, chapAuthDiscovery=True, secretRef={"name": "chap"}
    )
    assert setting.driver.find_secret(volume.options) == SecretName("chap")
    await setting.driver.attach(volume)
    (wish,) = setting.initiator.wishes
    assert wish.session_chap == Chap("me", "word-of-mine")
    assert wish.discovery_chap == Chap("finder", "word-of-finder", "target", "word-of-target")
    assert "word-of" not in repr(wish)


async def test_secret_without_a_password_is_rejected_by_the_missing_keys(setting):
    secret = {"node.session.auth.username": b"me"}
    volume = setting.volume(secret=secret, chapAuthSession=True, secretRef={"name": "chap"})
    with pytest.raises(Rejected, match=r"chap lacks .*node\.session\.auth\.password"):
        await setting.driver.attach(volume)


async def test_attach_waits_for_a_secret_that_is_not_there(setting):
    volume = setting.volume(chapAuthSession=True, secretRef={"name": "chap"})
    with pytest.raises(Transient, match="secret chap"):
        await setting.driver.attach(volume)


def no_session(*refusals):
    failures = tuple(PortalFailure(f"10.0.0.{n}:3260", each) for n, each in enumerate(refusals))
    return NoSession(IQN, failures)


@pytest.mark.parametrize(
    ("error", "kind", "words", "remedy"),
    [
        (no_session(Refusal.CREDENTIALS), Transient, "not accept the credentials", "secretRef"),
        (no_session(Refusal.UNKNOWN_TARGET), Transient, "does not offer the target", "iscsi.iqn"),
        (no_session(Refusal.SILENT), Transient, "does not answer", "portal is up"),
        (no_session(Refusal.UNREACHABLE), Transient, "cannot be reached", "portal is up"),
        (no_session(Refusal.SILENT, Refusal.CREDENTIALS), Transient, "10.0.0.0:3260", "secretRef"),
        (no_session(Refusal.NO_DAEMON), Transient, "iscsid does not run", "systemctl enable"),
        (no_session(Refusal.FAILED), Transient, "login failed", "journalctl"),
        (LunMissing("scan", "x", 0, "none"), Transient, "LUN 1 of .* is not there", "iscsi.lun"),
        (LunNameless("inquiry", "x"), Rejected, "no world-wide name", "0x83"),
        (LunChanged("inquiry", "x"), Uncertain, "another disk", "exchanged the LUN"),
        (
            Unsupported("exec", "iscsiadm", 2, "apt-get install open-iscsi"), Transient,
            "iscsiadm", "apt-get install open-iscsi",
        ),
        (TimedOut("login", "x"), Uncertain, "may be attached or not", "looked at again"),
        (HostError("scan", "x", 5), Uncertain, "may be attached or not", "looked at again"),
    ],
)  # fmt: skip
def test_failure_says_what_happened_and_what_can_be_done(error, kind, words, remedy):
    failure = explain(error, WISH, left=False)
    assert type(failure) is kind
    with pytest.raises(kind, match=words):
        raise failure
    assert remedy in failure.remedy


@pytest.mark.parametrize(
    "error", [no_session(Refusal.SILENT), LunMissing("scan", "x"), LunNameless("inquiry", "x")]
)
def test_failure_is_uncertain_when_the_kernel_still_shows_the_disk(error):
    assert type(explain(error, WISH, left=True)) is Uncertain
