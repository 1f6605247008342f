"""The NBD driver: its options, what its errors say, and which device it takes for its own."""

import dataclasses
import errno

import msgspec
import pytest

from tests.simulation.fake_host import make_fake_host
from tests.simulation.fake_kernel import FakeKernel
from volagent.drivers.contract import (
    Attaches,
    Credentials,
    Expands,
    HeldDevice,
    LogsIn,
    Networked,
    Phase,
    Prepares,
    Publishes,
    SecretName,
    Stages,
    VolumeKey,
    VolumeMode,
    VolumeSource,
    VolumeSpec,
)
from volagent.drivers.errors import Rejected, Transient, Uncertain
from volagent.drivers.nbd.driver import NbdDriver
from volagent.drivers.nbd.failures import explain_nbd_failure
from volagent.drivers.nbd.options import NBD, NbdOptions, read_nbd_options, read_tls_material
from volagent.host.contract import BlockDevice
from volagent.host.errors import Absent, Busy, HostError, NotTried, TimedOut, Unsupported

ATTRIBUTES = {"server": "10.0.0.5", "port": "10809", "export": "disk1"}
OPTIONS = NbdOptions("10.0.0.5", "disk1")
DEVICE = BlockDevice("/dev/nbd3", "43:96", "nbd:10.0.0.5:10809/disk1", 1 << 26)


def read(attributes=None, **body):
    whole = {"driver": NBD, "volumeHandle": "handle", **body}
    whole["volumeAttributes"] = {**ATTRIBUTES, **(attributes or {})}
    return read_nbd_options(VolumeSource("csi", whole, persistent=True))


def test_options_are_read():
    assert read() == OPTIONS
    assert OPTIONS.identity == "10.0.0.5:10809/disk1"
    assert OPTIONS.backend == "nbd:10.0.0.5:10809"


def test_export_is_named_by_the_handle_and_port_is_the_assigned_one_when_left_out():
    body = {"driver": NBD, "volumeHandle": "disk7", "volumeAttributes": {"server": "nbd.example"}}
    options = read_nbd_options(VolumeSource("csi", body, persistent=True))
    assert (options.export, options.port, options.fs_type) == ("disk7", 10809, "ext4")


def test_partition_is_a_number():
    assert read({"partition": "2"}).partition == 2
    with pytest.raises(Rejected, match=r"volumeAttributes.partition: 'two' is no number"):
        read({"partition": "two"})


def test_address_of_version_6_may_stand_in_brackets():
    assert read({"server": "[2001:db8::10]"}).server == "2001:db8::10"


def test_tls_names_its_secret():
    options = read({"tls": "true"}, nodeStageSecretRef={"name": "nbd", "namespace": "storage"})
    assert options.secret == SecretName("nbd", "storage")
    assert read(nodeStageSecretRef={"name": "nbd"}).secret is None


@pytest.mark.parametrize(
    ("attributes", "body", "words"),
    [
        ({"server": ""}, {}, r"volumeAttributes\.server: ''"),
        ({"server": "a b"}, {}, r"volumeAttributes\.server"),
        ({"server": "-x"}, {}, r"volumeAttributes\.server"),
        ({"port": "0"}, {}, r"volumeAttributes\.port"),
        ({"port": "65536"}, {}, r"volumeAttributes\.port"),
        ({"port": "1e3"}, {}, r"volumeAttributes\.port"),
        ({"export": ""}, {}, r"volumeAttributes\.export"),
        ({"export": "a\nb"}, {}, r"volumeAttributes\.export"),
        ({"export": " a"}, {}, r"volumeAttributes\.export"),
        ({"export": "é" * 128}, {}, r"volumeAttributes\.export"),
        ({"tls": "yes"}, {}, r"volumeAttributes\.tls: 'yes'"),
        ({"tls": "true"}, {}, "nodeStageSecretRef: is needed for TLS"),
        ({"tlsHostname": "a"}, {}, "tlsHostname: is of no use"),
        ({"colour": "red"}, {}, "unknown attribute 'colour'"),
        ({}, {"fsType": "zfs"}, "fsType: 'zfs' is not offered"),
        ({}, {"colour": "red"}, "unknown field `colour`"),
    ],
)
def test_volume_is_rejected_when_declared_wrongly(attributes, body, words):
    with pytest.raises(Rejected, match=words):
        read(attributes, **body)


