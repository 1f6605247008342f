"""nfs with a mount table that a test writes: what is called, in which order, and what it means."""

import errno
from dataclasses import dataclass, field

import pytest

from tests.simulation.fake_host import make_fake_host
from tests.simulation.fake_kernel import FakeKernel, Tree
from volagent.drivers.contract import (
    DriverName,
    HeldMount,
    Phase,
    Publication,
    VolumeKey,
    VolumeMode,
    VolumeSource,
    VolumeSpec,
)
from volagent.drivers.errors import Rejected, Transient, Uncertain
from volagent.drivers.nfs import NfsDriver, NfsOptions, choose_options, format_source
from volagent.host.contract import Host
from volagent.host.errors import Absent, Busy, HostError, NotTried, TimedOut, Unsupported
from volagent.objects.meta import PodUid

TARGET = "/k/pods/u/volumes/kubernetes.io~nfs/v"
BACKEND = "nfs:10.0.0.5"


@dataclass
class Script:
    """The fake machine's mounts, with what each slow call shall do first."""

    mounts: object
    errors: list = field(default_factory=list)
    calls: list = field(default_factory=list)

    def __getattr__(self, name):
        return getattr(self.mounts, name)

    def _next(self):
        error = self.errors.pop(0) if self.errors else None
        if callable(error):
            error()
        elif error is not None:
            raise error

    async def mount_network(self, source, target, **how):
        self.calls.append(("mount", source, how["options"], how["backend"], how["timeout_s"]))
        self._next()
        return await self.mounts.mount_network(source, target, **how)

    async def unmount_slowly(self, target, **how):
        kind = "lazy" if how["lazy"] else "force" if how["force"] else "umount"
        self.calls.append((kind, how["backend"], how["timeout_s"]))
        self._next()
        await self.mounts.unmount_slowly(target, **how)

    def find_mount_at(self, target):
        raise AssertionError("touches a path whose server may be dead")


class Machine:
    def __init__(self):
        self.kernel = FakeKernel()
        plain = make_fake_host(self.kernel)
        self.mounts = Script(plain.mounts)
        self.host = Host(self.mounts, plain.trees, plain.devices, plain.holders, plain.gauges)
        self.driver = NfsDriver(self.host, mount_timeout_s=30.0, unmount_timeout_s=20.0)

    def volume(self, *, read_only=False, mount_options=(), **body):
        source = VolumeSource("nfs", {"server": "10.0.0.5", "path": "/export", **body})
        options = self.driver.read_options(source)
        return VolumeSpec(
            VolumeKey("pod/u/v"), self.driver.name, "v", options,
            read_only=read_only, mount_options=mount_options, backend=self.driver.backend(options),
        )  # fmt: skip

    async def publish(self, volume=None, **use):
        publication = Publication(PodUid("u"), "shop/web", TARGET, **use)
        volume = volume or self.volume()
        return await self.driver.publish(volume, publication, staged=None, device=None)

    async def unpublish(self, held):
        return await self.driver.unpublish(held)

    def mounted(self):
        return sum(mount.entry.mount_point == TARGET for mount in self.kernel.mounts)

    def exists(self):
        return self.kernel.inode(TARGET) is not None


@pytest.fixture
def machine():
    return Machine()


def timed_out():
    return TimedOut("umount2", TARGET, errno.ETIMEDOUT, "no answer within 20 s, killed")


# -- there and back -------------------------------------------------------------------------


async def test_export_is_mounted_by_its_servers_bulkhead_and_goes(machine):
    done = await machine.publish()
    assert machine.mounts.calls == [("mount", "10.0.0.5:/export", ("retry=0",), BACKEND, 30.0)]
    assert machine.mounted() == 1
    assert done.mount.path == TARGET
    assert done.mount.mount_id
    assert done.mount.backend == BACKEND
    assert (await machine.unpublish(done.mount)).evidence == "unmounted"
    assert machine.mounts.calls[1:] == [("umount", BACKEND, 20.0)]
    assert machine.mounted() == 0
    assert not machine.exists()


async def test_publishing_again_finds_the_mount_without_touching_it(machine):
    first = await machine.publish()
    second = await machine.publish()
    assert second.mount == first.mount
    assert machine.mounted() == 1
    assert len(machine.mounts.calls) == 1


