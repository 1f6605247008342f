"""The package as a file: what is in it, with which modes, and that it runs from where it lies."""

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from package.closure import find_closure
from package.units import ROLES
from tests.package.same_python import needs_same_python
from volagent import __version__

PROJECT = Path(__file__).parents[2]
LIBRARY = "usr/lib/volagent"
PLACES = (
    "etc/volagent/volagent.toml",
    "usr/bin/volagent",
    "usr/lib/sysusers.d/volagent.conf",
    "usr/share/bash-completion/completions/volagent",
    "usr/share/doc/volagent/changelog.gz",
    "usr/share/doc/volagent/copyright",
    "usr/share/doc/volagent/examples/image-claim.yaml",
    "usr/share/doc/volagent/operations.md",
    "usr/share/fish/vendor_completions.d/volagent.fish",
    "usr/share/man/man1/volagent.1.gz",
    "usr/share/man/man5/volagent.toml.5.gz",
    "usr/share/zsh/vendor-completions/_volagent",
    *(f"usr/lib/systemd/system/{role.unit}" for role in ROLES),
)
DIRECTORY, PLAIN, PROGRAM = "drwxr-xr-x", "-rw-r--r--", "-rwxr-xr-x"


def test_every_file_is_in_its_place(unpacked):
    missing = [place for place in PLACES if not (unpacked / place).is_file()]
    assert missing == []


def test_everything_belongs_to_root_and_only_the_command_is_executable(deb):
    listing = subprocess.run(["dpkg-deb", "-c", deb], capture_output=True, text=True, check=True)
    seen = [line.split(maxsplit=5) for line in listing.stdout.splitlines()]
    assert {owner for _, owner, *_ in seen} == {"root/root"}
    assert {mode for mode, *_ in seen} == {DIRECTORY, PLAIN, PROGRAM}
    assert [name for mode, *_, name in seen if mode == PROGRAM] == ["./usr/bin/volagent"]


def test_settings_are_the_only_conffile(control):
    assert (control / "conffiles").read_text().split() == ["/etc/volagent/volagent.toml"]


def test_checksums_are_those_of_the_files(control, unpacked):
    lines = [line.split("  ") for line in (control / "md5sums").read_text().splitlines()]
    told = {name: checksum for checksum, name in lines}
    found = {
        str(path.relative_to(unpacked)): hashlib.md5(path.read_bytes()).hexdigest()
        for path in unpacked.rglob("*")
        if path.is_file()
    }
    assert told == found


def test_package_asks_for_the_python_that_its_libraries_are_made_for(deb):
    def field(name):
        command = ["dpkg-deb", "-f", deb, name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    major, minor = sys.version_info[:2]
    assert field("Version") == __version__
    wanted = field("Depends").split(", ")
    assert wanted[:2] == [f"python3 (>= {major}.{minor})", f"python3 (<< {major}.{minor + 1})"]
    assert wanted[2].startswith("libc6 (>= 2.")
    assert field("Architecture") != "all"


def test_package_has_what_the_wheel_has(unpacked, tmp_path):
    sources = tmp_path / "sources"  # setuptools leaves its work beside what it builds
    shutil.copytree(PROJECT / "volagent", sources / "volagent")
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(PROJECT / name, sources)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index",
         "--no-build-isolation", "--wheel-dir", tmp_path, sources],
        check=True, timeout=100,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = {name for name in archive.namelist() if name.startswith("volagent/")}
    in_package = {
        str(path.relative_to(unpacked / LIBRARY))
        for path in (unpacked / LIBRARY / "volagent").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert in_package == in_wheel


def test_package_has_libraries_for_running_and_none_for_developing(unpacked):
    there = {path.name for path in (unpacked / LIBRARY).iterdir()}
    for distribution in find_closure(PROJECT):
        tops = {file.parts[0] for file in distribution.files if file.parts[0] != ".."}
        assert tops - {"__pycache__"} <= there, distribution.name
    assert there.isdisjoint({"pytest", "_pytest", "mypy", "hypothesis", "kubernetes", "pip"})


def test_every_module_is_compiled_and_names_its_place_on_the_machine(unpacked):
    modules = list((unpacked / LIBRARY / "volagent").rglob("*.py"))
    tag = sys.implementation.cache_tag
    for module in modules:
        compiled = module.parent / "__pycache__" / f"{module.stem}.{tag}.pyc"
        assert compiled.is_file(), compiled
        text = compiled.read_bytes()
        assert f"/{module.relative_to(unpacked)}".encode() in text


def test_package_names_no_directory_of_the_machine_that_built_it(unpacked):
    places = [os.fsencode(place) for place in (PROJECT, sys.prefix, sys.base_prefix)]
    places = [place for place in places if place not in (b"/", b"/usr")]
    telling = [
        (path, place)
        for path in unpacked.rglob("*")
        if path.is_file()
        for place in places
        if place in path.read_bytes()
    ]
    assert telling == []


@needs_same_python
@pytest.mark.parametrize(
    "arguments", [["--version"], ["version", "--client"], ["--help"], ["run", "--help"]]
)
def test_command_runs_from_the_unpacked_files_without_an_environment(unpacked, arguments):
    program = unpacked / "usr/bin/volagent"
    done = subprocess.run(
        [program, *arguments], env={}, cwd="/", capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "volagent" in done.stdout


@needs_same_python
def test_command_takes_no_module_from_the_caller(unpacked, tmp_path):
    (tmp_path / "click.py").write_text("raise SystemExit('the caller has a say')\n")
    environment = {"PYTHONPATH": str(tmp_path), "PYTHONHOME": str(tmp_path)}
    program = unpacked / "usr/bin/volagent"
    done = subprocess.run(
        [program, "--version"], env=environment, cwd=tmp_path, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == (f"volagent {__version__}\n", "")


@needs_same_python
def test_daemon_loads_with_the_libraries_of_the_package_alone(unpacked):
    roles = "import volagent.daemon.all_in_one, volagent.daemon.server, volagent.daemon.agent"
    program = f"import sys; sys.path.insert(0, {str(unpacked / LIBRARY)!r}); {roles}"
    subprocess.run(["/usr/bin/python3", "-I", "-S", "-c", program], env={}, check=True, timeout=60)


def test_second_build_gives_the_same_bytes(deb, build, tmp_path):
    assert build(tmp_path).read_bytes() == deb.read_bytes()
