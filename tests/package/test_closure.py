"""Which libraries the package carries, and when it is not built."""

import shutil
from pathlib import Path

import pytest

from package.closure import ClosureError, find_closure, list_files
from package.deb import source_date_epoch

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path):
    for name in ("pyproject.toml", "requirements.lock"):
        shutil.copy(PROJECT / name, tmp_path)
    return tmp_path


def change(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_closure_has_what_is_needed_by_what_is_needed(project):
    names = {found.name.lower() for found in find_closure(project)}
    assert {"aiohttp", "yarl", "multidict", "cryptography", "cffi", "pycparser"} <= names
    assert names.isdisjoint({"pytest", "mypy", "packaging", "setuptools", "kubernetes"})


def test_closure_is_refused_when_a_library_has_another_version_than_the_lock_says(project):
    change(project / "requirements.lock", "msgspec==", "msgspec==9")
    with pytest.raises(ClosureError, match=r"msgspec .* is installed, requirements.lock says 9"):
        find_closure(project)


def test_closure_is_refused_when_a_library_is_missing(project):
    change(project / "pyproject.toml", '"msgspec>=0.18.6"', '"no-such-library>=1"')
    with pytest.raises(ClosureError, match="no-such-library is not installed"):
        find_closure(project)


def test_files_of_a_library_are_those_of_its_own_directories_without_sources_to_compile(project):
    places = [place for found in find_closure(project) for _, place in list_files(found)]
    assert all(".." not in place.parts and not place.is_absolute() for place in places)
    assert {place.suffix for place in places}.isdisjoint({".c", ".pyx", ".pyi", ".pyc"})
    licences = {place.parts[0] for place in places if "licen" in place.name.lower()}
    assert len(licences) > 15  # texts of licences go with the libraries


def test_time_of_the_package_is_that_of_the_environment_when_it_gives_one(monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert source_date_epoch() == 1700000000
