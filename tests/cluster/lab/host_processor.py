"""What User-Mode-Linux needs on this processor: nothing, or `xstate.c` in front of libc."""

import shutil
import subprocess
from pathlib import Path

_SOURCE = Path(__file__).with_name("xstate.c")
_TOO_MUCH = "amx_tile"
"""A processor with this has more registers than a kernel of 6.1 leaves room for."""
_COMPILE_TIMEOUT_S = 60.0


def find_obstacle() -> str | None:
    """Why no such kernel would start here, or None."""
    if _needs_help() and shutil.which("cc") is None:
        return "needs gcc, as this processor has AMX: run `sudo make system-packages`"
    return None


def prepare(directory: Path) -> tuple[str, ...]:
    """What to put before the kernel's command line; may make a file in the directory."""
    if not _needs_help():
        return ()
    library = directory / "xstate.so"
    command = ["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(_SOURCE), "-ldl"]
    subprocess.run(command, check=True, timeout=_COMPILE_TIMEOUT_S)
    return ("env", f"LD_PRELOAD={library}")


def _needs_help() -> bool:
    return _TOO_MUCH in Path("/proc/cpuinfo").read_text().split()
