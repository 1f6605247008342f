"""Tells when the kernel's own iSCSI target, on a storage node, has stopped letting anybody log in.

Nothing here can end that wait: a person restarts the machine, and its volumes are shown again.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from volagent.host.lio.login_thread import WaitingLogin, find_waiting_login
from volagent.host.process import Helpers
from volagent.observe.logs import get_logger

LOOK_S: Final = 10.0
LOOKS: Final = 4
"""The same wait in so many looks is one that does not end: half a minute."""
_log = get_logger("storage")


async def watch_logins(
    helpers: Helpers, find: Callable[[], WaitingLogin | None] = find_waiting_login
) -> None:
    """Look, for ever."""
    before: WaitingLogin | None = None
    seen = 0
    while True:
        now = await helpers.run_in_pool(find)
        if now is None and seen >= LOOKS:
            _log.info("the kernel's iSCSI target takes logins again")
        seen = seen + 1 if now is not None and now == before else int(now is not None)
        if seen == LOOKS:
            _log.error(
                "the kernel's iSCSI target takes no logins: it waits for a connection that does"
                " not end; nodes that are logged in go on",
                remedy="restart this machine; its volumes are shown again by themselves",
            )
        before = now
        await asyncio.sleep(LOOK_S)
