"""A directory that behaves as the target's configfs: attributes come and go with directories.

The rules of the kernel that matter are kept: what is in use is not removed, a session ends when its
initiator's directory goes, attributes take only what the kernel takes.
"""

import errno
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from volagent.host.errors import HostError
from volagent.host.lio import calls
from volagent.host.lio.configfs import Configfs

_ATTRIBUTES = {
    r"core/[^/]+/[^/]+": (
        "control", "enable", "info", "wwn/vpd_unit_serial", "attrib/emulate_tpu",
        "pr/res_aptpl_metadata",
    ),
    r"iscsi/[^/]+/tpgt_1": ("enable", "attrib/authentication", "attrib/generate_node_acls"),
    r"iscsi/[^/]+/tpgt_1/acls/[^/]+": ("auth/userid", "auth/password", "info"),
}  # fmt: skip
_GROUPS = {r"iscsi/[^/]+/tpgt_1": ("lun", "acls", "np")}
_KEPT = ("dbroot",)


@dataclass(frozen=True, slots=True)
class FakeConfigfs(Configfs):
    """Begins with the root's own attributes: `prepare` makes them."""

    def make(self, path: str) -> bool:
        made = Configfs.make(self, path)
        if made:
            for pattern, names in _ATTRIBUTES.items():
                if re.fullmatch(pattern, path):
                    for name in names:
                        file = Path(self.root, path, name)
                        file.parent.mkdir(exist_ok=True)
                        file.write_text("0\n" if name == "enable" else "")
            for pattern, names in _GROUPS.items():
                if re.fullmatch(pattern, path):
                    for name in names:
                        Path(self.root, path, name).mkdir()
        return made

    def write(self, path: str, text: str) -> None:
        where = Path(self.root, path)
        if path == "dbroot" and Path(self.root, "iscsi").exists():
            raise HostError("write", str(where), errno.EINVAL)
        if path.endswith("/control"):
            text = self._configure(where, text)
        if path.endswith("/pr/res_aptpl_metadata"):
            text = where.read_text() + text + "\n"
        if not where.exists():
            raise HostError("write", str(where), errno.ENOENT)
        where.write_text(text)

    def _configure(self, control: Path, text: str) -> str:
        known = dict(each.split("=") for each in control.read_text().split(",") if each)
        known |= dict(each.split("=") for each in text.split(","))
        info = f"Status: ACTIVATED  SectorSize: 512\n File: x  Size: {known['fd_dev_size']}  Mode:"
        control.with_name("info").write_text(info)
        return ",".join(f"{key}={value}" for key, value in known.items())

    def remove(self, path: str) -> None:
        where = Path(self.root, path)
        if not where.exists():
            return
        inside = [
            each
            for each in where.rglob("*")
            if each.is_symlink() or re.fullmatch(r"(lun|tpgt)_\d+|iqn\..*|.*:3260", each.name)
        ]
        linked = [each for each in Path(self.root).rglob("*") if _leads_to(each, where)]
        if inside or linked:
            raise HostError("rmdir", str(where), errno.EBUSY)
        shutil.rmtree(where)


def _leads_to(link: Path, target: Path) -> bool:
    return link.is_symlink() and os.readlink(link) == str(target)


def prepare(root: Path) -> None:
    """As the kernel's modules have it when they are loaded."""
    (root / "core").mkdir(parents=True)
    (root / "dbroot").write_text("/var/target\n")


class FakeTarget:
    """`TargetService` over such a directory, in this process."""

    def __init__(self, root: Path, directory: str, iqn_base: str) -> None:
        self.directory = directory
        self._asked = {
            "path": directory, "iqn_base": iqn_base, "portals": ["192.0.2.1:3260"],
            "configfs": str(root),
        }  # fmt: skip
        if not root.exists():
            prepare(root)

    async def load(self) -> None:
        return

    async def ask(self, do: str, **request: object) -> dict:
        return calls.perform({"do": do, **self._asked, **request}, FakeConfigfs)
