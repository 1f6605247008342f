"""Shows disks' content by iSCSI, by the kernel's target (LIO)."""

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

from volagent.drivers.errors import DriverError, Rejected, Transient, Uncertain
from volagent.drivers.showing.contract import Peer
from volagent.host.errors import HostError, NotTried
from volagent.host.lio.service import TargetService

Activate = Callable[[Collection[str]], Awaitable[None]]
"""Lets volumes have their devices before they are shown. Raises `DriverError`."""

_KEYS = ("node.session.auth.username", "node.session.auth.password")


class IscsiShower:
    """The shower of `iscsi.volagent.dev`."""

    def __init__(self, service: TargetService, activate: Activate | None = None) -> None:
        self._service = service
        self._activate = activate
        self._loaded = False

    async def restore(self) -> str:
        """What is on record, before anybody asks.

        Disks whose devices cannot be had do not keep the others from being shown.
        """
        failed: DriverError | None = None
        if self._activate is not None:
            try:
                await self._activate(await self.list_shown())
            except DriverError as error:
                failed = error
        answer = await self._ask("restore")
        text = f"{len(answer['shown'])} disks shown"
        missing = answer["missing"]
        if missing:
            reason = f" ({failed})" if failed is not None else ""
            raise Transient(
                f"{text}, {len(missing)} on record have no content in {self._service.directory}:"
                f" {', '.join(missing)}{reason}",
                remedy=(failed.remedy if failed is not None else "") or "is the disk mounted?",
            )
        return text

    async def show(self, volume: str, peer: Peer) -> str:
        """Let a node's initiator in."""
        if not peer.initiator:
            raise Transient(
                f"node {peer.name} has not told the name of its iSCSI initiator",
                remedy="install open-iscsi there, then restart its agent",
            )
        if self._activate is not None:
            await self._activate((volume,))
        answer = await self._ask("publish", volume=volume, node=peer.name, initiator=peer.initiator)
        return f"LUN {answer['lun']} of {answer['iqn']}"

    async def hide(self, volume: str, node: str) -> str:
        """Keep it out, and end its session."""
        return str((await self._ask("unpublish", volume=volume, node=node))["evidence"])

    async def fence(self, volume: str, node: str) -> str:
        """Keep it out until it was detached."""
        return str((await self._ask("fence", volume=volume, node=node))["evidence"])

    async def list_shown(self) -> Mapping[str, Collection[str]]:
        """By the records."""
        return {
            volume: list(nodes) for volume, nodes in (await self._ask("describe"))["shown"].items()
        }

    async def fetch_credentials(self, volume: str) -> Mapping[str, str]:
        """For CHAP."""
        answer = await self._ask("password", volume=volume)
        return dict(zip(_KEYS, (answer["user"], answer["password"]), strict=True))

    async def resize(self, volume: str) -> bool:
        """Let the disk have its content's size; whether it is shown to anybody."""
        return bool((await self._ask("resize", volume=volume))["shown"])

    async def _ask(self, do: str, **request: Any) -> dict[str, Any]:
        try:
            if not self._loaded:
                await self._service.load()
                self._loaded = True
            answer = await self._service.ask(do, **request)
        except NotTried as error:
            raise Transient(str(error), remedy="it is tried again") from error
        except HostError as error:
            raise Uncertain(
                f"the iSCSI target: {error}",
                remedy="see the storage node's kernel log; it is tried again",
            ) from error
        refused = answer.get("refused")
        if refused:
            raise Rejected(refused["fact"], remedy=refused["remedy"])
        return answer
