"""Pods, secrets and an image come, change and go while the daemon is killed again and again."""

import random
from pathlib import Path

import pytest

from tests.cluster.manifests import bound_pair, claim_volume, image_source, pod, scratch, secret
from tests.kernel.daemon.harness import Daemon, Json, Refused, until

NAMES = tuple(f"web-{number}" for number in range(12))
ROUNDS = 4
CALLS_PER_ROUND = 25


def a_pod(name: str) -> Json:
    volumes = [
        scratch("disk"),
        scratch("memory", "Memory"),
        {"name": "key", "secret": {"secretName": "key"}},
        claim_volume("data", "data"),
    ]
    document = pod(name, volumes)
    document["spec"]["containers"][0]["volumeMounts"].append(
        {"name": "data", "mountPath": "/own", "subPath": name}
    )
    return document


def act(daemon: Daemon, chance: random.Random, version: int) -> None:
    """One call at random; a refusal (there already, gone already) is an answer too."""
    document = a_pod(chance.choice(NAMES))
    try:
        match chance.randrange(5):
            case 0 | 1 | 2:
                daemon.declare(document)
            case 3:
                daemon.delete(document)
            case _:
                daemon.patch(secret("key"), {"stringData": {"token": str(version)}})
    except Refused as refused:
        if refused.status not in (404, 409):
            raise


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_everything_converges_when_the_daemon_is_killed_amid_changes(
    daemon: Daemon, seed: int
) -> None:
    chance = random.Random(seed)
    daemon.declare(secret("key", token="0"), *bound_pair("data", image_source("data", "data.img")))
    version = 0
    for _ in range(ROUNDS):
        for _ in range(chance.randrange(1, CALLS_PER_ROUND)):
            version += 1
            act(daemon, chance, version)
        daemon.restart()

    until(lambda: not _leaving(daemon), told=daemon.read_log)
    token = daemon.patch(secret("key"), {"stringData": {"token": "last"}})
    assert token["data"]
    missing = [name for name in NAMES if not daemon.exists(a_pod(name))]
    daemon.declare(*(a_pod(name) for name in missing))
    for name in NAMES:
        daemon.wait_ready(a_pod(name))
        home = daemon.pods / daemon.get(a_pod(name))["metadata"]["uid"]
        secret_token = home / "volumes/kubernetes.io~secret/key/token"
        until(lambda: secret_token.read_text() == "last", told=daemon.read_log)  # noqa: B023
        (home / "volumes/kubernetes.io~csi/pv-data/mount" / name / "note").write_text(name)
        assert _read_sub_path(home) == name
    # 12 pods with memory, key, data and the sub-path, and the global mount.
    assert len(daemon.mounts()) == 12 * 4 + 1
    assert len(list(daemon.pods.iterdir())) == 12
    assert len(daemon.loop_files()) == 1


def _read_sub_path(home: Path) -> str:
    return (home / "volume-subpaths/pv-data/main/4/note").read_text()


def _leaving(daemon: Daemon) -> list[str]:
    pods = daemon.call("GET", "/api/v1/namespaces/default/pods")["items"]
    return [p["metadata"]["name"] for p in pods if p["metadata"].get("deletionTimestamp")]