def test_volume_is_rejected_inline():
    with pytest.raises(Rejected, match="not offered inline"):
        read_nbd_options(VolumeSource("csi", {"driver": NBD, "volumeAttributes": ATTRIBUTES}))


def test_tls_material_is_checked_and_not_shown():
    credentials = Credentials({"ca.crt": b"CA", "tls.crt": b"CRT", "tls.key": b"KEY"})
    assert read_tls_material(OPTIONS, credentials) == {
        "ca": "CA", "certificate": "CRT", "key": "KEY", "host_name": "10.0.0.5",
    }  # fmt: skip
    with pytest.raises(Rejected, match=r"no ca\.crt"):
        read_tls_material(OPTIONS, Credentials({}))
    with pytest.raises(Rejected, match=r"only one of tls\.crt and tls\.key"):
        read_tls_material(OPTIONS, Credentials({"ca.crt": b"CA", "tls.key": b"KEY"}))


@pytest.mark.parametrize(
    ("error", "kind", "words", "remedy"),
    [
        (
            Absent("open", "x", errno.ENOENT, "it does not know the export"),
            Transient, "10.0.0.5:10809 has no export 'disk1'", "nbd-client -l 10.0.0.5 10809",
        ),
        (HostError("connect", "x", errno.ECONNREFUSED), Transient, "ECONNREFUSED", "start the NBD"),
        (HostError("connect", "x", errno.ETIMEDOUT), Transient, "ETIMEDOUT", "reachable"),
        (HostError("open", "x", errno.EROFS), Transient, "EROFS", "readOnly"),
        (HostError("TLS", "x", errno.EPROTO, "expired"), Transient, "expired", "ca.crt"),
        (HostError("TLS", "certificates", errno.EINVAL), Rejected, "EINVAL", "tls.key"),
        (Unsupported("modprobe", "nbd", 0, "fails"), Transient, "modprobe", "modprobe nbd"),
        (Unsupported("negotiate", "x", errno.EPROTO), Transient, "EPROTO", "what listens"),
        (Busy("nbd", "x", errno.EBUSY), Transient, "EBUSY", "delete the pods"),
        (TimedOut("connect_nbd", "x", errno.ETIMEDOUT), Uncertain, "ETIMEDOUT", "server is up"),
        (NotTried("connect_nbd", "x", errno.ETIMEDOUT), Transient, "ETIMEDOUT", "server is up"),
    ],
)  # fmt: skip
def test_failure_has_its_evidence_and_a_remedy(error, kind, words, remedy):
    told = explain_nbd_failure(error, OPTIONS)
    assert type(told) is kind
    assert words in told.message
    assert remedy in told.remedy


class FakeLinks:
    """One export that can be connected, in memory."""

    def __init__(self, device=DEVICE):
        self.device = device
        self.connected = False
        self.busy = False
        self.requests = []

    async def connect(self, request):
        self.requests.append(request)
        self.connected = True
        return self.device

    def find(self, identity):
        return self.device if self.connected else None

    async def disconnect(self, device, identity):
        if self.busy:
            raise Busy("nbd disconnect", device.path, errno.EBUSY, "held by pid 7 (dd)")
        self.connected = False

    async def grow(self, request):
        return self.device.size_bytes


@pytest.fixture
def links():
    return FakeLinks()


@pytest.fixture
def driver(links):
    return NbdDriver(make_fake_host(FakeKernel()), links)


def volume(options=OPTIONS, **more):
    return VolumeSpec(VolumeKey("pv/a"), NBD, "a", options, backend=options.backend, **more)


