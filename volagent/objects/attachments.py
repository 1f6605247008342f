"""How an attached volume is named in the status of its node. Pure.

Source: Kubernetes' `GetUniqueVolumeName`; the kubelet writes it in `status.volumesInUse`, the
attach/detach controller in `status.volumesAttached`.
"""


def unique_name(driver: str, handle: str, name: str) -> str:
    """`kubernetes.io/csi/<driver>^<handle>`, or `<driver>/<volume's name>` without a handle."""
    return f"kubernetes.io/csi/{driver}^{handle}" if handle else f"{driver}/{name}"