async def test_unpublishing_again_touches_nothing(machine):
    done = await machine.publish()
    await machine.unpublish(done.mount)
    calls = list(machine.mounts.calls)
    await machine.unpublish(done.mount)
    await machine.unpublish(HeldMount(TARGET, backend=BACKEND))
    assert machine.mounts.calls == calls


async def test_another_mount_in_its_place_is_refused_and_left(machine):
    done = await machine.publish()
    machine.kernel.remove_mount(TARGET)
    machine.kernel.add_mount(TARGET, Tree("ext4", "/dev/vdb"), "", read_only=False)
    with pytest.raises(Transient, match="is covered by a mount of /dev/vdb"):
        await machine.publish()
    with pytest.raises(Transient):
        await machine.unpublish(done.mount)
    assert machine.mounted() == 1


async def test_mounts_that_a_killed_agent_stacked_are_all_taken_down(machine):
    done = await machine.publish()
    tree = Tree("nfs4", "10.0.0.5:/export")
    machine.kernel.add_mount(TARGET, tree, "", read_only=False)
    await machine.unpublish(done.mount)
    assert machine.mounted() == 0
    assert not machine.exists()


async def test_what_somebody_wrote_below_is_left(machine):
    done = await machine.publish()
    machine.kernel.remove_mount(TARGET)
    machine.kernel.write(f"{TARGET}/stray", b"x")
    with pytest.raises(Transient, match="somebody wrote there"):
        await machine.unpublish(done.mount)
    assert machine.kernel.files(TARGET) == {"stray": b"x"}


# -- a dead server --------------------------------------------------------------------------


async def test_dead_servers_mount_is_taken_down_by_force(machine):
    done = await machine.publish()
    machine.mounts.calls.clear()
    machine.mounts.errors = [timed_out()]
    evidence = (await machine.unpublish(done.mount)).evidence
    assert evidence.startswith("unmounted by force")
    assert [call[0] for call in machine.mounts.calls] == ["umount", "force"]
    assert machine.mounted() == 0
    assert not machine.exists()


@pytest.mark.parametrize("second", [timed_out(), Busy("umount2", TARGET, errno.EBUSY)])
async def test_dead_servers_mount_is_detached_when_force_does_not_help(machine, second):
    done = await machine.publish()
    machine.mounts.calls.clear()
    machine.mounts.errors = [timed_out(), second]
    evidence = (await machine.unpublish(done.mount)).evidence
    assert evidence == "lazily detached: the server did not answer, data may be in flight"
    assert machine.mounts.calls == [
        ("umount", BACKEND, 20.0),
        ("force", BACKEND, 20.0),
        ("lazy", f"detach {BACKEND}", 20.0),
    ]
    assert machine.mounted() == 0
    assert not machine.exists()


async def test_failure_is_uncertain_when_not_even_detaching_comes_back(machine):
    done = await machine.publish()
    machine.mounts.errors = [timed_out(), timed_out(), timed_out()]
    with pytest.raises(Uncertain, match="not even detaching came back"):
        await machine.unpublish(done.mount)
    assert machine.mounted() == 1
    assert (await machine.unpublish(done.mount)).evidence == "unmounted"


async def test_mount_that_went_late_counts_as_unmounted(machine):
    done = await machine.publish()

    def find_it_gone():
        machine.kernel.remove_mount(TARGET)
        raise Absent("umount2", TARGET, errno.EINVAL)

    machine.mounts.errors = [timed_out(), find_it_gone]
    evidence = (await machine.unpublish(done.mount)).evidence
    assert evidence == "unmounted late: the server did not answer in time"
    assert not machine.exists()


async def test_live_servers_busy_mount_is_never_torn_away(machine):
    done = await machine.publish()
    machine.kernel.held_open.add(TARGET)
    with pytest.raises(Transient, match=r"held by pid 4711 \(cat\)") as caught:
        await machine.unpublish(done.mount)
    assert caught.value.reason == "FailedUnMount"
    assert [call[0] for call in machine.mounts.calls] == ["mount", "umount"]
    assert machine.mounted() == 1


# -- failures of mounting -------------------------------------------------------------------


def failed(code, detail="", kind=HostError):
    return kind("mount -t nfs", "10.0.0.5:/export", code, detail)


