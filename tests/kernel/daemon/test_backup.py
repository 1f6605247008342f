"""Backups of real daemons: taken, restored, refused; and a move from SQLite to etcd."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import etcd_server
from tests.etcd_server import EtcdCluster
from tests.kernel.daemon.harness import Daemon, Json, Refused
from tests.kernel.daemon.several import SharedServer
from tests.kernel.daemon.test_agent import Server, volagent

CONFIG: Json = {
    "kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "c"}, "data": {"v": "1"},
}  # fmt: skip
needs_etcd = pytest.mark.skipif(etcd_server.PROGRAM is None, reason=etcd_server.MISSING)


@pytest.fixture
def server(stopped: Daemon) -> Iterator[Server]:
    server = Server(stopped.base / "server")
    server.serve()
    server.declare(CONFIG)
    yield server
    if server.running:
        assert server.stop() == 0, server.read_log()


@pytest.fixture
def etcd(stopped: Daemon) -> Iterator[EtcdCluster]:
    cluster = EtcdCluster(stopped.base / "etcd")
    cluster.start()
    yield cluster
    cluster.stop()


def must(*arguments: str | Path) -> str:
    done: subprocess.CompletedProcess[str] = volagent(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def is_forgotten(daemon: Daemon, revision: str) -> bool:
    """Whether a client that knows a revision is told to list again."""
    path = f"/api/v1/configmaps?watch=true&resourceVersion={revision}&timeoutSeconds=1"
    return "too old resource version" in str(daemon.call("GET", path))


def test_backup_restores_everything_and_clients_are_told_to_list_again(server: Server):
    file = server.base / "backup"
    assert "objects at revision" in must("backup", file, "--run-dir", server.run)
    assert file.stat().st_mode & 0o777 == 0o600
    before = server.get(CONFIG)
    server.patch(CONFIG, {"data": {"v": "2"}})
    last = server.get(CONFIG)["metadata"]["resourceVersion"]
    assert server.stop() == 0
    refused = volagent("restore", file, "--state-dir", server.state)
    assert refused.returncode == 1
    assert "objects.db is there already" in refused.stderr
    (server.state / "objects.db").unlink()

    must("restore", file, "--state-dir", server.state)
    server.serve()

    after = server.get(CONFIG)
    assert after["data"] == {"v": "1"}
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert int(after["metadata"]["resourceVersion"]) > int(before["metadata"]["resourceVersion"])
    for known in (before["metadata"]["resourceVersion"], last):
        assert is_forgotten(server, known)


def test_damaged_backup_is_refused(server: Server):
    file = server.base / "backup"
    must("backup", file, "--run-dir", server.run)
    content = file.read_bytes()
    assert server.stop() == 0
    for number, damaged in enumerate(
        (content[: len(content) // 2], content.replace(b'"', b"'", 1))
    ):
        bad = server.base / f"bad-{number}"
        bad.write_bytes(damaged)
        refused = volagent("restore", bad, "--state-dir", server.base / "other")
        assert refused.returncode == 1, refused.stdout
        assert "cannot restore" in refused.stderr


def shared_server(base: Path, etcd: EtcdCluster, port: int) -> SharedServer:
    return SharedServer(base, "s", etcd.endpoints, port)


@needs_etcd
def test_server_moves_from_sqlite_to_etcd_with_its_authority_and_its_revisions_go_on(
    stopped: Daemon, server: Server, etcd: EtcdCluster
):
    before = server.get(CONFIG)
    authority = (server.state / "pki/ca.crt").read_bytes()
    assert server.stop() == 0
    moved = shared_server(server.base, etcd, server.port)
    config = server.base / "etcd.toml"
    config.write_text(moved.store)

    must("migrate", "--config", config, "--state-dir", server.state)
    moved.serve()

    after = moved.get(CONFIG)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert int(after["metadata"]["resourceVersion"]) > int(before["metadata"]["resourceVersion"])
    assert is_forgotten(moved, before["metadata"]["resourceVersion"])
    other = shared_server(stopped.base / "other", etcd, etcd_server.free_ports(1)[0])
    other.serve()
    assert (other.state / "pki/ca.crt").read_bytes() == authority
    assert other.get(CONFIG) == after
    for each in (other, moved):
        assert each.stop() == 0, each.read_log()
    refused = volagent("migrate", "--config", config, "--state-dir", server.state)
    assert "there is no" in refused.stderr


@needs_etcd
def test_etcd_is_restored_from_a_backup_and_running_servers_go_down_for_it(
    stopped: Daemon, etcd: EtcdCluster
):
    server = shared_server(stopped.base / "server", etcd, etcd_server.free_ports(1)[0])
    server.serve()
    server.declare(CONFIG)
    file = server.base / "backup"
    must("backup", file, "--run-dir", server.run)
    before = server.get(CONFIG)["metadata"]["resourceVersion"]
    server.patch(CONFIG, {"data": {"v": "2"}})
    config = server.base / "volagent.toml"
    command = ("restore", file, "--config", config, "--state-dir", server.state)
    assert "give --replace" in volagent(*command).stderr

    must(*command, "--replace")

    assert server.process is not None
    assert server.process.wait(20) == 1
    assert "filled anew from a backup" in server.read_log()
    server.serve()
    after = server.get(CONFIG)
    assert after["data"] == {"v": "1"}
    assert int(after["metadata"]["resourceVersion"]) > int(before)
    with pytest.raises(Refused, match="404"):
        server.call("GET", "/api/v1/namespaces/default/configmaps/none")
    assert server.stop() == 0, server.read_log()
