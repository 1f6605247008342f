"""The sub-paths of a pod's containers, as volumes of their own. Pure.

They are wanted only while the volumes they lie in are published (see `drivers/sub_path.py`).
"""

import msgspec

from volagent.drivers.contract import (
    Phase,
    Publication,
    VolumeKey,
    VolumeSource,
    VolumeSpec,
)
from volagent.drivers.layout import Layout
from volagent.drivers.sub_path import SUB_PATH_DRIVER, SubPathOptions
from volagent.node.resolved import ResolvedPod, ResolvedVolume
from volagent.runtime.contract import SubPathUse


def sub_path_name(use: SubPathUse) -> str:
    """The name of a sub-path among its pod's volumes; `:` cannot occur in a volume's name."""
    return f"{use.volume}:{use.container}:{use.index}"


def resolve_sub_path(
    resolved: ResolvedPod, use: SubPathUse, root: str, layout: Layout
) -> ResolvedVolume:
    """What binding one sub-path needs."""
    volume = resolved.volumes[use.volume]
    name = sub_path_name(use)
    # A volume that is not at its place below the pod's directory is handed over where it is.
    named_by_user = root != volume.use.target
    options = SubPathOptions(root, use.path, volume.spec.backend, named_by_user)
    spec = VolumeSpec(
        key=VolumeKey(f"sub/{resolved.uid}/{name}"),
        driver=SUB_PATH_DRIVER,
        name=name,
        options=options,
        backend=volume.spec.backend,
    )
    publication = Publication(
        pod=resolved.uid,
        pod_name=volume.use.pod_name,
        target=layout.sub_path(resolved.uid, volume.spec.name, use.container, use.index),
    )
    source = VolumeSource("subPath", msgspec.to_builtins(options))
    return ResolvedVolume(name, spec, source, (Phase.PUBLISH,), publication, read_only=False)
