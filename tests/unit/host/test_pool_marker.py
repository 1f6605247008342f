"""A storage node serves the directory that it had, and no empty mount point in its place."""

import json

import pytest

from volagent.host.errors import Absent, HostError
from volagent.host.pool_marker import claim_pool


@pytest.fixture
def places(tmp_path):
    pool = tmp_path / "pool"
    pool.mkdir()
    return pool, tmp_path / "state" / "pools.json"


def claim(places, node="store"):
    pool, state = places
    return claim_pool(str(pool), node, str(state))


def test_new_directory_becomes_the_storage_nodes_and_stays_it(places):
    first = claim(places)
    assert claim(places) == first
    assert json.loads(places[1].read_text()) == {str(places[0]): first}


def test_mount_point_without_its_disk_is_noticed(places):
    pool, _ = places
    claim(places)
    pool.rename(pool.with_name("unmounted"))
    pool.mkdir()
    with pytest.raises(Absent):
        claim(places)
    assert list(pool.iterdir()) == []
    pool.rmdir()
    pool.with_name("unmounted").rename(pool)
    claim(places)


def test_other_disk_in_its_place_is_noticed(places):
    pool, state = places
    claim(places)
    other = pool.with_name("other")
    other.mkdir()
    claim_pool(str(other), "store", str(state))
    pool.rename(pool.with_name("old"))
    other.rename(pool)
    with pytest.raises(HostError, match="other volumes"):
        claim(places)


def test_disk_of_another_storage_node_is_left_to_that_name(places):
    claim(places)
    with pytest.raises(HostError, match="storage node store"):
        claim(places, node="another")


def test_machine_that_was_installed_anew_takes_its_disk_up_again(places):
    first = claim(places)
    places[1].unlink()
    assert claim(places) == first
    assert json.loads(places[1].read_text()) == {str(places[0]): first}


def test_marker_that_is_damaged_is_told(places):
    claim(places)
    (places[0] / ".volagent/storage-node").write_text("{")
    with pytest.raises(HostError, match="no record"):
        claim(places)
