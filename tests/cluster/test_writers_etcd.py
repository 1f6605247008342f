"""A VM is lost while a pod writes, and so is who leads the move of its disks.

Three servers share an etcd of three members. The leading server, the leading member or both are
killed while the storage is asked for its proof, or in the moment of the loss itself. What is judged
is as in `test_writers.py`: one writer at every moment, nothing lost, the old node returns clean.
"""

import random
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.cluster.lab.cluster import Cluster
from tests.cluster.lab.etcd_members import EtcdMember
from tests.cluster.lab.machine import Lab
from tests.cluster.lab.shared_servers import OneServer, SharedServers, add_shared_servers
from tests.cluster.writer_failures import POWER, SEEDS, SERVER, Failure, long
from tests.cluster.writer_site import Site, build_site
from tests.etcd_server import MISSING

pytestmark = [
    pytest.mark.only_on("uml", reason="the consoles of the machines are read as they run"),
    long,
    pytest.mark.skipif(shutil.which("etcd") is None, reason=MISSING),
]
BACK_AFTER_S = 1.0
"""As systemd would start them again."""

LEADING_SERVER = "leading server"
LEADING_MEMBER = "leading member of etcd"
BOTH = "leading server and leading member of etcd"


@dataclass(frozen=True)
class Course:
    """What a seed makes of it."""

    loss: Failure
    together: bool
    """The leaders die with the node; else when a proof has been asked for."""
    pause_s: float
    soon: bool
    """The leaders are started again after a moment; else when the disks have moved."""

    @classmethod
    def choose(cls, seed: int) -> "Course":
        """Four seeds have every loss with every moment, eight with every way back as well."""
        cut, together, other = (bool(seed >> bit & 1) for bit in range(3))
        return cls(
            SERVER if cut else POWER,
            together,
            random.Random(seed).uniform(0.0, 2.0),
            soon=cut ^ together ^ other,
        )

    def __str__(self) -> str:
        when = "with the node" if self.together else f"{self.pause_s:.1f} s after the question"
        back = "back soon" if self.soon else "back after the move"
        return f"node: {self.loss.name}; leaders: {when}, {back}"


@pytest.fixture(scope="module")
def whole_site(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Site:
    cluster = Cluster.build(lab, add_shared_servers)
    return build_site(cluster, tmp_path_factory.mktemp("writer"))


@pytest.fixture
def site(whole_site: Site) -> Iterator[Site]:
    yield whole_site
    whole_site.server.start()  # what a test that failed has left down
    whole_site.cluster.clean()
    whole_site.forget()


def find_leaders(servers: SharedServers, whom: str) -> list[OneServer | EtcdMember]:
    leaders: list[OneServer | EtcdMember] = []
    if whom in (LEADING_SERVER, BOTH):
        leaders.append(servers.leader())
    if whom in (LEADING_MEMBER, BOTH):
        leaders.append(servers.etcd.leader())
    return leaders


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("whom", [LEADING_SERVER, LEADING_MEMBER, BOTH])
def test_disks_move_with_one_writer_when_who_leads_the_move_is_killed(site, whom, seed, figure):
    course = Course.choose(seed)
    servers: SharedServers = site.server
    pod = site.declare()
    node = site.node_of(pod)
    there = site.other(node)
    site.start_writers(pod, node)
    leaders = find_leaders(servers, whom)
    began = time.monotonic()
    course.loss.begin(site, node)
    if not course.together:
        site.await_fencing()
        time.sleep(course.pause_s)
    servers.kill_at_once(*leaders)
    killed = time.monotonic()
    assert all(each.has_led_last() for each in leaders if isinstance(each, OneServer))
    if course.soon:
        time.sleep(BACK_AFTER_S)
        servers.begin()
    site.await_move(pod, node)
    took_s, later_s = time.monotonic() - began, time.monotonic() - killed
    names = " and ".join(each.name for each in leaders)
    figure(f"fail-over, killed: {whom} ({names}); {course}; to mounted elsewhere", took_s * 1000)
    figure("    of which after the kill", later_s * 1000)
    site.start_writers(pod, there)
    if not course.soon:
        servers.wait_led_by_others(*leaders)
    servers.start()
    course.loss.end(site, node)
    site.await_return(node)
    site.await_progress(there)
    site.finish(pod, there)
