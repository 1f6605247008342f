"""Several servers over one etcd: any answers, one leads, agents ask whichever is there."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import etcd_server
from tests.kernel.daemon.harness import Daemon, Json, until
from tests.kernel.daemon.several import Servers
from tests.kernel.daemon.test_agent import NODE, SECRET, Agent, file_of, join_command, secret_pod
from tests.kernel.daemon.test_agent import volagent as run_volagent

pytestmark = [
    pytest.mark.skipif(etcd_server.PROGRAM is None, reason=etcd_server.MISSING),
    pytest.mark.timeout(180),
]

CONFIG: Json = {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "c"}, "data": {}}


@pytest.fixture
def servers(stopped: Daemon) -> Iterator[Servers]:
    started = Servers(stopped.base, servers=2, members=1)
    try:
        started.start()
        yield started
    finally:
        started.end()


def test_what_one_server_acknowledged_any_other_shows_at_once(servers: Servers):
    one, other = servers.all
    one.declare(CONFIG)
    for number in range(50):
        one.patch(CONFIG, {"data": {"n": str(number)}})
        assert other.get(CONFIG)["data"]["n"] == str(number)
        one, other = other, one
    one.delete(CONFIG)
    assert not other.exists(CONFIG)


def test_one_server_leads_and_another_does_when_it_is_killed(servers: Servers):
    leader = servers.wait_leader()
    (other,) = [each for each in servers.all if each is not leader]
    assert not other.leads
    leader.kill()
    until(lambda: other.leads, within_s=30.0, told=other.read_log)
    leader.serve()
    assert not leader.log.read_text().endswith("leading")


def test_leader_that_is_stopped_hands_over_at_once(servers: Servers):
    leader = servers.wait_leader()
    (other,) = [each for each in servers.all if each is not leader]
    assert leader.stop() == 0, leader.read_log()
    until(lambda: other.leads, within_s=3.0, told=other.read_log)


def test_namespace_ends_whichever_server_it_is_deleted_at(servers: Servers):
    space: Json = {"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "team"}}
    inside: Json = {**CONFIG, "metadata": {"name": "c", "namespace": "team"}}
    leader = servers.wait_leader()
    (other,) = [each for each in servers.all if each is not leader]
    leader.declare(space)
    other.call("POST", "/api/v1/namespaces/team/configmaps", inside)
    other.delete(space)
    until(lambda: not leader.exists(space), told=leader.read_log)


def test_servers_share_their_authority_and_their_tokens(servers: Servers):
    first, second = ((each.state / "pki/ca.crt").read_bytes() for each in servers.all)
    assert first == second
    keys = {(each.state / "token.key").read_bytes() for each in servers.all}
    assert len(keys) == 1


@pytest.fixture
def agent(stopped: Daemon, servers: Servers) -> Iterator[Agent]:
    agent = Agent(stopped.base / "agent")
    command = join_command(servers.all[0])
    urls = [each for server in servers.all for each in ("--server", server.url)]
    at = command.index("--server")
    done = run_volagent(
        *command[:at], *urls, *command[at + 2 :], "--node-name", NODE, "--state-dir", agent.state
    )
    assert done.returncode == 0, done.stderr
    agent.serve()
    yield agent
    if agent.running:
        assert agent.stop() == 0, agent.read_log()


def test_agent_goes_on_with_another_server_when_its_own_is_killed(servers: Servers, agent: Agent):
    one, other = servers.all
    web = secret_pod()
    one.declare(SECRET)
    one.declare_ready(web)
    for gone, left, value in ((one, other, "MQ=="), (other, one, "Mg==")):
        gone.kill()
        left.patch(SECRET, {"data": {"k": value}})
        expected = {"MQ==": "1", "Mg==": "2"}[value]
        file = file_of(agent, left, web)
        until(lambda: _text(file) == expected, within_s=60.0, told=agent.read_log)  # noqa: B023
        gone.serve()
    one.delete_gone(web)


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
