"""The tail of the code: no long file, no long function, no drawer for leftovers.

An exception is listed with its reason; one that is no longer needed fails too.
"""

from tests.meta.source_tree import ROOT, functions, python_files

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60

LONG_FILES: dict[str, str] = {
    "volagent/host/contract.py": "the kernel as the rest sees it: one contract",
    "volagent/settings.py": "one class per group of settings, and how all of them are read",
}
"""Path: why it is better long."""
LONG_FUNCTIONS: dict[str, str] = {}
"""`path::Class.function`: why it is better long."""
DRAWERS = {"utils", "util", "helpers", "helper", "common", "misc"}


def test_no_file_is_long_unless_listed_with_a_reason():
    long = {
        str(path): lines
        for path in python_files()
        if (lines := len((ROOT / path).read_text().splitlines())) > MAX_FILE_LINES
    }
    assert long.keys() == LONG_FILES.keys(), long


def test_no_function_is_long_unless_listed_with_a_reason():
    long = {
        f"{path}::{name}": lines
        for path in python_files()
        for name, lines in functions(path)
        if lines > MAX_FUNCTION_LINES
    }
    assert long.keys() == LONG_FUNCTIONS.keys(), long


def test_every_module_is_named_after_what_it_is_for():
    drawers = [
        str(path) for path in python_files() if DRAWERS.intersection({path.stem, *path.parts})
    ]
    assert drawers == []
