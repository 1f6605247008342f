"""What cannot work is told, with what, why and a remedy; the rest of the node is unaffected."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cluster.manifests import pod, scratch
from tests.kernel.daemon.harness import Daemon, Refused, mount_tmpfs, until
from volagent.host import libc

MIB = 1 << 20


@contextmanager
def small_disk(path: Path, size: str) -> Iterator[None]:
    path.mkdir(parents=True)
    mount_tmpfs(path, size)
    try:
        yield
    finally:
        libc.umount2(os.fsencode(path), libc.MNT_DETACH)


def fill(file: Path) -> None:
    with open(file, "wb", buffering=0) as filler:
        for size in (1 << 16, 1 << 10, 1):
            try:
                while filler.write(b"x" * size) == size:
                    pass
            except OSError:
                continue


@pytest.mark.parametrize("shared", ["root", "state"])
def test_second_daemon_on_the_same_directory_is_refused_by_the_firsts_pid(
    daemon: Daemon, shared: str
) -> None:
    second = Daemon(daemon.base / "second")
    second.launch(**{shared: getattr(daemon, shared)})
    assert second.process is not None
    assert daemon.process is not None

    assert second.process.wait(20) == 1

    said = second.read_log()
    assert re.search(rf"cannot go on: .*in use by process {daemon.process.pid}\b", said)
    assert "Traceback" not in said
    assert daemon.is_ready()
    daemon.declare_ready(pod("web", [{"name": "memory", "emptyDir": {"medium": "Memory"}}]))


@pytest.mark.parametrize(
    ("type_", "words"),
    [
        ("Directory", ("does not exist", "make a directory at")),
        ("File", ("does not exist", "make a file at")),
        ("Socket", ("does not exist", "make a socket file at")),
        ("BlockDevice", ("does not exist", "make a block device at")),
    ],
)
def test_missing_host_path_is_told_and_healed_by_making_it(
    daemon: Daemon, type_: str, words: tuple[str, ...]
) -> None:
    path = daemon.base / "missing"
    web = pod("web", [{"name": "host", "hostPath": {"path": str(path), "type": type_}}])
    daemon.declare(web)

    daemon.wait_blocked(web, "hostPath type check failed", str(path), *words)
    daemon.wait_event(web, "FailedMount", str(path), *words)
    assert not path.exists()

    if type_ == "Directory":
        path.mkdir()
        daemon.wait_ready(web)


def test_host_path_of_another_kind_is_told(daemon: Daemon) -> None:
    path = daemon.base / "file"
    path.write_text("here")
    web = pod("web", [{"name": "host", "hostPath": {"path": str(path), "type": "Directory"}}])
    daemon.declare(web)

    daemon.wait_blocked(web, f"{path} is not a directory", "correct the path or its type")


def test_full_disk_is_told_and_heals_when_space_is_freed(stopped: Daemon) -> None:
    with small_disk(stopped.root, "1m"):
        stopped.start()
        stopped.declare(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "big"},
             "data": {"big": "x" * 300_000}}
        )  # fmt: skip
        web = pod("web", [{"name": "big", "configMap": {"name": "big"}}, scratch("disk")])
        filler = stopped.root / "filler"
        fill(filler)
        (made,) = stopped.declare(web)

        stopped.wait_blocked(web, "ENOSPC", "free space")
        stopped.wait_event(web, "FailedMount", "ENOSPC")
        assert stopped.is_ready()
        filler.unlink()

        stopped.wait_ready(web)
        home = stopped.pods / made["metadata"]["uid"]
        big = home / "volumes/kubernetes.io~configmap/big/big"
        assert big.read_text() == "x" * 300_000
        stopped.delete_gone(web)
        assert list(stopped.pods.iterdir()) == []
        assert stopped.stop() == 0


def test_full_disk_keeps_no_pod_from_being_deleted(stopped: Daemon) -> None:
    with small_disk(stopped.root, "1m"):
        stopped.start()
        web = pod("web", [scratch("disk"), scratch("memory", "Memory")])
        (home,) = stopped.declare_ready(web)
        fill(home / "volumes/kubernetes.io~empty-dir/disk/filler")

        stopped.delete_gone(web)

        assert list(stopped.pods.iterdir()) == []
        assert stopped.stop() == 0


def test_full_state_directory_refuses_writes_and_serves_the_rest(stopped: Daemon) -> None:
    with small_disk(stopped.state, "4m"):
        stopped.start()
        stopped.declare_ready(pod("web", [scratch("memory", "Memory")]))
        filler = stopped.state / "filler"
        fill(filler)

        def declare_until_refused() -> Refused | None:
            for number in range(200):
                try:
                    stopped.declare(
                        {"apiVersion": "v1", "kind": "ConfigMap",
                         "metadata": {"name": f"c-{number}"}, "data": {"x": "x" * 100_000}}
                    )  # fmt: skip
                except Refused as refused:
                    return refused
            return None

        refused = declare_until_refused()
        assert refused is not None
        assert refused.status == 507
        assert "no space left" in refused.body["message"]
        assert stopped.is_ready()
        stopped.wait_ready(pod("web", []))
        filler.unlink()

        again = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "again"}}
        until(lambda: _is_accepted(stopped, again), told=stopped.read_log)
        stopped.delete_gone(pod("web", []))
        assert stopped.stop() == 0


def test_full_run_directory_is_told_and_heals_when_space_is_freed(stopped: Daemon) -> None:
    with small_disk(stopped.run, "256k"):
        stopped.start()
        early, late = (pod(name, [scratch("memory", "Memory")]) for name in ("early", "late"))
        stopped.declare_ready(early)
        before = stopped.mounts()
        filler = stopped.run / "filler"
        fill(filler)
        stopped.declare(*(pod(f"more-{n}", [scratch("memory", "Memory")]) for n in range(40)))
        stopped.declare(late)
        stopped.wait_blocked(late, "No space left")
        filler.unlink()

        stopped.wait_ready(late)

        stopped.restart()
        assert before.items() <= stopped.mounts().items()
        stopped.delete_gone(early, late, *(pod(f"more-{n}", []) for n in range(40)))
        assert stopped.stop() == 0


def _is_accepted(daemon: Daemon, document: dict[str, object]) -> bool:
    try:
        daemon.declare(document)
    except Refused:
        return False
    return True
