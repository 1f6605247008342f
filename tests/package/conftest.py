"""The package, built once for all tests here, and what is in it."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def build() -> Callable[[Path], Path]:
    """Build the package into a directory; its path. Hardly compressed, which is quick."""
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb is missing: Debian packages are built on Debian and its kin")

    def build(directory: Path) -> Path:
        command = [sys.executable, "-m", "package.deb", "--dist", directory]
        subprocess.run([*command, "--compression", "zstd"], cwd=PROJECT, check=True, timeout=100)
        (package,) = directory.glob("*.deb")
        return package

    return build


@pytest.fixture(scope="session")
def deb(build: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("deb"))


@pytest.fixture(scope="session")
def unpacked(deb: Path) -> Path:
    """A directory with the package's files, as below /."""
    directory = deb.parent / "unpacked"
    subprocess.run(["dpkg-deb", "-x", deb, directory], check=True)
    return directory


@pytest.fixture(scope="session")
def control(deb: Path) -> Path:
    """A directory with the package's control files."""
    directory = deb.parent / "control"
    subprocess.run(["dpkg-deb", "-e", deb, directory], check=True)
    return directory
