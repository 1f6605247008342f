"""How mount(8) is called, and what its complaints mean."""

import errno

import pytest

from volagent.host.errors import Absent, HostError, Unsupported
from volagent.host.netmount import explain_mount_failure, mount_command


def test_source_that_looks_like_an_option_is_none():
    argv = mount_command("-o suid", "/t", "nfs", ["vers=4.2", "hard"])
    assert argv[-3:] == ["--", "-o suid", "/t"]
    assert argv[argv.index("-o") + 1] == "vers=4.2,hard"


def test_no_options_are_no_argument():
    assert "-o" not in mount_command("s:/x", "/t", "nfs", [])


@pytest.mark.parametrize(
    ("complaint", "kind", "code"),
    [
        ("mount.nfs: Connection timed out", HostError, errno.ETIMEDOUT),
        ("mount.nfs: Connection refused", HostError, errno.ECONNREFUSED),
        ("mount.nfs: access denied by server while mounting s:/x", HostError, errno.EACCES),
        ("mount: /t: unknown filesystem type 'nfs'.", Unsupported, errno.ENODEV),
        (
            "mount: /t: bad option; for several filesystems (e.g. nfs, cifs) you might need a "
            "/sbin/mount.<type> helper program.",
            Unsupported,
            errno.ENODEV,
        ),
        ("mount.nfs: Protocol not supported", HostError, errno.EPROTONOSUPPORT),
        (
            "mount.nfs: mounting s:/x failed, reason given by server: No such file or directory",
            Absent,
            errno.ENOENT,
        ),
        ("mount.nfs: an incorrect mount option was specified", HostError, errno.EINVAL),
        ("something nobody has seen before", HostError, 0),
    ],
)
def test_complaint_is_classified_and_kept(complaint, kind, code):
    error = explain_mount_failure("nfs", "s:/x", 32, complaint)
    assert type(error) is kind
    assert error.errno == code
    assert complaint in str(error)


def test_silence_is_reported_by_its_status():
    error = explain_mount_failure("nfs", "s:/x", 32, "")
    assert str(error) == "mount -t nfs s:/x: mount(8) ended with status 32"