@pytest.mark.parametrize(
    ("error", "kind", "remedy"),
    [
        (failed(errno.EACCES, "access denied by server"), Transient, "exports"),
        (failed(errno.ENOENT, kind=Absent), Transient, "showmount -e 10.0.0.5"),
        (failed(errno.ETIMEDOUT), Transient, "port 2049"),
        (failed(errno.ECONNREFUSED), Transient, "start the NFS server"),
        (failed(errno.EHOSTUNREACH), Transient, "name and address"),
        (failed(errno.EPROTONOSUPPORT, kind=Unsupported), Transient, "vers=4.1"),
        (failed(errno.ENODEV, "helper program", Unsupported), Transient, "nfs-common"),
        (failed(errno.ENODEV, "No such device", Unsupported), Transient, "modprobe nfs"),
        (failed(errno.EINVAL, "an incorrect mount option was specified"), Rejected, "mountOptions"),
        (failed(errno.ETIMEDOUT, "not tried", NotTried), Transient, "port 2049"),
        (failed(errno.ETIMEDOUT, "killed", TimedOut), Uncertain, "port 2049"),
        (failed(0, "exit status 32"), Uncertain, ""),
    ],
)
async def test_failure_says_who_must_do_what(machine, error, kind, remedy):
    machine.mounts.errors = [error]
    with pytest.raises(kind) as caught:
        await machine.publish()
    assert type(caught.value) is kind
    assert remedy in caught.value.remedy
    assert "10.0.0.5:/export" in str(caught.value)
    # Only where something may be mounted is anything left.
    assert machine.exists() is (kind is Uncertain)
    await machine.publish()
    assert machine.mounted() == 1


# -- declarations ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("server", "source"),
    [
        ("nfs.example.org", "nfs.example.org:/export"),
        ("NAS_1", "NAS_1:/export"),
        ("192.0.2.10", "192.0.2.10:/export"),
        ("2001:db8::10", "[2001:db8::10]:/export"),
        ("[2001:db8::10]", "[2001:db8::10]:/export"),
        ("fe80::1%eth0", "[fe80::1%eth0]:/export"),
        ("::ffff:192.0.2.1", "[::ffff:192.0.2.1]:/export"),
    ],
)
def test_server_is_written_as_mount_nfs_wants_it(machine, server, source):
    options = machine.driver.read_options(
        VolumeSource("nfs", {"server": server, "path": "/export"})
    )
    assert format_source(options) == source


@pytest.mark.parametrize(
    "server",
    ["", "a b", "a,b", "a/b", "-a", "a\n", "10.0.0.5:/x", "[::1", "::1]", "[nfs]", "a;b", "$(x)",
     "a'b", "fe80::1%", ":,:"],
)  # fmt: skip
def test_server_that_could_mean_something_else_is_rejected(machine, server):
    with pytest.raises(Rejected, match=r"nfs\.server"):
        machine.volume(server=server)


@pytest.mark.parametrize("path", ["", "export", "/a/../b", "/..", "/a\nb", "/a\0"])
def test_path_that_could_mean_something_else_is_rejected(machine, path):
    with pytest.raises(Rejected, match=r"nfs\.path"):
        machine.volume(path=path)


def test_path_may_have_spaces_and_commas(machine):
    assert machine.volume(path="/srv/my data,2").options.path == "/srv/my data,2"


def test_unknown_field_is_rejected_by_name(machine):
    with pytest.raises(Rejected, match="unknown field `colour`"):
        machine.volume(colour="red")


def test_block_mode_is_rejected(machine):
    options = machine.volume().options
    assert machine.driver.phases(options, VolumeMode.FILESYSTEM) == (Phase.PUBLISH,)
    with pytest.raises(Rejected, match="Block"):
        machine.driver.phases(options, VolumeMode.BLOCK)


@pytest.mark.parametrize(
    ("given", "read_only", "use_read_only", "chosen"),
    [
        ((), False, False, ("retry=0",)),
        (("vers=4.2", "noatime"), False, False, ("vers=4.2", "noatime", "retry=0")),
        ((), True, False, ("ro", "retry=0")),
        ((), False, True, ("ro", "retry=0")),
        (("ro",), True, True, ("ro", "retry=0")),
        (("hard,ro,retry=5",), True, False, ("hard,ro,retry=5",)),
    ],
)
def test_options_are_those_declared_and_few_more(given, read_only, use_read_only, chosen):
    volume = VolumeSpec(
        VolumeKey("pod/u/v"), DriverName("kubernetes.io/nfs"), "v", NfsOptions("s", "/p"),
        read_only=read_only, mount_options=given,
    )  # fmt: skip
    use = Publication(PodUid("u"), "shop/web", TARGET, read_only=use_read_only)
    assert choose_options(volume, use) == chosen
