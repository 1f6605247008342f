"""A declared pod has its volumes at the kubelet's paths, as declared, until it is deleted."""

import os
import stat
from pathlib import Path

from tests.cluster.manifests import pod, scratch, secret
from tests.kernel.daemon.harness import Daemon, Json, until


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def config_map(name: str, **data: str) -> Json:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def every_kind(host_path: Path) -> Json:
    volumes = [
        scratch("disk"),
        {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        {"name": "config", "configMap": {"name": "settings"}},
        {"name": "key", "secret": {"secretName": "key", "defaultMode": 0o400}},
        {
            "name": "all",
            "projected": {
                "defaultMode": 0o440,
                "sources": [
                    {"secret": {"name": "key", "items": [{"key": "token", "path": "s/token"}]}},
                    {"configMap": {"name": "settings"}},
                    {"downwardAPI": {"items": [
                        {"path": "name", "fieldRef": {"fieldPath": "metadata.name"}},
                    ]}},
                ],
            },
        },
        {
            "name": "about",
            "downwardAPI": {"items": [
                {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
                {"path": "uid", "fieldRef": {"fieldPath": "metadata.uid"}, "mode": 0o444},
            ]},
        },
        {"name": "host", "hostPath": {"path": str(host_path), "type": "DirectoryOrCreate"}},
    ]  # fmt: skip
    mounts = [{"name": each["name"], "mountPath": f"/{each['name']}"} for each in volumes]
    mounts.append({"name": "disk", "mountPath": "/sub", "subPath": "a/b"})
    document = pod("web", volumes, mounts=mounts)
    document["metadata"]["labels"] = {"app": "web"}
    return document


def test_pod_has_every_kind_of_volume_at_the_kubelets_paths(daemon: Daemon) -> None:
    host_path = daemon.base / "shared" / "data"
    daemon.declare(config_map("settings", level="3"), secret("key", token="t0p"))
    web = every_kind(host_path)

    (home,) = daemon.declare_ready(web)

    volumes = home / "volumes"
    below = f"{volumes}/kubernetes.io~"
    mounts = daemon.mounts()
    assert mode_of(Path(f"{below}empty-dir/disk")) == 0o777
    assert mode_of(Path(f"{below}empty-dir/memory")) == 0o1777
    assert mounts[f"{below}empty-dir/memory"][1] == "tmpfs"
    assert os.statvfs(f"{below}empty-dir/memory").f_blocks * 4096 == 1 << 20
    config, key = Path(f"{below}configmap/config"), Path(f"{below}secret/key")
    assert (config / "level").read_text() == "3"
    assert mode_of(config / "level") == 0o644
    assert (config / "level").readlink() == Path("..data/level")
    assert (key / "token").read_text() == "t0p"
    assert mode_of(key / "token") == 0o400
    assert mounts[str(key)][1] == "tmpfs"
    projected = Path(f"{below}projected/all")
    assert {p: (projected / p).read_text() for p in ("s/token", "level", "name")} == {
        "s/token": "t0p", "level": "3", "name": "web",
    }  # fmt: skip
    assert mode_of(projected / "s/token") == 0o440
    about = Path(f"{below}downward-api/about")
    assert (about / "labels").read_text() == 'app="web"'
    assert (about / "uid").read_text() == home.name
    assert mode_of(about / "uid") == 0o444
    assert host_path.is_dir()
    bound = home / "volume-subpaths" / "disk" / "main" / "7"
    (bound / "seen").write_text("here")
    assert Path(f"{below}empty-dir/disk/a/b/seen").read_text() == "here"


def test_pod_that_is_declared_again_has_new_scratch_space_and_its_host_path(
    daemon: Daemon,
) -> None:
    host_path = daemon.base / "shared"
    daemon.declare(config_map("settings", level="3"), secret("key", token="t0p"))
    web = every_kind(host_path)
    (home,) = daemon.declare_ready(web)
    (home / "volumes/kubernetes.io~empty-dir/disk/note").write_text("gone soon")
    (home / "volumes/kubernetes.io~empty-dir/memory/note").write_text("gone soon")
    (host_path / "note").write_text("stays")

    daemon.delete_gone(web)

    assert list(daemon.pods.iterdir()) == []
    assert daemon.mounts() == {}
    assert (host_path / "note").read_text() == "stays"
    (again,) = daemon.declare_ready(web)
    assert again != home
    assert os.listdir(again / "volumes/kubernetes.io~empty-dir/disk") == ["a"]  # the subPath
    assert os.listdir(again / "volumes/kubernetes.io~empty-dir/memory") == []
    assert (host_path / "note").read_text() == "stays"


def test_items_choose_files_and_modes(daemon: Daemon) -> None:
    daemon.declare(config_map("settings", one="1", two="2"))
    items = [{"key": "two", "path": "deep/er/zwei", "mode": 0o600}]
    web = pod("web", [{"name": "c", "configMap": {"name": "settings", "items": items}}])

    (home,) = daemon.declare_ready(web)

    config = home / "volumes/kubernetes.io~configmap/c"
    assert sorted(name for name in os.listdir(config) if not name.startswith("..")) == ["deep"]
    assert (config / "deep/er/zwei").read_text() == "2"
    assert mode_of(config / "deep/er/zwei") == 0o600


def test_group_of_the_pod_owns_scratch_space_and_files(daemon: Daemon) -> None:
    daemon.declare(secret("key", token="t0p"))
    volumes = [
        scratch("disk"),
        scratch("memory", "Memory"),
        {"name": "key", "secret": {"secretName": "key", "defaultMode": 0o400}},
    ]
    web = pod("web", volumes, securityContext={"fsGroup": 2345})

    (home,) = daemon.declare_ready(web)

    disk = home / "volumes/kubernetes.io~empty-dir/disk"
    memory = home / "volumes/kubernetes.io~empty-dir/memory"
    token = home / "volumes/kubernetes.io~secret/key/token"
    assert (disk.stat().st_gid, mode_of(disk)) == (2345, 0o2777)
    assert (memory.stat().st_gid, mode_of(memory)) == (2345, 0o3777)
    assert (token.stat().st_gid, mode_of(token)) == (2345, 0o440)


def test_200_pods_at_once_leave_nothing_when_all_are_deleted(daemon: Daemon) -> None:
    daemon.declare(config_map("settings", level="3"), secret("key", token="t0p"))
    volumes = [
        scratch("disk"),
        scratch("memory", "Memory"),
        {"name": "config", "configMap": {"name": "settings"}},
        {"name": "key", "secret": {"secretName": "key"}},
    ]
    pods = [pod(f"web-{number}", volumes) for number in range(200)]

    homes = daemon.declare_ready(*pods)

    assert len(daemon.mounts()) == 400
    for home in homes:
        assert (home / "volumes/kubernetes.io~secret/key/token").read_text() == "t0p"
        assert (home / "volumes/kubernetes.io~configmap/config/level").read_text() == "3"
    daemon.delete(*pods)
    until(lambda: not os.listdir(daemon.pods), told=daemon.read_log)
    assert daemon.mounts() == {}


def test_volume_that_no_container_mounts_is_not_mounted(daemon: Daemon) -> None:
    """As with a kubelet: it only has to be right when somebody wants it."""
    mounts = [{"name": "used", "mountPath": "/used"}]
    web = pod("web", [scratch("used"), scratch("unused", "Memory")], mounts=mounts)

    (home,) = daemon.declare_ready(web)

    assert os.listdir(home / "volumes/kubernetes.io~empty-dir") == ["used"]
    assert daemon.mounts() == {}
