"""The live view of `apply --wait` on a terminal: every volume's step, drawn in place with rich."""

from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from volagent.cli.output import STATE_COLOURS, clean
from volagent.cli.progress import Verdict, list_volumes
from volagent.cli.wait import FollowedPod

PODS_SHOWN = 12
MARKS = {Verdict.READY: ("✔", "green"), Verdict.BLOCKED: ("✘", "red"), Verdict.ENDED: ("✘", "red")}


class LiveScreen:
    """Redraws one table per pod; what is finished shrinks to a line when there are many."""

    def __init__(self, console: Console | None = None) -> None:
        self._live = Live(console=console or Console(), auto_refresh=False)

    def __enter__(self) -> "LiveScreen":
        self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def show(self, pods: list[FollowedPod]) -> None:
        """Draw all of it again."""
        shown = sorted(pods, key=lambda pod: pod.verdict is Verdict.READY)[:PODS_SHOWN]
        parts: list[Any] = [_draw_pod(pod, folded=len(pods) > PODS_SHOWN) for pod in shown]
        if len(pods) > len(shown):
            ready = sum(pod.verdict is Verdict.READY for pod in pods)
            parts.append(Text(f"{ready} of {len(pods)} pods are ready", style="bold"))
        self._live.update(Group(*parts), refresh=True)


def _draw_pod(pod: FollowedPod, *, folded: bool) -> Any:
    mark, colour = MARKS.get(pod.verdict, ("…", "cyan"))
    title = Text.assemble((mark, colour), " ", (pod.title, "bold"), "  ", pod.verdict.value)
    if folded and pod.verdict is Verdict.READY:
        return title
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for column in ("volume", "state", "step", "took", "detail"):
        table.add_column(column, overflow="fold", no_wrap=column != "detail")
    for line in list_volumes(pod.explanation or {}):
        table.add_row(
            Text(f"    {clean(line.volume)}"),
            Text(line.state, style=STATE_COLOURS.get(line.state, "")),
            Text(line.step, style="dim"),
            Text(line.took, style="dim"),
            Text(clean(line.detail), style="red" if line.state in ("Failed", "Waiting") else "dim"),
        )
    return Group(title, table)
