"""What `host/lio` makes of the kernel's target: who is let in, what ends, what outlives power."""

import pytest

from tests.cluster.lab.iscsi_initiator import IscsiInitiator
from tests.cluster.lab.machine import Hardware, Lab, Machine
from tests.cluster.lab.target_calls import VOLUME, TargetCalls

ONE, TWO = "iqn.2026-01.lab:one", "iqn.2026-01.lab:two"


@pytest.fixture(scope="module")
def site(lab: Lab) -> tuple[TargetCalls, Machine, Machine]:
    storage = lab.add_machine("storage", Hardware(memory_mib=512, disks_mib=(256,)))
    one, two = (lab.add_machine(name, Hardware(memory_mib=384)) for name in ("one", "two"))
    lab.start_all()
    target = TargetCalls(storage)
    target.serve()
    target.ask("restore")
    for each in (one, two):
        IscsiInitiator(each).start(patience_s=60)
    return target, one, two


def test_target_lets_in_who_is_named_keeps_reservations_and_ends_who_is_fenced(site):
    target, one, two = site
    chap = target.ask("password")
    target.ask("publish", node="one", initiator=ONE)
    one.run(target.login(chap))
    digits = VOLUME.removeprefix("pvc-").replace("-", "")
    wwid = f"6001405{digits[:25]}"
    assert one.run(f"readlink -f /dev/disk/by-id/wwn-0x{wwid}").out == "/dev/sda\n"
    refused = two.run(target.login(chap), check=False)  # it knows the password, and is not named
    assert refused.code != 0
    assert "authorization failure" in refused.err + refused.out

    target.grow(96)
    assert target.ask("resize") == {"shown": True}
    grown = "echo 1 >/sys/block/sda/device/rescan; blockdev --getsize64 /dev/sda"
    assert one.run(grown).out == f"{96 << 20}\n"

    files = one.installation.guest_files
    one.run(f"python3 {files}/persistent_reservation.py /dev/sda 0xabc")
    one.run("dd if=/dev/urandom of=/run/data bs=64k count=4 2>/dev/null")
    one.run("dd if=/run/data of=/dev/sda bs=64k oflag=direct 2>/dev/null")
    target.machine.power_cut()
    target.machine.start()
    target.serve()
    assert target.ask("restore") == {"shown": [VOLUME], "missing": []}
    kept = target.registrations()
    assert f"{ONE}" in kept
    assert "Key: 0x0000000000000abc" in kept
    assert "Write Exclusive Access, Registrants Only" in kept
    read = "dd if=/dev/sda bs=64k count=4 iflag=direct 2>/dev/null | cmp - /run/data"
    one.run(read, timeout_s=90)

    writer = (
        "(while dd if=/run/data of=/dev/sda bs=64k count=1 oflag=direct conv=notrunc"
        " 2>>/run/writer.log; do :; done; touch /run/writer.over) >/dev/null 2>&1 &"
    )
    one.run(writer)
    said = target.ask("fence", node="one")["evidence"]
    assert "its session was ended" in said
    before = target.machine.run(f"sha256sum </pool/{VOLUME}/disk.img").out
    assert "was fenced" in target.ask("publish", node="one", initiator=ONE)["refused"]["fact"]
    assert target.ask("restore") == {"shown": [], "missing": []}
    target.ask("publish", node="two", initiator=TWO)
    two.run(target.login(chap))
    again = one.run(f"iscsiadm -m node -T {target.iqn} --login", check=False)
    assert again.code != 0
    one.run("until [ -e /run/writer.over ]; do sleep 0.5; done", timeout_s=120)
    assert target.machine.run(f"sha256sum </pool/{VOLUME}/disk.img").out == before
    for node in ("one", "two"):
        target.ask("unpublish", node=node)
    assert target.ask("describe") == {"shown": {}}
