"""The control files: what dpkg is told about the package."""

import hashlib
import os
import platform
import shutil
import sys
from importlib.metadata import Distribution
from pathlib import Path

from package.closure import libc_version
from volagent import __version__

_SCRIPTS = ("postinst", "prerm", "postrm")
_RECOMMENDS = "e2fsprogs, nfs-common"
_SUGGESTS = (
    "btrfs-progs, lvm2, multipath-tools, nbd-client, open-iscsi, podman, thin-provisioning-tools,"
    " xfsprogs"
)
_CONTROL = """\
Package: volagent
Version: {version}
Architecture: {architecture}
Maintainer: {maintainer}
Installed-Size: {kilobytes}
Depends: {depends}
Recommends: {recommends}
Suggests: {suggests}
Section: admin
Priority: optional
Description: persistent volumes for containers on plain VMs
 A daemon that makes, formats and mounts the volumes that pods declare, with
 Kubernetes' objects and guarantees and without running Kubernetes, hands them
 to podman or to any other runtime, keeps them right, and takes them down.
 .
 The package carries its Python libraries and starts nothing by itself:
 systemctl enable --now volagent.
"""


def write(root: Path, project: Path, closure: list[Distribution], architecture: str) -> None:
    """Write `DEBIAN` below `root`, whose other files are all in place."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    directory = root / "DEBIAN"
    directory.mkdir()
    for name in _SCRIPTS:
        shutil.copyfile(project / "package" / "debian" / name, directory / name)
        (directory / name).chmod(0o755)
    conffiles = [path for path in files if path.is_relative_to(root / "etc")]
    lines = (f"/{path.relative_to(root)}\n" for path in conffiles)
    (directory / "conffiles").write_text("".join(lines))
    sums = (f"{_md5(path)}  {path.relative_to(root)}\n" for path in files)
    (directory / "md5sums").write_text("".join(sums))
    text = _CONTROL.format(
        version=__version__,
        architecture=architecture,
        maintainer=_maintainer(),
        kilobytes=sum(-(-path.stat().st_size // 1024) for path in files),
        depends=", ".join(_depends(closure)),
        recommends=_RECOMMENDS,
        suggests=_SUGGESTS,
    )
    (directory / "control").write_text(text)


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def _maintainer() -> str:
    """Who builds the package, as Debian's own tools are told."""
    name, address = os.environ.get("DEBFULLNAME"), os.environ.get("DEBEMAIL")
    return f"{name or 'volagent'} <{address or 'volagent@localhost'}>"


def _depends(closure: list[Distribution]) -> list[str]:
    """The interpreter that the compiled parts are made for, their C library, and the tools."""
    major, minor = sys.version_info[:2]
    known = [version for each in closure if (version := libc_version(each))]
    built_on = tuple(map(int, platform.libc_ver()[1].split(".")[:2]))
    libc = max(known, default=built_on)
    return [
        f"python3 (>= {major}.{minor})",
        f"python3 (<< {major}.{minor + 1})",
        f"libc6 (>= {libc[0]}.{libc[1]})",
        "kmod",
        "mount",
        "systemd",
    ]
