"""Takes an iSCSI volume through its life on a machine, as the node does it, without a daemon.

    python iscsi_volume.py STEPS

STEPS is a file with a JSON list of `{"do": "set-up" | "attach" | "check" | "prepare" | "stage" |
"expand" | "take-down" | "detach" | "discard", "name": N, "source": {...}, "block": B,
"secret": {...}, "capacity_bytes": C}`; the answers are printed as a JSON list: `{"evidence":
[...]}`, or `{"error": CLASS, "message", "remedy"}`. What is held is remembered in a file until it
is given back.

With `"uid": U, "node": N` the disk is reserved for that node's attachment, for it alone unless
`"shared"`; `"do": "fence"` keeps node N out, as node `"by"`; `"do": "registrants"` tells who is
registered, by a disk that is attached.
"""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from volagent.drivers.contract import (
    Credentials,
    HeldDevice,
    HeldMount,
    Permission,
    Publication,
    VolumeKey,
    VolumeMode,
    VolumeSource,
    VolumeSpec,
)
from volagent.drivers.errors import DriverError
from volagent.drivers.fencing.contract import FenceOrder
from volagent.drivers.fencing.iscsi import IscsiFence
from volagent.drivers.iscsi.driver import IscsiDriver, make_wish
from volagent.drivers.iscsi.options import IscsiOptions
from volagent.host.iscsi.assembly import make_initiator
from volagent.host.iscsi.excluding import Excluder
from volagent.host.iscsi.initiator import RealInitiator
from volagent.host.iscsi.persistent import RealPersistent
from volagent.host.process import Helpers
from volagent.host.real import make_host
from volagent.objects.meta import PodUid
from volagent.objects.reservation_keys import show_key
from volagent.observe.logs import configure_logs

HELD = Path("/run/iscsi-volumes.json")
RUN = "/run/volagent-iscsi"
STAGES, PODS = "/run/stages", "/run/pods"
UID = PodUid("0f8fad5b-d9cb-469f-a165-70867728950e")


class Held(msgspec.Struct):
    """What stands of one volume."""

    device: HeldDevice | None = None
    staged: HeldMount | None = None
    published: HeldMount | None = None


