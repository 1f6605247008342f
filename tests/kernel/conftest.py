"""Tests on this machine's kernel: all as root, in a private mount namespace, without a leak."""

from collections.abc import Iterator
from pathlib import Path

import pytest

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(_HERE):
            item.add_marker(pytest.mark.root)


@pytest.fixture(autouse=True)
def _watch_for_leaks(no_leaks: None) -> Iterator[None]:
    return
