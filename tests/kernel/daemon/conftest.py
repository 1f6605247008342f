"""A running daemon for each test; nothing of it is left, also when a test fails or is killed."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.daemon.harness import Daemon, until
from tests.loop_leftovers import give_back, owned_directory, sweep_dead

_failed = pytest.StashKey[bool]()


@pytest.fixture(scope="session", autouse=True)
def _swept() -> None:
    sweep_dead()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    if call.when == "call":
        item.stash[_failed] = call.excinfo is not None
    return report


@pytest.fixture
def stopped(scratch: Path, no_leaks: None, request: pytest.FixtureRequest) -> Iterator[Daemon]:
    """A daemon that the test starts itself."""
    daemon = Daemon(owned_directory(scratch))
    daemon.base.mkdir()
    try:
        yield daemon
        if not request.node.stash.get(_failed, True):
            _withdraw_everything(daemon)
            assert daemon.find_leftovers() == []
    finally:
        daemon.give_everything_back()
        give_back(daemon.base)


@pytest.fixture
def daemon(stopped: Daemon) -> Daemon:
    """A daemon that is ready."""
    stopped.start()
    return stopped


def _withdraw_everything(daemon: Daemon) -> None:
    if not daemon.running:
        return
    for pod in daemon.call("GET", "/api/v1/namespaces/default/pods")["items"]:
        daemon.delete({"kind": "Pod", **pod})
    until(
        lambda: not daemon.call("GET", "/api/v1/namespaces/default/pods")["items"],
        told=daemon.read_log,
    )
    assert daemon.stop() == 0, daemon.read_log()
