"""Labs for the scenarios: one per module, skipped as a whole where none can be made."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.lab.lab import Lab, find_obstacle

_HERE = Path(__file__).parent
_TEST_TIMEOUT_S = 300
"""Of one scenario, the boot of its machines included."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(_HERE):
            item.add_marker(pytest.mark.cluster)
            item.add_marker(pytest.mark.timeout(_TEST_TIMEOUT_S))


@pytest.fixture(scope="session")
def _lab_is_possible() -> None:
    obstacle = find_obstacle()
    if obstacle is not None:
        pytest.skip(f"virtual machines: {obstacle}")


@pytest.fixture(scope="module")
def lab(_lab_is_possible: None) -> Iterator[Lab]:
    """An empty lab; the module's own fixtures add machines to it."""
    with Lab() as made:
        yield made
