"""The frame of every role: directories, locks, signals, readiness, the end.

Life: locks → what the role builds → ready → until SIGTERM, SIGINT or a part that cannot go on. An
error that is not understood ends the process: systemd starts it again, and recovery is ordinary.
"""

import asyncio
import contextlib
import gc
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from volagent.aio.clock import SystemClock
from volagent.aio.tasks import Supervisor
from volagent.daemon.errors import StartError
from volagent.host.process import Helpers
from volagent.node.agent import Start
from volagent.observe.logs import configure_logs, get_logger
from volagent.observe.metrics import recovery_seconds
from volagent.observe.systemd import feed_watchdog, notify, watchdog_interval_s
from volagent.settings import Settings
from volagent.store.contract import AlreadyRunning, StoreError
from volagent.store.lock import DirectoryLock

EXIT_OK, EXIT_FAILED = 0, 1
STOP_GRACE_S = 5.0
"""Operations under way may end; one that hangs on a dead backend is cut off: its record says so."""
GIL_SWITCH_S = 0.0005
"""The store's writer thread waits this long for a busy event loop, not the default 5 ms: measured,
a commit under load takes 0.9 ms instead of 3.2."""
GC_THRESHOLDS = (10_000, 20, 50)
"""What recovery has read lives as long as the daemon, and the rest is short-lived: the collector
looks rarely, so that it never pauses the loop for long."""

_log = get_logger("daemon")


@dataclass(slots=True)
class Process:
    """What all roles share."""

    settings: Settings
    clock: SystemClock = field(default_factory=SystemClock)
    helpers: Helpers = field(default_factory=Helpers)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    began_s: float = field(default_factory=time.monotonic)
    recovery_s: float = 0.0

    def make_directories(self, *, of_volumes: bool) -> None:
        """Those of the settings; `of_volumes`: also where volumes are. Raises `StartError`."""
        settings = self.settings
        wanted = [(settings.run_dir, 0o755), (settings.state_dir, 0o700)]
        if of_volumes:
            wanted += [(settings.root_dir, 0o755), (settings.image_dir, 0o700)]
        for path, mode in wanted:
            try:
                Path(path).mkdir(mode=mode, parents=True, exist_ok=True)
            except OSError as error:
                raise StartError(f"{path}: {error.strerror}", "run as root, or name another"
                                 " directory") from error  # fmt: skip

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One daemon per root directory: two would take each other's mounts down."""
        try:
            lock = DirectoryLock(Path(self.settings.root_dir))
        except AlreadyRunning as error:
            raise StartError(str(error), "one daemon serves one root directory") from error
        except OSError as error:
            raise StartError(f"{self.settings.root_dir}: {error.strerror}") from error
        try:
            yield
        finally:
            lock.release()

    def listen_to_signals(self, reload: Callable[[], None]) -> None:
        """SIGTERM and SIGINT end the process, SIGHUP reloads."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stopping.set)
        loop.add_signal_handler(signal.SIGHUP, reload)

    async def stay_ready(self, start_loop: Start) -> None:
        """Everything runs: say so, and go on until the process is to stop."""
        self.recovery_s = time.monotonic() - self.began_s
        recovery_seconds.set(self.recovery_s)
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        settings = self.settings
        _log.info(
            "ready", node=settings.node_name, listen=settings.listen, root_dir=settings.root_dir,
            took_s=round(self.recovery_s, 3),
        )  # fmt: skip
        notify("READY=1")
        interval_s = watchdog_interval_s()
        if interval_s is not None:
            start_loop("watchdog", feed_watchdog(interval_s))
        await self.stopping.wait()
        notify("STOPPING=1")
        _log.info("stopping")

    async def end(self, tasks: Supervisor) -> None:
        """Stop the loops, and wait a moment for what is under way."""
        tasks.stop_loops()
        cut_off = await tasks.finish_operations(STOP_GRACE_S)
        if cut_off:
            _log.warning("operations cut off", count=cut_off, grace_s=STOP_GRACE_S)


def run_process(settings: Settings, role: Callable[[Process], Coroutine[Any, Any, None]]) -> int:
    """Run a role until it is told to stop; the exit status."""
    os.umask(0o022)
    sys.setswitchinterval(GIL_SWITCH_S)
    configure_logs(settings.log.level, settings.log.format)

    async def main() -> None:
        await role(Process(settings))

    try:
        asyncio.run(main())
    except (StartError, StoreError) as error:
        return _tell(error)
    except BaseExceptionGroup as group:
        cause = _first(group)
        if not isinstance(cause, StartError | StoreError):
            raise
        return _tell(cause)
    return EXIT_OK


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _tell(error: BaseException) -> int:
    hint = error.hint if isinstance(error, StartError) else ""
    print(f"volagent: cannot go on: {error}", file=sys.stderr)  # noqa: T201  # for a person
    if hint:
        print(f"hint: {hint}", file=sys.stderr)  # noqa: T201
    return EXIT_FAILED
