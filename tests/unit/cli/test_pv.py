"""`volagent pv reuse` against a fake daemon."""

import pytest

VOLUMES = "/api/v1/persistentvolumes"
CLAIM = "/api/v1/namespaces/default/persistentvolumeclaims/data"
OLD = {"kind": "PersistentVolumeClaim", "namespace": "default", "name": "data", "uid": "u1"}


def a_volume(phase="Released", policy="Retain", **metadata):
    return {
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": "pv-1", "uid": "v1", **metadata},
        "spec": {
            "capacity": {"storage": "5Gi"}, "persistentVolumeReclaimPolicy": policy,
            "claimRef": OLD,
        },
        "status": {"phase": phase},
    }  # fmt: skip


@pytest.fixture
def binder(daemon):
    """The fake daemon answers a PATCH as a binder would have it a moment later."""
    answer = daemon.answer

    def answer_and_bind(method, path, query, body):
        status, document = answer(method, path, query, body)
        if method == "PATCH" and "claimRef" not in document["spec"]:
            before = document
            daemon.put(path, {**document, "status": {"phase": "Available"}})
            for events in daemon._watches:
                events.put({"type": "MODIFIED", "object": daemon.objects[path]})
            return status, before
        return status, document

    daemon.answer = answer_and_bind
    watch = daemon.watch

    def watch_late(path):
        events = watch(path)
        events.put({"type": "MODIFIED", "object": daemon.objects[f"{VOLUMES}/pv-1"]})
        return events

    daemon.watch = watch_late


@pytest.mark.parametrize("phase", ["Released", "Failed"])
def test_volume_is_available_again_and_its_old_data_is_mentioned(call, daemon, binder, phase):
    daemon.put(f"{VOLUMES}/pv-1", a_volume(phase))
    code, out, err = call("pv", "reuse", "pv-1", "--yes")
    assert (code, out) == (0, "persistentvolume pv-1 is Available\n")
    assert err == "pv-1 has 5Gi and was last used by default/data: its old data stays on it\n"
    assert "claimRef" not in daemon.objects[f"{VOLUMES}/pv-1"]["spec"]
    ((_, _, body),) = daemon.sent("PATCH")
    assert body["metadata"]["resourceVersion"], "what was looked at is what is changed"


def test_reclaim_policy_is_told_when_it_will_delete_the_data(call, daemon, binder):
    daemon.put(f"{VOLUMES}/pv-1", a_volume(policy="Delete"))
    assert "goes when its next claim does" in call("pv", "reuse", "pv-1", "--yes")[2]


@pytest.mark.parametrize("uid", ["u1", "another"])
def test_volume_is_refused_only_while_its_own_claim_exists(call, daemon, binder, uid):
    daemon.put(f"{VOLUMES}/pv-1", a_volume())
    daemon.put(CLAIM, {"metadata": {"name": "data", "namespace": "default", "uid": uid}})
    code, _, err = call("pv", "reuse", "pv-1", "--yes")
    assert code == (1 if uid == "u1" else 0)
    assert ("still exists" in err) == (uid == "u1")


@pytest.mark.parametrize(
    ("volume", "why", "hint"),
    [
        (a_volume("Bound"), "it is Bound", "whose claim is gone"),
        (a_volume("Available"), "it is Available", "whose claim is gone"),
        (
            a_volume(deletionTimestamp="2026-01-01T00:00:00Z"),
            "it is being deleted",
            "volagent trash list",
        ),
        (
            a_volume(annotations={"volagent.dev/restoring": "a/b"}),
            "on the way back",
            "volagent trash restore a/b",
        ),
    ],
)
def test_volume_is_refused_with_a_remedy_when_it_is_not_free(call, daemon, volume, why, hint):
    daemon.put(f"{VOLUMES}/pv-1", volume)
    code, _, err = call("pv", "reuse", "pv-1", "--yes")
    assert code == 1
    assert why in err
    assert hint in err
    assert daemon.sent("PATCH") == []


def test_missing_volume_is_told(call):
    code, _, err = call("pv", "reuse", "pv-1", "--yes")
    assert code == 1
    assert "cannot reuse pv-1" in err
