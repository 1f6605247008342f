"""Labs for the scenarios: one per module, skipped as a whole where none can be made."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.lab.backend import Backend, choose_backend, find_obstacle, open_backend
from tests.cluster.lab.cluster import Cluster
from tests.cluster.lab.machine import Lab

_HERE = Path(__file__).parent
_TEST_TIMEOUT_S = {"uml": 300, "vagrant": 3600}
"""Of one scenario, the boot of its machines included."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    name = choose_backend()
    for item in items:
        if item.path.is_relative_to(_HERE):
            item.add_marker(pytest.mark.cluster)
            item.add_marker(pytest.mark.timeout(_TEST_TIMEOUT_S[name]))
            for mark in item.iter_markers("only_on"):
                if name not in mark.args:
                    reason = f"not on {name}: {mark.kwargs['reason']}"
                    item.add_marker(pytest.mark.skip(reason=reason))
    if name == "vagrant":
        # The cluster that modules share takes every machine that there is, until the run's end.
        items.sort(key=lambda item: "cluster" in getattr(item, "fixturenames", ()))


_figures = pytest.StashKey[list[str]]()
_WORKER_FIGURES = "figures"


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Of several processes, each hands its figures to the one that reports."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output[_WORKER_FIGURES] = session.config.stash.get(_figures, [])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    lines = node.config.stash.setdefault(_figures, [])
    lines += getattr(node, "workeroutput", {}).get(_WORKER_FIGURES, [])


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    lines = config.stash.get(_figures, [])
    if lines:
        terminalreporter.section("seen on the virtual machines")
        for line in lines:
            terminalreporter.line(line)


@pytest.fixture(scope="session")
def figure(pytestconfig: pytest.Config) -> Callable[[str, float], None]:
    """Report a time in milliseconds at the end of the run; it is not judged."""
    lines = pytestconfig.stash.setdefault(_figures, [])
    return lambda what, took_ms: lines.append(f"{what}: {took_ms:.0f} ms")


@pytest.fixture(scope="session")
def backend() -> Iterator[Backend]:
    """Skips with the reason where there cannot be a lab.

    Who asks for Vagrant's machines by name is told instead: a run of skips would seem to be good.
    """
    name = choose_backend()
    obstacle = find_obstacle(name)
    if obstacle is not None and name == "vagrant":
        pytest.exit(f"vagrant: {obstacle}", returncode=1)
    if obstacle is not None:
        pytest.skip(f"virtual machines: {obstacle}")
    with open_backend(name) as made:
        yield made


@pytest.fixture(scope="module")
def lab(backend: Backend) -> Iterator[Lab]:
    """An empty lab; the module's own fixtures add machines to it."""
    with backend.make_lab() as made:
        yield made


@pytest.fixture(scope="session")
def cluster(backend: Backend) -> Iterator[Cluster]:
    """Storage, a server and two nodes, shared by the scenarios of several modules.

    Each leaves it as it was: every machine on, every daemon running, nothing declared.
    """
    with backend.make_lab() as made:
        yield Cluster.build(made)
