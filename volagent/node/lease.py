"""This node's lease: renewed while its agent can reach a server.

A renewal is told to `on_renewed` with the moment at which it was *sent*, on the clock that counts
suspensions: from then on the cluster may count. One that hangs is given up within a period, so that
the next one is tried.
"""

import asyncio
from collections.abc import Callable

from volagent.aio.clock import Clock, format_micro_time
from volagent.client.contract import LEASES, ApiError, Client, NotFound
from volagent.objects.meta import Document
from volagent.observe.logs import get_logger

LEASE_NAMESPACE = "kube-node-lease"

_log = get_logger("node")


def _ignore(_sent_s: float) -> None:
    """Nobody wants to know."""


class LeaseKeeper:
    """Renews one lease."""

    def __init__(
        self, client: Client, node: str, clock: Clock, *, period_s: float, timeout_s: float,
        on_renewed: Callable[[float], None] = _ignore,
    ) -> None:  # fmt: skip
        self._client = client
        self._node = node
        self._clock = clock
        self._period_s = period_s
        self._timeout_s = timeout_s
        self._on_renewed = on_renewed

    async def run(self) -> None:
        """Renew, for ever."""
        reached = True
        while True:
            began_s, sent_s = self._clock.monotonic(), self._clock.boottime()
            try:
                async with asyncio.timeout(self._period_s):
                    await self._renew()
            except (ApiError, TimeoutError) as error:
                if reached:
                    text = error.message if isinstance(error, ApiError) else "no answer in time"
                    _log.warning("lease not renewed", node=self._node, error=text)
                reached = False
            else:
                if not reached:
                    _log.info("lease renewed again", node=self._node)
                reached = True
                self._on_renewed(sent_s)
            await asyncio.sleep(self._period_s - (self._clock.monotonic() - began_s))

    async def _renew(self) -> None:
        spec: Document = {
            "holderIdentity": self._node,
            "leaseDurationSeconds": max(1, round(self._timeout_s)),
            "renewTime": format_micro_time(self._clock.wall()),
        }
        try:
            await self._client.patch(LEASES, self._node, {"spec": spec}, LEASE_NAMESPACE)
        except NotFound:
            metadata = {"name": self._node, "namespace": LEASE_NAMESPACE}
            await self._client.create(LEASES, {"metadata": metadata, "spec": spec}, LEASE_NAMESPACE)