class Life:
    """One step of one volume."""

    def __init__(self, driver: IscsiDriver, step: dict[str, Any], held: Held) -> None:
        self.driver, self.step, self.held = driver, step, held
        assert isinstance(driver.initiator, RealInitiator)
        self.initiator = driver.initiator
        self.helpers = Helpers()
        self.evidence: list[str] = []
        source = VolumeSource(
            "iscsi", step["source"], step.get("capacity_bytes"), persistent=True,
            partition=step.get("partition", ""),
        )  # fmt: skip
        secret = step.get("secret")
        self.volume = VolumeSpec(
            VolumeKey(f"pv/{step['name']}"),
            driver.name,
            step["name"],
            driver.read_options(source),
            mode=VolumeMode.BLOCK if step.get("block") else VolumeMode.FILESYSTEM,
            capacity_bytes=source.capacity_bytes,
            read_only=bool(step["source"].get("readOnly")),
            credentials=Credentials({k: v.encode() for k, v in secret.items()}) if secret else None,
            permission=Permission(step["uid"], step["node"], not step.get("shared"))
            if "uid" in step
            else None,
        )
        self.source = source

    def _note(self, done: Any) -> Any:
        self.evidence.append(done.evidence)
        return done

    @property
    def device(self) -> HeldDevice:
        assert self.held.device is not None
        return self.held.device

    async def attach(self) -> None:
        self.held.device = self._note(await self.driver.attach(self.volume)).device

    async def prepare(self) -> None:
        self._note(await self.driver.prepare(self.volume, self.device))

    async def stage(self) -> None:
        target = f"{STAGES}/{self.volume.name}"
        self.held.staged = self._note(
            await self.driver.stage(self.volume, self.device, target)
        ).mount

    async def set_up(self) -> None:
        await self.attach()
        if self.volume.mode is VolumeMode.FILESYSTEM:
            await self.prepare()
            await self.stage()
        use = Publication(UID, "shop/web", f"{PODS}/{self.volume.name}")
        self.held.published = self._note(
            await self.driver.publish(
                self.volume, use, staged=self.held.staged, device=self.held.device
            )
        ).mount

    async def expand(self) -> None:
        assert self.held.staged is not None
        self._note(await self.driver.expand(self.volume, self.device, self.held.staged))

    async def detach(self) -> None:
        if self.held.device is not None:
            self._note(await self.driver.detach(self.volume.name, self.held.device))
            self.held.device = None

    async def fence(self) -> None:
        fence = IscsiFence(Excluder(self.initiator), self.step["by"])
        order = FenceOrder(
            self.source, "", self.step["node"], self.step["uid"], self.volume.credentials
        )
        self.evidence.append(await fence.fence(order))

    async def registrants(self) -> None:
        options = self.volume.options
        assert isinstance(options, IscsiOptions)
        wish = make_wish(options, None, read_only=False)
        here = self.initiator.is_kept(wish)
        handle, paths = await self.initiator.reach(wish)
        for each in await RealPersistent(self.helpers).registrants(paths[0]):
            holds = f" holds type {each.kind}" if each.holds else ""
            self.evidence.append(f"{show_key(each.key)} {each.initiator} {each.port}{holds}")
        if not here:
            await self.initiator.leave(handle, paths)

    async def discard(self) -> None:
        """As of a disk that is another node's now."""
        self._note(await self.driver.cut(self.device))
        if self.held.published is not None:
            self._note(await self.driver.unpublish(self.held.published))
        if self.held.staged is not None:
            self._note(await self.driver.unstage(self.held.staged))
        self._note(await self.driver.discard(self.volume.name, self.device))
        self.held.device = self.held.staged = self.held.published = None

    async def take_down(self) -> None:
        if self.held.published is not None:
            self._note(await self.driver.unpublish(self.held.published))
            self.held.published = None
        if self.held.staged is not None:
            self._note(await self.driver.unstage(self.held.staged))
            self.held.staged = None
        await self.detach()


async def perform(driver: IscsiDriver, step: dict[str, Any], held: Held) -> dict[str, Any]:
    started = time.monotonic()
    answer: dict[str, Any]
    try:
        life = Life(driver, step, held)
        await getattr(life, step["do"].replace("-", "_"))()
        answer = {"evidence": life.evidence}
    except DriverError as error:
        answer = {
            "error": type(error).__name__, "message": error.message, "remedy": error.remedy,
        }  # fmt: skip
    answer["took_ms"] = (time.monotonic() - started) * 1000
    answer["device"] = held.device.path if held.device is not None else ""
    return answer


async def main(steps: list[Any]) -> list[Any]:
    """A list within the list is done all at once."""
    for directory in (STAGES, PODS):
        Path(directory).mkdir(exist_ok=True)
    kept = msgspec.json.decode(HELD.read_bytes(), type=dict[str, Held]) if HELD.exists() else {}
    helpers = Helpers()
    initiator = make_initiator(helpers=helpers, run_dir=RUN, reserves=True)
    driver = IscsiDriver(make_host(helpers=helpers), initiator)
    answers = []
    try:
        for step in steps:
            together = step if isinstance(step, list) else [step]
            answers += await asyncio.gather(
                *(perform(driver, each, kept.setdefault(each["name"], Held())) for each in together)
            )
    finally:
        await helpers.close()
        HELD.write_bytes(msgspec.json.encode(kept))
    return answers


if __name__ == "__main__":
    configure_logs("info", "text")  # standard output is for the answers
    json.dump(asyncio.run(main(json.loads(Path(sys.argv[1]).read_text()))), sys.stdout)
