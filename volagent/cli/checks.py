"""What `volagent doctor` looks at on this machine. Looks only: changes nothing, mounts nothing.

Each check returns findings; a finding is one fact with a level and, when something should be done,
what. Directories below a pod are listed but never entered: a dead server must not hang the doctor.
"""

import grp
import os
import shutil
import stat
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import msgspec

from volagent.host.contract import MountEntry
from volagent.host.features import Feature
from volagent.settings import RuntimeSettings, Settings

OK, WARN, FAIL = "ok", "warn", "fail"
GROUP = "volagent"
REMOVING_MARK = ".removing-"
_LOOKED_AT_MAX = 10_000
"""So many directory entries are looked at for leftovers, at most."""
_SEARCH = f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"
_TOOLS = (
    ("blkid", "util-linux", "image volumes and local block devices: tells what is on a device"),
    ("mkfs.ext4", "e2fsprogs", "formats blank ext4 volumes"),
    ("e2fsck", "e2fsprogs", "checks ext4 volumes before mounting"),
    ("resize2fs", "e2fsprogs", "grows ext4 volumes"),
    ("mkfs.xfs", "xfsprogs", "formats blank xfs volumes"),
    ("xfs_repair", "xfsprogs", "checks xfs volumes"),
    ("xfs_growfs", "xfsprogs", "grows xfs volumes"),
    ("mkfs.btrfs", "btrfs-progs", "formats blank btrfs volumes"),
    ("mount.nfs", "nfs-common", "mounts nfs volumes"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact about the machine."""

    area: str
    name: str
    level: str
    detail: str
    remedy: str = ""


def check_features(features: Sequence[Feature]) -> Iterator[Finding]:
    """What the kernel can do."""
    for feature in features:
        missing = FAIL if feature.required else WARN
        level = OK if feature.available else missing
        remedy = "" if feature.available else feature.remedy
        yield Finding("kernel", feature.name, level, feature.detail, remedy)


def check_tools(find: Callable[[str], str | None] | None = None) -> Iterator[Finding]:
    """The programs that do what is not one system call."""
    find = find or (lambda name: shutil.which(name, path=_SEARCH))
    for name, package, use in _TOOLS:
        path = find(name)
        if path:
            yield Finding("tools", name, OK, path)
        else:
            yield Finding("tools", name, WARN, f"missing: {use}", f"apt-get install {package}")


def check_runtime(settings: RuntimeSettings) -> Iterator[Finding]:
    """Who starts containers, and whether it can be reached."""
    if settings.kind == "none":
        yield Finding("runtime", "none", OK, "containers are started by others, from the mounts"
                      " handed over")  # fmt: skip
    else:
        path = settings.podman_socket
        level, detail, remedy = OK, f"socket {path}", ""
        try:
            if not stat.S_ISSOCK(os.stat(path).st_mode):
                level, detail = FAIL, f"{path} is no socket"
        except OSError as error:
            level, detail = FAIL, f"{path}: {error.strerror}"
        if level is FAIL:
            remedy = "systemctl enable --now podman.socket, or set runtime.podman_socket"
        yield Finding("runtime", "podman", level, detail, remedy)
    if settings.cdi_dir:
        exists = os.path.isdir(settings.cdi_dir)
        detail = settings.cdi_dir if exists else f"{settings.cdi_dir} is made when it is needed"
        yield Finding("runtime", "CDI directory", OK, detail)


def check_permissions(settings: Settings, mounts: Sequence[MountEntry]) -> Iterator[Finding]:
    """Who runs this, whose the directories are, and where they lie."""
    root = os.geteuid() == 0
    remedy = "" if root else "run the doctor as root to have everything looked at"
    yield Finding("permissions", "user", OK if root else WARN, f"uid {os.geteuid()}", remedy)
    for name, private in (("root_dir", False), ("state_dir", True), ("run_dir", False)):
        yield _check_directory(name, getattr(settings, name), private=private)
    holder = find_file_system(settings.run_dir, mounts)
    if holder is not None and holder.fs_type not in ("tmpfs", "ramfs"):
        yield Finding(
            "permissions", "run_dir on tmpfs", WARN,
            f"{settings.run_dir} is on {holder.fs_type}: records outlive the mounts they describe",
            "point run_dir to a directory below /run",
        )  # fmt: skip
    try:
        grp.getgrnam(GROUP)
    except KeyError:
        yield Finding("permissions", f"group {GROUP}", WARN, "missing: only root may call",
                      f"groupadd --system {GROUP}, then usermod -aG {GROUP} USER")  # fmt: skip
    else:
        yield Finding("permissions", f"group {GROUP}", OK, "its members may call")


def _check_directory(name: str, path: str, *, private: bool) -> Finding:
    def finding(level: str, detail: str, remedy: str = "") -> Finding:
        return Finding("permissions", name, level, detail, remedy)

    try:
        found = os.stat(path)
    except FileNotFoundError:
        return finding(OK, f"{path} is made at the first start")
    except OSError as error:
        return finding(FAIL, f"{path}: {error.strerror}", "run the doctor as root")
    if not stat.S_ISDIR(found.st_mode):
        return finding(FAIL, f"{path} is no directory", f"choose another {name}")
    mode = stat.S_IMODE(found.st_mode)
    if found.st_uid != 0:
        return finding(FAIL, f"{path} belongs to uid {found.st_uid}", f"chown root: {path}")
    if mode & 0o022:
        return finding(FAIL, f"{path} may be written by others ({mode:04o})", f"chmod go-w {path}")
    if private and _holds_readable_secrets(path):
        return finding(FAIL, f"{path} holds a database that others may read",
                       f"chmod 0700 {path}")  # fmt: skip
    return finding(OK, f"{path} ({mode:04o})")


def _holds_readable_secrets(path: str) -> bool:
    if not stat.S_IMODE(os.stat(path).st_mode) & 0o055:
        return False
    for entry in os.scandir(path):
        information = entry.stat(follow_symlinks=False)
        if (
            stat.S_ISREG(information.st_mode)
            and entry.name != "lock"
            and information.st_mode & 0o044
        ):
            return True
    return False


def find_file_system(path: str, mounts: Sequence[MountEntry]) -> MountEntry | None:
    """The mount that a path lies on: the longest mount point above it, the newest of equals."""
    best: MountEntry | None = None
    for entry in mounts:
        point = entry.mount_point.rstrip("/")
        if (path == point or path.startswith(f"{point}/")) and (
            best is None or len(entry.mount_point) >= len(best.mount_point)
        ):
            best = entry
    return best


def check_leftovers(
    settings: Settings,
    mounts: Sequence[MountEntry],
    known_pods: Collection[str] | None,
    sys_block: str = "/sys/block",
) -> Iterator[Finding]:
    """What nobody declared any more. `known_pods` is None while no daemon can be asked."""
    yield from _check_pod_directories(settings.root_dir, mounts, known_pods)
    yield from _check_removing(settings.root_dir)
    yield from _check_loops(settings.image_dir, sys_block)


def _check_pod_directories(
    root_dir: str, mounts: Sequence[MountEntry], known_pods: Collection[str] | None
) -> Iterator[Finding]:
    pods = f"{root_dir}/pods"
    by_pod: dict[str, list[str]] = {name: [] for name in _list(pods)}
    for entry in mounts:
        if entry.mount_point.startswith(f"{pods}/"):
            uid = entry.mount_point[len(pods) + 1 :].partition("/")[0]
            by_pod.setdefault(uid, []).append(entry.mount_point)
    if known_pods is None:
        count = sum(len(points) for points in by_pod.values())
        if count:
            yield Finding("leftovers", "mounts", WARN,
                          f"{count} mounts below {pods}, and no daemon looks after them",
                          "start the daemon: it knows them again")  # fmt: skip
        return
    unknown = {uid: points for uid, points in by_pod.items() if uid not in known_pods}
    for uid, points in sorted(unknown.items()):
        if points:
            text = f"{len(points)} mounts of no known pod, the first at {min(points)}"
            remedy = "declare its pod again, or unmount them, the deepest first"
        else:
            text = f"{pods}/{uid} belongs to no known pod"
            remedy = "look at what is in it, then remove it by hand; volagent never will"
        yield Finding("leftovers", f"pod {uid}", WARN, text, remedy)
    if not unknown:
        yield Finding("leftovers", "pod directories", OK, f"{len(by_pod)}, all of known pods")


def _check_removing(root_dir: str) -> Iterator[Finding]:
    """Directories that were renamed aside to be deleted, and still are there."""
    found: list[str] = []
    looked_at = 0
    pods = f"{root_dir}/pods"
    for uid in _list(pods):
        for driver in _list(f"{pods}/{uid}/volumes"):
            names = _list(f"{pods}/{uid}/volumes/{driver}")
            looked_at += len(names)
            found += [
                f"{pods}/{uid}/volumes/{driver}/{name}" for name in names if REMOVING_MARK in name
            ]
        if looked_at > _LOOKED_AT_MAX:
            break
    if found:
        yield Finding(
            "leftovers", "half-removed directories", WARN,
            f"{len(found)}, the first at {found[0]}",
            "the daemon goes on removing them with the pod's volume; else: rm -r --one-file-system",
        )  # fmt: skip


def _check_loops(image_dir: str, sys_block: str) -> Iterator[Finding]:
    """Loop devices whose image file was deleted while attached."""
    attached = 0
    for name in _list(sys_block):
        if not name.startswith("loop"):
            continue
        try:
            with open(f"{sys_block}/{name}/loop/backing_file") as file:
                backing = file.read().rstrip("\n")
        except OSError:
            continue  # not attached
        if not backing.startswith(f"{image_dir}/"):
            continue
        attached += 1
        if backing.endswith(" (deleted)"):
            yield Finding(
                "leftovers", f"/dev/{name}", WARN, f"shows a deleted image: {backing}",
                f"when nothing uses it any more: losetup -d /dev/{name}",
            )  # fmt: skip
    if attached:
        yield Finding("leftovers", "loop devices", OK, f"{attached} for images in {image_dir}")


def check_records(settings: Settings, boot_id: str) -> Iterator[Finding]:
    """Records of another boot describe mounts that died with its kernel."""
    path = f"{settings.run_dir}/records"
    try:
        with open(path, "rb") as file:
            header = msgspec.json.decode(file.readline())
    except (OSError, msgspec.DecodeError):
        return
    if isinstance(header, dict) and header.get("boot") not in (None, boot_id):
        yield Finding(
            "leftovers", "records", WARN, f"{path} is of another boot: run_dir survived a reboot",
            "point run_dir to a tmpfs such as /run/volagent; the daemon ignores these records",
        )  # fmt: skip


def _list(path: str) -> list[str]:
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []
