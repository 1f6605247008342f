"""What all tests share: root and its private mount namespace, and the search for leaks.

A test marked `root` runs as root in a mount namespace that this test run has for itself: whatever
it mounts is invisible to the machine, and is gone when the run ends, also when it is killed. After
each such test no mount, descriptor or loop device may be left (fixture `no_leaks`). After each
asyncio test no task may be left.
"""

import asyncio
import gc
import glob
import inspect
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.moto_server import MotoServer, running_server
from volagent.host import libc
from volagent.host.mountinfo import MountinfoReader

_namespace = pytest.StashKey[str]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.function):
            item.fixturenames.insert(0, "no_leaked_tasks")


def pytest_collection_finish() -> None:
    """What collecting has made stays, so the collector need not go through it after each test."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("root") is None:
        return
    stash = item.config.stash
    if _namespace not in stash:
        stash[_namespace] = _enter_private_namespace()
    if stash[_namespace]:
        pytest.skip(stash[_namespace])


def _enter_private_namespace() -> str:
    """Leave the machine's mount namespace; an empty text, or why that is not possible."""
    if os.geteuid() != 0:
        return "needs root: run `sudo make test`"
    try:
        libc.unshare(libc.CLONE_NEWNS)
        libc.make_mounts_private()
    except OSError as error:
        return f"needs a private mount namespace, which this machine refuses: {error}"
    return ""


@pytest.fixture
async def no_leaked_tasks() -> AsyncIterator[None]:
    yield
    me = asyncio.current_task()
    left = [task for task in asyncio.all_tasks() if task is not me]
    for task in left:
        task.cancel()
    assert not left, f"tasks left behind: {left}"


@pytest.fixture(scope="session")
def _scratch_root() -> Iterator[Path]:
    root = Path(tempfile.mkdtemp(prefix="volagent-tests-"))
    context = libc.fsopen(b"tmpfs")
    libc.fsconfig(context, libc.FSCONFIG_CMD_CREATE, None, None)
    mount = libc.fsmount(context, 0)
    libc.move_mount(mount, libc.AT_FDCWD, os.fsencode(root))
    os.close(mount)
    os.close(context)
    yield root
    libc.umount2(os.fsencode(root), libc.MNT_DETACH)
    root.rmdir()


@pytest.fixture
def scratch(_scratch_root: Path, request: pytest.FixtureRequest) -> Path:
    """A directory of the test's own, in memory, that leaves nothing on the machine."""
    path = Path(tempfile.mkdtemp(prefix="t-", dir=_scratch_root))
    path.chmod(0o755)
    return path


@pytest.fixture
def no_leaks(_scratch_root: Path) -> Iterator[None]:
    """Fails the test when mounts, descriptors or loop devices of its scratch are left."""
    mounts = set(_list_mounts())
    descriptors = _list_descriptors()
    yield
    gc.collect()
    problems = []
    for mount_point in reversed([point for point in _list_mounts() if point not in mounts]):
        libc.umount2(os.fsencode(mount_point), libc.MNT_DETACH)
        problems.append(f"mount {mount_point}")
    for fd, target in _list_descriptors().items():
        if descriptors.get(fd) != target:
            problems.append(f"descriptor {fd} ({target})")
    for link in glob.glob("/sys/block/loop*/loop/backing_file"):
        try:
            backing = Path(link).read_text().strip()
        except OSError:
            continue  # given back while we look
        if backing.startswith(f"{_scratch_root}/"):
            problems.append(f"loop device {link.split('/')[3]} ({backing})")
    assert not problems, f"left behind: {', '.join(problems)}"


def _list_mounts() -> list[str]:
    return [entry.mount_point for entry in MountinfoReader().read_table().entries]


def _list_descriptors() -> dict[int, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # the descriptor of this very listing
    return found


@pytest.fixture(scope="session")
def _moto_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MotoServer]:
    with running_server(tmp_path_factory.mktemp("moto") / "log") as server:
        yield server


@pytest.fixture
def moto(_moto_server: MotoServer) -> MotoServer:
    """An EC2 API with nothing in it."""
    _moto_server.reset()
    return _moto_server
