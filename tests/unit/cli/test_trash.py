"""`volagent trash` against a fake daemon."""

import pytest

PATH = "/apis/node.volagent.dev/v1/trash"
ENTRY = {
    "id": "fake.test/pvc-1-0", "name": "pvc-1", "claim": "default/data", "capacity": "5Gi",
    "deleted_at": "2026-01-01T00:00:00Z", "expires_at": "2026-01-08T00:00:00Z",
}  # fmt: skip
VOLUME = {
    "metadata": {"name": "pvc-1"},
    "spec": {"claimRef": {"namespace": "default", "name": "data"}},
}


@pytest.fixture
def trash(daemon):
    daemon.canned[("GET", PATH)] = 200, {"items": [ENTRY], "problems": []}
    daemon.canned[("POST", f"{PATH}/restore")] = 200, {"items": [VOLUME]}
    daemon.canned[("POST", f"{PATH}/empty")] = 200, {"deleted": [ENTRY["id"]]}
    return daemon


def test_list_shows_what_can_be_had_back_and_until_when(call, trash):
    code, out, _ = call("trash", "list")
    assert code == 0
    titles, row = out.splitlines()
    assert titles.split() == ["ID", "CLAIM", "CAPACITY", "DELETED", "EXPIRES"]
    assert row.split()[:3] == [ENTRY["id"], "default/data", "5Gi"]


def test_list_names_the_backend_that_does_not_answer(call, trash):
    trash.canned[("GET", PATH)] = 200, {"items": [], "problems": ["nfs.test: no answer"]}
    code, out, err = call("trash", "list")
    assert (code, out) == (0, "")
    assert "nfs.test: no answer" in err


def test_restore_says_for_whom_the_volume_is(call, trash):
    code, out, _ = call("trash", "restore", ENTRY["id"])
    assert (code, out) == (0, "persistentvolume pvc-1 restored, reserved for default/data\n")
    assert trash.sent("POST") == [(f"{PATH}/restore", {}, {"ids": [ENTRY["id"]]})]


def test_empty_deletes_what_is_named_or_everything(call, trash):
    for what in (ENTRY["id"], "--all"):
        assert call("trash", "empty", what, "--yes")[:2] == (0, f"{ENTRY['id']} deleted\n")
    assert len(trash.sent("POST")) == 2


@pytest.mark.parametrize("arguments", [(), ("--all", "x")])
def test_empty_deletes_nothing_when_it_is_not_said_what(call, trash, arguments):
    assert call("trash", "empty", "--yes", *arguments)[0] == 2
    assert trash.sent("POST") == []
