"""Secrets and configMaps that appear, change and go while pods use them."""

import os
import time
from pathlib import Path

from tests.cluster.manifests import pod, secret
from tests.kernel.daemon.harness import Daemon, until

WELL_UNDER_A_BACK_OFF_S = 1.0


def of_secret(name: str, **more: object) -> dict[str, object]:
    return {"name": "key", "secret": {"secretName": name, **more}}


def files_of(directory: Path) -> list[str]:
    return sorted(name for name in os.listdir(directory) if not name.startswith(".."))


def test_missing_secret_is_told_and_mounted_as_soon_as_it_is_created(daemon: Daemon) -> None:
    web = pod("web", [of_secret("key")])
    (made,) = daemon.declare(web)
    daemon.wait_blocked(web, 'secret "key" not found')
    daemon.wait_event(web, "FailedMount", 'secret "key" not found')
    token = daemon.pods / made["metadata"]["uid"] / "volumes/kubernetes.io~secret/key/token"
    assert not token.exists()

    daemon.declare(secret("key", token="t0p"))

    until(token.exists, within_s=WELL_UNDER_A_BACK_OFF_S, told=daemon.read_log)
    daemon.wait_ready(web)
    assert token.read_text() == "t0p"


def test_reader_of_a_held_directory_never_sees_a_mixed_update(daemon: Daemon) -> None:
    key = secret("key", one="0", two="0")
    daemon.declare(key)
    (home,) = daemon.declare_ready(pod("web", [of_secret("key")]))
    volume = home / "volumes/kubernetes.io~secret/key"
    held = os.open(volume, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for value in map(str, range(1, 6)):
            daemon.patch(key, {"stringData": {"one": value, "two": value}})
            end_s = time.monotonic() + WELL_UNDER_A_BACK_OFF_S
            while read_both(held) != (value, value):
                assert time.monotonic() < end_s, daemon.read_log()
    finally:
        os.close(held)
    # What was replaced goes right after.
    until(lambda: len([name for name in os.listdir(volume) if name.startswith("..2")]) == 1)


def read_both(held: int) -> tuple[str, str]:
    """Both files of one state, as a careful reader does it: through `..data`, opened once."""
    try:
        data = os.open("..data", os.O_RDONLY | os.O_DIRECTORY, dir_fd=held)
    except FileNotFoundError:
        return "", ""  # the link was replaced, and what it named removed, while it was followed
    try:
        found = []
        for name in ("one", "two"):
            file = os.open(name, os.O_RDONLY, dir_fd=data)
            try:
                found.append(os.read(file, 16).decode())
            finally:
                os.close(file)
    except FileNotFoundError:
        return "", ""  # that state has been replaced and removed: begin with the new one
    finally:
        os.close(data)
    assert found[0] == found[1], found
    return found[0], found[1]


def test_key_that_leaves_a_secret_leaves_the_volume(daemon: Daemon) -> None:
    key = secret("key", one="1", two="2")
    daemon.declare(key)
    (home,) = daemon.declare_ready(pod("web", [of_secret("key")]))
    volume = home / "volumes/kubernetes.io~secret/key"

    daemon.patch(key, {"data": {"one": None}, "stringData": {"three": "3"}})

    until(lambda: files_of(volume) == ["three", "two"], told=lambda: files_of(volume))
    assert (volume / "three").read_text() == "3"


def test_deleted_secret_leaves_the_files_where_they_are(daemon: Daemon) -> None:
    key = secret("key", token="t0p")
    daemon.declare(key)
    web = pod("web", [of_secret("key")])
    (home,) = daemon.declare_ready(web)

    daemon.delete_gone(key)

    daemon.wait_event(web, "FailedMount", 'secret "key" not found')
    assert (home / "volumes/kubernetes.io~secret/key/token").read_text() == "t0p"
    assert daemon.condition(web)["status"] == "True"
    daemon.declare(secret("key", token="again"))
    until(
        lambda: (home / "volumes/kubernetes.io~secret/key/token").read_text() == "again",
        told=daemon.read_log,
    )


def test_optional_secret_is_an_empty_volume_until_it_exists(daemon: Daemon) -> None:
    (home,) = daemon.declare_ready(pod("web", [of_secret("key", optional=True)]))
    volume = home / "volumes/kubernetes.io~secret/key"
    assert files_of(volume) == []

    key = secret("key", token="t0p")
    daemon.declare(key)

    until(lambda: files_of(volume) == ["token"], told=daemon.read_log)
    assert (volume / "token").read_text() == "t0p"


def test_missing_key_is_named(daemon: Daemon) -> None:
    daemon.declare(secret("key", token="t0p"))
    web = pod("web", [of_secret("key", items=[{"key": "tokne", "path": "token"}])])
    daemon.declare(web)

    daemon.wait_blocked(web, "tokne")


def test_immutable_config_map_is_mounted_and_cannot_change(daemon: Daemon) -> None:
    config = {
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"},
        "immutable": True, "data": {"a": "1"}, "binaryData": {"b": "/wA="},
    }  # fmt: skip
    daemon.declare(config)
    (home,) = daemon.declare_ready(pod("web", [{"name": "c", "configMap": {"name": "c"}}]))
    volume = home / "volumes/kubernetes.io~configmap/c"

    assert (volume / "b").read_bytes() == b"\xff\x00"
    assert (volume / "a").read_text() == "1"