def test_driver_has_the_capabilities_of_a_disk_on_a_network(driver):
    for capability in (Attaches, Networked, LogsIn, Prepares, Stages, Publishes, Expands):
        assert isinstance(driver, capability)
    assert driver.identify(OPTIONS) == OPTIONS.identity
    assert driver.backend(OPTIONS) == OPTIONS.backend
    assert driver.find_secret(OPTIONS) is None
    assert driver.phases(OPTIONS, VolumeMode.BLOCK) == (Phase.ATTACH, Phase.PUBLISH)


async def test_attached_device_is_recorded_with_its_export(driver):
    done = await driver.attach(volume())
    assert done.evidence == "10.0.0.5:10809/disk1 connected at /dev/nbd3"
    assert (done.device.identity, done.device.handle) == (DEVICE.identity, OPTIONS.identity)
    assert "found" in (await driver.attach(volume())).evidence


async def test_device_of_another_export_is_never_taken(driver, links):
    links.device = dataclasses.replace(DEVICE, identity="nbd:10.0.0.5:10809/disk2")
    with pytest.raises(Uncertain, match=r"disk2, not .*disk1"):
        await driver.attach(volume())


async def test_nothing_is_connected_by_tls_without_the_secrets_data(driver, links):
    options = read({"tls": "true"}, nodeStageSecretRef={"name": "nbd"})
    await driver.attach(volume(options))
    assert (links.requests[-1].wants_tls, links.requests[-1].target.tls) == (True, None)
    credentials = Credentials({"ca.crt": b"CA"})
    await driver.attach(volume(options, credentials=credentials))
    assert links.requests[-1].target.tls["ca"] == "CA"


async def test_detached_twice_is_done_and_what_is_held_is_kept(driver, links):
    held = (await driver.attach(volume())).device
    links.busy = True
    with pytest.raises(Transient, match=r"held by pid 7"):
        await driver.detach("a", held)
    links.busy = False
    assert "disconnected" in (await driver.detach("a", held)).evidence
    assert "not connected" in (await driver.detach("a", held)).evidence


class OneDevice:
    """Devices of a machine that has one."""

    def identify(self, path):
        assert path == DEVICE.path
        return DEVICE


def divided(links):
    """A driver whose export has a partition 2 of 16 MiB."""
    part = dataclasses.replace(
        DEVICE, path="/dev/nbd3p2", identity=f"{DEVICE.identity}-part2", size_bytes=16 << 20
    )

    class Divided(OneDevice):
        async def find_partition(self, disk, number):
            if number != 2:
                raise Absent("partition", disk.path, errno.ENOENT)
            return part

    host = dataclasses.replace(make_fake_host(FakeKernel()), devices=Divided())
    return NbdDriver(host, links)


async def test_partition_is_the_device_whatever_the_size_of_the_export(links):
    options = msgspec.structs.replace(OPTIONS, partition=2)
    wanted = volume(options, mode=VolumeMode.BLOCK, capacity_bytes=128 << 20)
    for _ in range(2):
        done = await divided(links).attach(wanted)
        assert (done.device.path, done.device.size_bytes) == ("/dev/nbd3p2", 16 << 20)
    assert done.device.handle == OPTIONS.identity


@pytest.mark.parametrize("busy", [False, True])
async def test_export_without_the_partition_is_disconnected(links, busy):
    links.busy = busy
    options = msgspec.structs.replace(OPTIONS, partition=3)
    with pytest.raises(Uncertain if busy else Transient, match="has no partition 3"):
        await divided(links).attach(volume(options))
    assert links.connected is busy


async def test_growth_waits_for_the_server(links):
    host = dataclasses.replace(make_fake_host(FakeKernel()), devices=OneDevice())
    driver = NbdDriver(host, links)
    held = HeldDevice(DEVICE.path, DEVICE.number, DEVICE.identity, handle=OPTIONS.identity)
    with pytest.raises(Transient, match="has 64 MiB, and its volume 128 MiB") as caught:
        await driver.expand(volume(capacity_bytes=128 << 20), held, None)
    assert "make the export larger" in caught.value.remedy
