"""LVM with one volume group, by the commands that `host/thin_pool.py` gives; and who runs them.

It knows the options that are given and no others, so that a mistaken one is told here, too. What
the real commands say was taken from lvm2 2.03.16.
"""

import argparse
import json
import re
from dataclasses import dataclass, field
from typing import Any

from volagent.host.errors import Unsupported
from volagent.host.process import Outcome

EXTENT = 4 << 20
_FAILED = 5


@dataclass
class Volume:
    """A logical volume."""

    size: int
    tags: list[str] = field(default_factory=list)
    pool: str = ""
    origin: str = ""
    uuid: str = ""
    active: bool = True
    open: bool = False


class Refused(Exception):
    """What it says on standard error."""


class FakeLvm:
    """`Helpers.run` for lvs, lvcreate, lvextend, lvremove and lvchange."""

    def __init__(self, group: str, pool: str, *, size: int = 1 << 30) -> None:
        self.group, self.pool = group, pool
        self.volumes: dict[str, Volume] = {pool: Volume(size)}
        self.data_percent, self.metadata_percent, self.zero = "0.00", "10.84", "zero"
        self.segtype = "thin-pool"
        self.installed = True
        self.is_away = False
        """Whether its disks are."""
        self.calls: list[tuple[str, ...]] = []
        self.fail_at: int | None = None
        """The number of the call that fails, after it was done."""
        self._made = 0

    async def run(self, argv: tuple[str, ...], *, backend: str, timeout_s: float) -> Outcome:
        assert backend == f"lvm:{self.group}"
        assert timeout_s > 0
        if argv[0] == "setsid":
            argv = argv[3:]
            assert argv[0] != "lvs"
        self.calls.append(argv)
        if not self.installed:
            raise Unsupported("spawn", argv[0], 2)
        try:
            said = getattr(self, f"_{argv[0]}")(_read(argv[1:]))
        except Refused as refused:
            return Outcome(_FAILED, b"", f"  {refused}\n".encode())
        if self.fail_at is not None and len(self.calls) > self.fail_at:
            return Outcome(-9, b"", b"")
        return Outcome(0, said.encode(), b"  WARNING: of something\n")

    def power_cut(self) -> None:
        """No volume is active until somebody asks for it."""
        for volume in self.volumes.values():
            volume.active = False

    def _lvs(self, asked: argparse.Namespace) -> str:
        group, _, name = asked.what[0].partition("/")
        self._check_group(group)
        if name and name not in self.volumes:
            raise Refused(f'Failed to find logical volume "{group}/{name}"')
        names = [name] if name else [each for each in self.volumes if self._matches(each, asked)]
        rows = [self._describe(each, asked.options.split(",")) for each in sorted(names)]
        if asked.noheadings:
            return "".join(f"  {' '.join(row.values())}\n" for row in rows)
        return json.dumps({"report": [{"lv": rows}]})

    def _describe(self, name: str, fields: list[str]) -> dict[str, str]:
        volume, is_pool = self.volumes[name], name == self.pool
        known = {
            "lv_name": name, "lv_uuid": volume.uuid, "lv_size": str(volume.size),
            "lv_tags": ",".join(volume.tags), "pool_lv": volume.pool, "lv_time": "1796134321",
            "segtype": self.segtype if is_pool else "thin", "zero": self.zero,
            "vg_extent_size": str(EXTENT),
            "data_percent": self.data_percent if volume.active else "",
            "metadata_percent": self.metadata_percent if volume.active else "",
        }  # fmt: skip
        return {field: known[field] for field in fields}

    def _matches(self, name: str, asked: argparse.Namespace) -> bool:
        field, _, value = (asked.select or "").partition("=")
        value = value.strip('"')
        volume = self.volumes[name]
        return {
            "": True, "lv_name": name == value, "pool_lv": volume.pool == value,
            "lv_uuid": volume.uuid == value,
        }[field]  # fmt: skip

    def _lvcreate(self, asked: argparse.Namespace) -> str:
        assert asked.yes
        assert asked.setactivationskip == "n"
        if asked.name in self.volumes:
            raise Refused(f'Logical Volume "{asked.name}" already exists in volume group')
        group, _, origin = asked.what[0].partition("/")
        self._check_group(group)
        if asked.snapshot:
            if origin not in self.volumes:
                raise Refused(f"Snapshot origin LV {origin} not found in Volume group {group}.")
            size, pool = self.volumes[origin].size, self.volumes[origin].pool
        else:
            assert (asked.type, asked.wipesignatures) == ("thin", "n")
            size, pool = _round_up(asked.virtualsize), asked.thinpool
            if pool not in self.volumes:
                raise Refused(f"Pool {pool} not found in Volume group {group}.")
        self._made += 1
        self.volumes[asked.name] = Volume(size, asked.addtag, pool, origin, f"uuid-{self._made}")
        return f'  Logical volume "{asked.name}" created.\n'

    def _lvextend(self, asked: argparse.Namespace) -> str:
        volume, size = self._find(asked.what[0]), _round_up(asked.size)
        if size <= volume.size:
            raise Refused("New size (1 extents) matches existing size (1 extents).")
        volume.size = size
        return ""

    def _lvremove(self, asked: argparse.Namespace) -> str:
        volume, name = self._find(asked.what[0]), asked.what[0].partition("/")[2]
        if not self._matches(name, asked):
            return ""
        if volume.open:
            raise Refused(f"Logical volume {asked.what[0]} in use.")
        del self.volumes[name]
        return ""

    def _lvchange(self, asked: argparse.Namespace) -> str:
        assert (asked.activate, asked.ignoreactivationskip) == ("y", True)
        missing = []
        for path in asked.what:
            try:
                self._find(path).active = True
            except Refused as refused:
                missing.append(str(refused))
        if missing:
            raise Refused("\n".join(missing))
        return ""

    def _find(self, path: str) -> Volume:
        group, _, name = path.partition("/")
        self._check_group(group)
        if name not in self.volumes:
            raise Refused(f'Failed to find logical volume "{path}"')
        return self.volumes[name]

    def _check_group(self, group: str) -> None:
        if group != self.group or self.is_away:
            raise Refused(f'Volume group "{group}" not found; Cannot process volume group {group}')


def _read(words: tuple[str, ...]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False, exit_on_error=False)
    for flag in ("--yes", "--noheadings", "--nosuffix", "--snapshot", "--ignoreactivationskip"):
        parser.add_argument(flag, action="store_true")
    for option in (
        "--units", "--options", "--select", "--reportformat", "--config", "--type", "--thinpool",
        "--virtualsize", "--name", "--wipesignatures", "--setactivationskip", "--size",
        "--activate",
    ):  # fmt: skip
        parser.add_argument(option)
    parser.add_argument("--addtag", action="append", default=[])
    parser.add_argument("what", nargs="+")
    found: Any = parser.parse_args(words)
    for tag in found.addtag:
        assert re.fullmatch(r"[A-Za-z0-9_+.\-/=!:&#]{1,1024}", tag), tag
    return found


def _round_up(size: str) -> int:
    return -(-int(size.removesuffix("b")) // EXTENT) * EXTENT
