"""What the tools enforce covers the whole project, new parts included."""

import re
import tomllib
from typing import Any

import pytest

from tests.meta.source_tree import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = {f"volagent.{path.parent.name}" for path in (ROOT / "volagent").glob("*/__init__.py")}


def contract(name: str) -> dict[str, Any]:
    (found,) = [
        each for each in PROJECT["tool"]["importlinter"]["contracts"] if each["name"] == name
    ]
    return found


def test_every_package_has_its_layer():
    layers = {
        module.strip() for layer in contract("layers")["layers"] for module in layer.split("|")
    }
    assert PACKAGES - layers == set()


@pytest.mark.parametrize(
    ("name", "home"),
    [("sqlite3 only in the store", "volagent.store"), ("ctypes only in host", "volagent.host")],
)
def test_every_package_but_its_home_is_forbidden_a_module_with_one_home(name: str, home: str):
    assert PACKAGES - set(contract(name)["source_modules"]) == {home}


def test_every_dependency_is_pinned_for_repeatable_runs():
    optional = PROJECT["project"]["optional-dependencies"]
    wanted = {
        re.split(r"[\[<>=~! ]", requirement)[0].lower().replace("_", "-")
        for requirement in (*PROJECT["project"]["dependencies"], *optional["dev"])
    }
    pinned = {
        line.partition("==")[0].lower().replace("_", "-")
        for line in (ROOT / "requirements.lock").read_text().splitlines()
        if "==" in line
    }
    assert wanted - pinned == set()
