"""What a failed host call becomes: never silent, with a remedy where a person can do something."""

import errno

import pytest

from tests.contract.drivers.worlds import drivers_on
from tests.simulation.fake_host import make_fake_host
from tests.simulation.fake_kernel import FakeKernel
from volagent.drivers.contract import DriverName, Publication, VolumeKey, VolumeSource, VolumeSpec
from volagent.drivers.errors import Uncertain
from volagent.host.contract import Payload
from volagent.host.errors import HostError
from volagent.objects.meta import PodUid


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.ENOSPC, "free space"),
        (errno.EDQUOT, "free space"),
        (errno.EROFS, "read-only"),
        (errno.ENOMEM, "free memory"),
        (errno.EIO, ""),
    ],
)
@pytest.mark.parametrize("kind", ["emptyDir", "configMap"])
async def test_failed_publication_is_uncertain_and_says_what_to_do(kind, code, remedy):
    def fail(call, subject):
        if call == "before mkdir":
            raise HostError("mkdir", subject, code)

    drivers = drivers_on(make_fake_host(FakeKernel(fault=fail)))
    names = {"emptyDir": "kubernetes.io/empty-dir", "configMap": "kubernetes.io/configmap"}
    driver = drivers[DriverName(names[kind])]
    options = driver.read_options(VolumeSource(kind, {}))
    volume = VolumeSpec(VolumeKey("pod/u/v"), driver.name, "v", options)
    use = Publication(PodUid("u"), "shop/web", "/root/pods/u/v", payload=Payload((), "f"))
    with pytest.raises(Uncertain, match=errno.errorcode[code]) as caught:
        await driver.publish(volume, use, staged=None, device=None)
    assert remedy in caught.value.remedy
