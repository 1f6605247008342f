"""Looking at a device where blkid's library is missing, by scripted children."""

import pytest

from volagent.host.devices import RealDevices
from volagent.host.errors import Unsupported
from volagent.host.process import Outcome


class WithoutLibrary:
    """Stands where `Helpers` does: children find no library, and blkid says `outcome`."""

    def __init__(self, outcome):
        self.outcome = outcome
        self.programs = []

    async def call(self, operation, _arguments, **_options):
        if operation == "find_signature":
            raise Unsupported("dlopen", "libblkid.so.1", 2)
        return {"offset": None}

    async def run(self, argv, **_options):
        self.programs.append(argv)
        return self.outcome

    async def run_in_pool(self, function, *arguments):
        return function(*arguments)


@pytest.mark.parametrize(
    ("outcome", "fs_type", "found"),
    [
        (Outcome(0, b"TYPE=ext4\nUSAGE=filesystem\nUUID=1\n", b""), "ext4", ""),
        (Outcome(0, b"PTTYPE=gpt\n", b""), "", "a partition table (gpt)"),
        (Outcome(8, b"", b"ambivalent"), "", "several signatures at once"),
    ],
)
async def test_program_is_asked_when_there_is_no_library(outcome, fs_type, found):
    helpers = WithoutLibrary(outcome)
    signature = await RealDevices(helpers=helpers).probe("/dev/sdx")
    assert (signature.blank, signature.fs_type, signature.found) == (False, fs_type, found)
    (argv,) = helpers.programs
    assert argv[:2] == ("blkid", "-p")
