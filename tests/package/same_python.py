"""Whether the package can run here: it is made for one version of Python."""

import subprocess
import sys

import pytest

_SYSTEM = "/usr/bin/python3"
_OURS = "{}.{}".format(*sys.version_info[:2])


def _system_version() -> str:
    ask = "import sys; print('{}.{}'.format(*sys.version_info[:2]))"
    try:
        done = subprocess.run([_SYSTEM, "-c", ask], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "missing"
    return done.stdout.strip()


needs_same_python = pytest.mark.skipif(
    _system_version() != _OURS,
    reason=f"{_SYSTEM} is {_system_version()}, the package is built by and for Python {_OURS}",
)
