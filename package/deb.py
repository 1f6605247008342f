"""Build dist/volagent_VERSION_ARCH.deb with dpkg-deb, without root and without a network.

    python -m package.deb [--dist DIRECTORY] [--compression xz|zstd|gzip|none]

(1) Put every file in its place in a temporary tree (`package.tree`). (2) Compile the Python code
there. (3) Write the control files. (4) Give everything one time and the modes of a package. (5) Let
dpkg-deb make the archive. Two builds of one commit with one interpreter are equal byte by byte:
times come from SOURCE_DATE_EPOCH, else from the last commit, else from the changelog.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from email.utils import parsedate_to_datetime
from pathlib import Path

from package import control, tree
from package.closure import ClosureError, find_closure
from volagent import __version__

PROJECT = Path(__file__).parents[1]


class BuildError(Exception):
    """The package cannot be built; the text says why and what would help."""


def main() -> int:
    """Build the package; the exit status."""
    parser = argparse.ArgumentParser(prog="package.deb")
    parser.add_argument("--dist", type=Path, default=PROJECT / "dist", metavar="DIRECTORY")
    parser.add_argument("--compression", default="xz", choices=["xz", "zstd", "gzip", "none"])
    given = parser.parse_args()
    try:
        print(os.path.relpath(build(given.dist, given.compression)))
    except ClosureError as error:
        print(f"volagent: cannot build the package: {error}", file=sys.stderr)
        print("hint: make setup", file=sys.stderr)
        return 1
    except BuildError as error:
        print(f"volagent: cannot build the package: {error}", file=sys.stderr)
        return 1
    return 0


def build(dist: Path, compression: str = "xz") -> Path:
    """Build the package; its path. Raises `BuildError`, `ClosureError`."""
    epoch = source_date_epoch()
    closure = find_closure(PROJECT)
    with tempfile.TemporaryDirectory(prefix="volagent-deb-") as temporary:
        root = Path(temporary, "root")
        root.mkdir()
        tree.fill(root, PROJECT, closure, epoch)  # (1)
        _compile(root)  # (2)
        architecture = _output("dpkg", "--print-architecture")
        control.write(root, PROJECT, closure, architecture)  # (3)
        tree.normalise(root, epoch)  # (4)
        dist.mkdir(parents=True, exist_ok=True)
        package = dist / f"volagent_{__version__}_{architecture}.deb"
        _archive(root, package, compression, epoch)  # (5)
    return package


def source_date_epoch() -> int:
    """The time that everything in the package bears, in seconds since 1970."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given:
        return int(given)
    try:
        return int(_output("git", "-C", str(PROJECT), "log", "-1", "--format=%ct"))
    except (BuildError, ValueError):  # not a checkout: the time of the last entry
        changelog = (PROJECT / "package" / "debian" / "changelog").read_text()
        last = next(line for line in changelog.splitlines() if line.startswith(" -- "))
        return int(parsedate_to_datetime(last.partition(">  ")[2]).timestamp())


def _compile(root: Path) -> None:
    """Compile in a process of its own: what is compiled is equal only when the process is."""
    command = [
        sys.executable, "-I", "-S", "-m", "compileall", "-q", "--invalidation-mode",
        "unchecked-hash", "-s", str(root), "-p", "/", str(root / tree.LIBRARY),
    ]  # fmt: skip
    subprocess.run(command, check=True, env={"PYTHONHASHSEED": "0"})


def _archive(root: Path, package: Path, compression: str, epoch: int) -> None:
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch), "LC_ALL": "C.UTF-8"}
    unfinished = package.with_suffix(".new")
    command = [
        "dpkg-deb", f"-Z{compression}", "--root-owner-group", "--build", str(root), str(unfinished),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode != 0:
        raise BuildError(done.stderr.strip())
    unfinished.replace(package)


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except FileNotFoundError:
        raise BuildError(f"{command[0]} is missing: install the package of that name") from None
    except subprocess.CalledProcessError as error:
        raise BuildError(f"{' '.join(command)}: {error.stderr.strip()}") from error


if __name__ == "__main__":
    sys.exit(main())
