"""Pod directories that nobody declares: swept when empty, told when not, never emptied.

An orphan with contents may be the only copy of somebody's data (a record lost with the run
directory, a pod deleted by force while the agent was away, another agent's pod), so the only call
made here is `rmdir`; links to raw devices and empty mount points of files go too. What cannot go
that way is reported with what is in it and what to do.
"""

import errno
from collections.abc import Collection

from volagent.drivers.layout import Layout
from volagent.host.contract import Host, Trees
from volagent.host.errors import HostError
from volagent.objects.meta import Document, PodUid
from volagent.observe.logs import get_logger

SKELETON_DEPTHS = {"volumes": 2, "volumeDevices": 2, "volume-subpaths": 3}
"""How many levels below each of these are the agent's own directories."""
_CSI = "kubernetes.io~csi"
"""Whose volumes are mounted one level deeper, at `mount`."""
_WITH_FILES = {"volumeDevices", "volume-subpaths"}
"""Where the deepest level may have links to devices and empty files that were mounted over."""

_log = get_logger("node")


def remove_pod_directory(trees: Trees, root: str) -> None:
    """Remove a pod's empty directories, deepest first.

    Raises `NotEmpty` or `Busy` where something is left; that is not ours to delete.
    """
    for kind, depth in SKELETON_DEPTHS.items():
        _remove_skeleton(trees, f"{root}/{kind}", depth, files=kind in _WITH_FILES)
    trees.remove_dir(root)


def sweep_skeletons(host: Host, layout: Layout, known: Collection[PodUid]) -> None:
    """Remove what is left empty of pods that are gone."""
    for name in host.trees.list_dir(layout.pods):
        if name not in known:
            sweep_skeleton(host, f"{layout.pods}/{name}")


def sweep_skeleton(host: Host, root: str) -> None:
    """Remove a pod's directory if nothing is in it; tell, if there is."""
    try:
        remove_pod_directory(host.trees, root)
    except HostError as error:
        _log.warning(
            "orphaned pod directory", path=root, error=str(error),
            remedy="see `volagent doctor`; volagent deletes nothing that it did not make",
        )  # fmt: skip


def find_orphans(host: Host, layout: Layout, known: Collection[PodUid]) -> list[Document]:
    """Pod directories of no known pod, with what is mounted below them."""
    names = [name for name in host.trees.list_dir(layout.pods) if name not in known]
    if not names:
        return []
    entries = host.mounts.read_table().entries
    orphans = []
    for name in names:
        root = f"{layout.pods}/{name}/"
        mounts = [entry.mount_point for entry in entries if entry.mount_point.startswith(root)]
        orphans.append(
            {
                "uid": name,
                "path": root.rstrip("/"),
                "mounts": mounts,
                "remedy": (
                    "declare the pod again, or unmount what is below and remove the directory"
                    if mounts
                    else "look at the contents, then remove the directory by hand"
                ),
            }
        )
    return orphans


def _remove_skeleton(trees: Trees, path: str, depth: int, *, files: bool) -> None:
    if depth:
        for name in trees.list_dir(path):
            below = depth if name == _CSI else depth - 1
            _remove_skeleton(trees, f"{path}/{name}", below, files=files)
    try:
        trees.remove_dir(path)
    except HostError as error:
        if depth or not files or error.errno != errno.ENOTDIR:
            raise
        trees.remove_file(path)
