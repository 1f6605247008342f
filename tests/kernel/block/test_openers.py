"""Who has a block device open."""

import subprocess
import sys

PROGRAM = (
    "import sys\nfile = open(sys.argv[1], 'rb')\nprint('ready', flush=True)\nsys.stdin.read()\n"
)


async def test_process_that_has_a_device_open_is_found_while_it_has(host, loops):
    device = await loops.attach("a.img", 1 << 20)
    assert await host.holders.find_openers(device.number) == ()
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, device.path],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as child:  # fmt: skip
        assert child.stdout.readline() == "ready\n"
        (found,) = await host.holders.find_openers(device.number)
        child.stdin.close()
    assert (found.pid, found.path, found.kind) == (child.pid, device.path, "open device")
    assert await host.holders.find_openers(device.number) == ()


async def test_nobody_has_a_device_open_that_is_not_there(host):
    assert await host.holders.find_openers("254:250") == ()
