"""A VM fails in one way or another while a pod writes: one writer at every moment, nothing lost.

The writers are not stopped by anybody here: what keeps a lost node from writing has to be the
storage, or that node's end.

A seed moves the moment of the failure. `VOLAGENT_TORTURE_SEEDS=20` runs every failure so often,
`VOLAGENT_TORTURE_SEEDS=5:10` with the seeds 5 to 9.
"""

import random
import time
from collections.abc import Iterable, Iterator

import pytest

from tests.cluster.lab.cluster import Cluster, on
from tests.cluster.lab.machine import Lab
from tests.cluster.writer_failures import (
    EXECUTOR_KILLED,
    EXECUTOR_OFF,
    FROZEN,
    FROZEN_LONG,
    KILLED,
    LONG,
    NETWORK,
    POWER,
    SEEDS,
    SERVER,
    SERVER_KILLED,
    STOPPED,
    STORAGE,
    WITH_SERVER,
    Failure,
    long,
)
from tests.cluster.writer_site import (
    FENCINGS,
    MOVE_S,
    NOTICES_S,
    STAYS_S,
    Site,
    build_site,
    name_of,
)

pytestmark = pytest.mark.only_on("uml", reason="the consoles of the machines are read as they run")


@pytest.fixture(scope="module")
def whole_site(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Site:
    return build_site(Cluster.build(lab), tmp_path_factory.mktemp("writer"))


@pytest.fixture
def site(whole_site: Site) -> Iterator[Site]:
    yield whole_site
    whole_site.cluster.clean()
    whole_site.forget()


SHORT = (POWER, FROZEN, SERVER)
LOSSES = (POWER, NETWORK, SERVER, FROZEN_LONG, KILLED, STOPPED, WITH_SERVER)
INTERRUPTIONS = (EXECUTOR_KILLED, EXECUTOR_OFF, SERVER_KILLED)


def each_of(argument: str, failures: Iterable[Failure]) -> pytest.MarkDecorator:
    """Run a test with every failure."""
    return pytest.mark.parametrize(argument, failures, ids=lambda each: each.name)


@pytest.mark.parametrize("seed", SEEDS)
@each_of("failure", LOSSES if LONG else SHORT)
def test_disks_of_a_lost_node_move_with_one_writer_at_every_moment(site, failure, seed, figure):
    moment = random.Random(seed)
    pod = site.declare()
    node = site.node_of(pod)
    site.start_writers(pod, node)
    time.sleep(moment.uniform(0.0, 2.0))
    failure.begin(site, node)
    took_s = site.await_move(pod, node)
    figure(f"fail-over after {failure.name}: to mounted elsewhere", took_s * 1000)
    site.go_on_elsewhere(pod, node, failure.end)


@pytest.mark.parametrize("seed", SEEDS)
def test_node_that_dies_while_it_takes_the_disks_loses_them(site, seed):
    """At any moment of attaching, formatting, mounting, and of the storage's registrations."""
    moment = random.Random(seed)
    pod = site.begin()
    node = site.node_of_soon(pod)
    time.sleep(moment.uniform(0.0, 4.0))
    POWER.begin(site, node)
    site.await_move(pod, node)
    site.go_on_elsewhere(pod, node, POWER.end)


@long
@pytest.mark.parametrize("seed", SEEDS)
def test_node_that_dies_while_it_gives_the_disks_up_leaves_them_whole(site, seed):
    """At any moment of unmounting, logging out, and of the array's taking back."""
    moment = random.Random(seed)
    pod = site.declare()
    node = site.node_of(pod)
    there = site.other(node)
    site.start_writers(pod, node)
    site.end_writers(node)
    server = site.server
    server.delete(pod)
    (successor,) = server.declare(on(site.make_pod("successor"), there))
    time.sleep(moment.uniform(0.0, 2.5))
    POWER.begin(site, node)
    server.wait_ready(successor, within_s=MOVE_S)
    site.go_on_elsewhere(successor, node, POWER.end)


@long
@pytest.mark.parametrize("seed", SEEDS)
@each_of("interruption", INTERRUPTIONS)
def test_fence_that_is_interrupted_is_done_again(site, interruption, seed, figure):
    """Who leads it or does it dies between any two of its steps."""
    moment = random.Random(seed)
    pod = site.declare()
    node = site.node_of(pod)
    there = site.other(node)
    site.start_writers(pod, node)
    SERVER.begin(site, node)
    began = time.monotonic()
    site.await_fencing()
    time.sleep(moment.uniform(0.0, 2.0))
    interruption.begin(site, there)
    interruption.end(site, there)
    site.await_move(pod, node)
    figure(f"fail-over with its {interruption.name}", (time.monotonic() - began) * 1000)
    site.go_on_elsewhere(pod, node, SERVER.end)


@long
@pytest.mark.parametrize("seed", SEEDS)
def test_node_that_thaws_as_its_disks_are_taken_keeps_them_or_loses_them(site, seed, figure):
    """Before, while, or after they are proved free: there is one writer in any case."""
    moment = random.Random(seed)
    pod = site.declare()
    node = site.node_of(pod)
    site.start_writers(pod, node)
    FROZEN.begin(site, node)
    site.await_fencing()
    time.sleep(moment.uniform(0.0, 4.0))
    FROZEN.end(site, node)
    began = time.monotonic()
    there = site.await_settled(pod, node)
    outcome = "keeps them" if there is node else "has lost them"
    figure(f"thawed as its disks are taken, {outcome}", (time.monotonic() - began) * 1000)
    if there is node:
        site.kill_writers(node)
        time.sleep(NOTICES_S)
        site.server.wait_ready(pod, within_s=MOVE_S)
        site.start_writers(pod, node)
    else:
        site.start_writers(pod, there)
        site.await_return(node)
        site.await_progress(there)
    site.finish(pod, there)


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_moves_when_only_the_storage_is_away(site, seed):
    pod = site.declare()
    node = site.node_of(pod)
    site.start_writers(pod, node)
    time.sleep(random.Random(seed).uniform(0.0, 2.0))
    STORAGE.begin(site, node)
    try:
        time.sleep(STAYS_S)
        assert site.node_of(pod) is node
        assert site.server.call("GET", FENCINGS)["items"] == []
    finally:
        STORAGE.end(site, node)
    site.await_progress(node)
    site.finish(pod, node)


@pytest.mark.parametrize("seed", SEEDS)
def test_disk_that_nobody_can_prove_free_stays_and_says_so(site, seed):
    pod = site.declare(reserved=False)
    node = site.node_of(pod)
    site.start_writers(pod, node)
    time.sleep(random.Random(seed).uniform(0.0, 2.0))
    SERVER.begin(site, node)
    try:
        time.sleep(STAYS_S + 15.0)
        assert site.node_of(pod) is node
        said = site.server.volagent(f"explain pod/{name_of(pod)}")
        assert "confirm-off" in said, said
        fencings = site.server.call("GET", FENCINGS)["items"]
        assert not [each for each in fencings if each["status"].get("phase") == "Proven"], fencings
    finally:
        SERVER.end(site, node)
    site.await_progress(node)
    site.finish(pod, node)
