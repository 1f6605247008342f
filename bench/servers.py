"""`server_loss_s`: the leading one of three servers is killed, and a client of it writes on.

Three servers over three members of etcd, as processes of this machine. The client uses the server
that leads; when that does not answer, it asks the next. The clock runs from `kill -9` until another
server has acknowledged a write. How long no controllers run is told beside it, and what it takes
when etcd's own leader is killed at the same moment.
"""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench.figures import Figure
from tests import etcd_server
from tests.kernel.daemon.harness import until
from tests.kernel.daemon.several import Servers, SharedServer
from tests.kernel.daemon.write_load import PATH, NoAnswer, ask, config

ROUNDS, QUICK_ROUNDS = 5, 2
LEAD_WITHIN_S = 40.0


def run_servers(base: Path, *, quick: bool) -> Iterator[Figure]:
    """The figures of several servers."""
    if etcd_server.PROGRAM is None:
        print(f"server_loss_s is not measured: {etcd_server.MISSING}", file=sys.stderr)
        return
    servers = Servers(base, servers=3, members=3)
    rounds = QUICK_ROUNDS if quick else ROUNDS
    try:
        servers.start()
        alone = [_lose(servers, number, with_etcd=False) for number in range(rounds)]
        both = [_lose(servers, rounds + number, with_etcd=True) for number in range(rounds)]
    finally:
        servers.end()
    yield Figure(
        "server_loss_s", "s", [write_s for write_s, _ in alone], "<= 5",
        "kill -9 of the leading server of three until another acknowledges a write",
        extra={"controllers_again_s_max": round(max(lead_s for _, lead_s in alone), 1)},
    )  # fmt: skip
    yield Figure(
        "server_and_etcd_leader_loss_s", "s", [write_s for write_s, _ in both], "<= 5",
        "the same, with etcd's leading member of three killed at the same moment",
        extra={"controllers_again_s_max": round(max(lead_s for _, lead_s in both), 1)},
    )  # fmt: skip


def _lose(servers: Servers, number: int, *, with_etcd: bool) -> tuple[float, float]:
    """Seconds until the next write, and until controllers run again."""
    leader = servers.wait_leader()
    others = [each for each in servers.all if each is not leader]
    member = servers.etcd.leader() if with_etcd else None
    _write(leader, f"before-{number}")
    began_s = time.monotonic()
    leader.kill()
    if member is not None:
        member.kill()
    tries = 0
    while not _write([leader, *others][tries % 3], f"after-{number}-{tries}"):
        tries += 1
    write_s = time.monotonic() - began_s
    until(lambda: any(each.leads for each in others), within_s=LEAD_WITHIN_S)
    lead_s = time.monotonic() - began_s
    if member is not None:
        member.start()
        member.wait_healthy()
    leader.serve()
    return write_s, lead_s


def _write(server: SharedServer, name: str) -> bool:
    try:
        return ask(server, "POST", PATH, config(name, ""))[0] == 201
    except NoAnswer:
        return False
