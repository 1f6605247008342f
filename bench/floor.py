"""The floor: the same system calls and files for the same volumes, from a bare loop.

No daemon, no API, no store, no records: what is left is what the kernel costs from Python.
"""

import shutil
import time
from pathlib import Path

from bench.pods import CONFIG_MAP, SECRET
from volagent.host.contract import Host, MountId, Payload, PayloadFile, TmpfsOptions
from volagent.host.process import Helpers
from volagent.host.real import make_host


def measure_floor(base: Path, count: int) -> float:
    """Seconds to make the four volumes of `count` pods; they are removed afterwards."""
    host = make_host(helpers=Helpers())
    secret = Payload(
        tuple(PayloadFile(key, value.encode(), 0o644) for key, value in SECRET["data"].items()),
        "floor",
    )
    config = Payload(
        tuple(PayloadFile(key, v.encode(), 0o644) for key, v in CONFIG_MAP["data"].items()),
        "floor",
    )
    mounts: list[tuple[str, MountId]] = []
    began = time.perf_counter()
    for number in range(count):
        _make_pod(host, f"{base}/pods/uid-{number}/volumes/kubernetes.io~", secret, config, mounts)
    took_s = time.perf_counter() - began
    for target, mount_id in mounts:
        host.mounts.unmount(target, expect=mount_id)
    shutil.rmtree(base)
    return took_s


def _make_pod(
    host: Host, root: str, secret: Payload, config: Payload, mounts: list[tuple[str, MountId]]
) -> None:
    memory, private = f"{root}empty-dir/memory", f"{root}secret/secret"
    host.trees.ensure_dir(memory, mode=0o777)
    mounts.append((memory, host.mounts.mount_tmpfs(memory, TmpfsOptions(size_bytes=1 << 20))))
    host.trees.ensure_dir(f"{root}empty-dir/disk", mode=0o777)
    host.trees.ensure_dir(f"{root}configmap/config", mode=0o777)
    host.trees.write_payload(f"{root}configmap/config", config, gid=None)
    host.trees.ensure_dir(private, mode=0o777)
    mounts.append((private, host.mounts.mount_tmpfs(private, TmpfsOptions(no_swap=True))))
    host.trees.write_payload(private, secret, gid=None)
