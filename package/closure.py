"""The Python distributions that volagent needs at run time, and the files of each.

Computed from the metadata of what is installed beside the running interpreter, at the versions of
requirements.lock: what only development needs is left out. Nothing is fetched.
"""

import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path, PurePosixPath

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_BOOKKEEPING = {"RECORD", "INSTALLER", "REQUESTED", "WHEEL", "direct_url.json", "top_level.txt"}
_ONLY_TO_BUILD = {".c", ".h", ".hpp", ".pxd", ".pxi", ".pyi", ".pyx"}
_MANYLINUX = re.compile(r"manylinux_(\d+)_(\d+)_")
_NO_LICENCE = "see the licence files of its metadata"


class ClosureError(Exception):
    """What is installed is not what the lock file names; the remedy is `make setup`."""


def find_closure(project: Path) -> list[Distribution]:
    """The run-time distributions of the project in this directory, by name.

    Raises `ClosureError` when one is missing or has another version than requirements.lock says.
    """
    declared = tomllib.loads((project / "pyproject.toml").read_text())["project"]["dependencies"]
    pins = _read_pins(project / "requirements.lock")
    found: dict[str, Distribution] = {}
    seen: set[str] = set()
    waiting = [Requirement(text) for text in declared]
    while waiting:
        requirement = waiting.pop()
        if str(requirement) in seen:
            continue
        seen.add(str(requirement))
        name = canonicalize_name(requirement.name)
        found[name] = _installed(name, pins)
        waiting += _requirements(found[name], requirement.extras)
    return [found[name] for name in sorted(found)]


def _read_pins(lock: Path) -> dict[str, str]:
    pairs = (line.split("==") for line in lock.read_text().splitlines() if "==" in line)
    return {canonicalize_name(name): version for name, version in pairs}


def _installed(name: str, pins: dict[str, str]) -> Distribution:
    try:
        found = distribution(name)
    except PackageNotFoundError:
        raise ClosureError(f"{name} is not installed") from None
    if found.version != pins.get(name):
        raise ClosureError(
            f"{name} {found.version} is installed, requirements.lock says {pins.get(name)}"
        )
    return found


def _requirements(found: Distribution, extras: set[str]) -> Iterator[Requirement]:
    for text in found.requires or ():
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": each}) for each in ("", *extras)):
            yield requirement


def list_files(found: Distribution) -> Iterator[tuple[Path, PurePosixPath]]:
    """Where each file that is needed at run time lies, and its place below site-packages."""
    for file in found.files or ():
        place = PurePosixPath(*file.parts)
        if (
            ".." in place.parts  # scripts and manual pages, outside site-packages
            or "__pycache__" in place.parts
            or place.suffix in _ONLY_TO_BUILD
            or place.name.startswith(".")
            or (place.parent.suffix == ".dist-info" and place.name in _BOOKKEEPING)
            or "tests" in place.parts
        ):
            continue
        yield Path(str(found.locate_file(file))), place


def libc_version(found: Distribution) -> tuple[int, int] | None:
    """The C library that its compiled parts need; None when it has none or does not say."""
    tags = re.findall(r"^Tag: (.+)$", found.read_text("WHEEL") or "", re.M)
    versions = [(int(a), int(b)) for tag in tags for a, b in _MANYLINUX.findall(tag)]
    return min(versions) if versions else None  # several tags: it runs with the oldest


def licence(found: Distribution) -> str:
    """Its licence in one line, as it states it."""
    meta = found.metadata
    for key in ("License-Expression", "License"):
        stated = meta[key].strip() if key in meta else ""
        if len(stated.splitlines()) == 1:
            return stated
    classes = [
        each.rpartition(" :: ")[2]
        for each in meta.get_all("Classifier") or ()
        if each.startswith("License ::")
    ]
    return ", ".join(classes) or _NO_LICENCE
