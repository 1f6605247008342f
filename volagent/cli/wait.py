"""`apply --wait`: follow pods until their volumes (and containers, with a runtime) are ready.

A watch on the pods says when something changed; the daemon's explanation says what. On a terminal
the steps of all volumes are drawn in place; else one line is printed per change. Ends with an
error that names every blockage: at once when nothing would happen by itself, else at the timeout.
"""

import sys
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol

from volagent.cli.connection import Api, Watch, object_path
from volagent.cli.errors import CommandError, Refused
from volagent.cli.output import clean, format_ms, print_line
from volagent.cli.progress import Verdict, VolumeLine, find_blockages, judge, list_volumes
from volagent.client.contract import PODS
from volagent.objects.meta import Document

EXPLAIN_PATH = "/apis/node.volagent.dev/v1/explain/namespaces/{namespace}/pods/{name}"
LOOK_AGAIN_S = 0.25
"""How often steps are read again while no pod changes."""
SETTLED_S = 1.0
"""How long a blockage that only a change can remove must last before waiting ends."""
EXPLAINED_AT_ONCE = 20

PodName = tuple[str, str]


@dataclass(slots=True)
class FollowedPod:
    """One pod that is waited for."""

    namespace: str
    name: str
    pod: Document | None = None
    explanation: Document | None = None
    seen: bool = False
    blocked_since_s: float | None = None
    told: dict[str, tuple[str, str, str]] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """`pod default/web`."""
        return f"pod {self.namespace}/{self.name}"

    @property
    def verdict(self) -> Verdict:
        """Where it stands."""
        return judge(self.pod, self.explanation) if self.seen else Verdict.WORKING


class Screen(Protocol):
    """Somewhere to show the progress."""

    def __enter__(self) -> "Screen": ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def show(self, pods: list[FollowedPod]) -> None:
        """Draw or print what is new."""


class LineScreen:
    """One line per change: for pipes and logs."""

    def __init__(self) -> None:
        self._ready: set[PodName] = set()
        self._began_s = time.monotonic()

    def __enter__(self) -> "LineScreen":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return

    def show(self, pods: list[FollowedPod]) -> None:
        """Print the volumes whose step changed, and pods that became ready."""
        for pod in pods:
            for line in list_volumes(pod.explanation or {}):
                if pod.told.get(line.volume) != line.news:
                    pod.told[line.volume] = line.news
                    print_line(f"{pod.title}: {describe_line(line)}")
            key = (pod.namespace, pod.name)
            if pod.verdict is Verdict.READY and key not in self._ready:
                self._ready.add(key)
                took = format_ms((time.monotonic() - self._began_s) * 1000)
                print_line(f"{pod.title} is ready after {took}")


def describe_line(line: VolumeLine) -> str:
    """`data: Working, prepare`, then `data: Ready after 219 ms of work (ext4 /dev/loop0)`."""
    text = f"{line.volume}: {line.state}"
    if line.state == "Ready":
        text += f" after {line.took} of work" if line.took else ""
    elif line.step:
        text += f", {line.step}" + (f" in {line.took}" if line.took else "")
    return clean(f"{text} ({line.detail})" if line.detail else text)


def wait_for_pods(api: Api, names: list[PodName], *, timeout_s: float) -> None:
    """Return when all pods are ready. Raises `CommandError` with what blocks."""
    pods = [FollowedPod(namespace, name) for namespace, name in names]
    with _choose_screen() as screen:
        _follow(api, pods, screen, deadline_s=time.monotonic() + timeout_s)
    failures = [pod for pod in pods if pod.verdict is not Verdict.READY]
    if failures:
        raise _explain_failure(failures, timeout_s)


def _choose_screen() -> Screen:
    if not sys.stdout.isatty():
        return LineScreen()
    from volagent.cli.live import LiveScreen  # loads rich, which only a terminal needs

    return LiveScreen()


def _follow(api: Api, pods: list[FollowedPod], screen: Screen, *, deadline_s: float) -> None:
    by_name = {(pod.namespace, pod.name): pod for pod in pods}
    watch: Watch | None = None
    try:
        while True:
            if watch is None or watch.ended:
                watch = _start_watch(api, by_name)
            _explain(api, pods)
            screen.show(pods)
            now_s = time.monotonic()
            if all(_is_settled(pod, now_s) for pod in pods) or now_s >= deadline_s:
                return
            event = watch.next(min(LOOK_AGAIN_S, deadline_s - now_s))
            while event is not None:
                _take(by_name, *event)
                event = watch.next(0)
    finally:
        if watch is not None:
            watch.close()


def _start_watch(api: Api, by_name: dict[PodName, FollowedPod]) -> Watch:
    namespaces = {namespace for namespace, _ in by_name}
    path = object_path(PODS, namespaces.pop() if len(namespaces) == 1 else "")
    listing = api.get(path)
    for pod in by_name.values():
        pod.pod, pod.seen = None, True
    for item in listing.get("items") or ():
        _take(by_name, "ADDED", item)
    return api.watch(path, {"resourceVersion": listing["metadata"]["resourceVersion"]})


def _take(by_name: dict[PodName, FollowedPod], change: str, document: Document) -> None:
    metadata = document.get("metadata") or {}
    followed = by_name.get((metadata.get("namespace", ""), metadata.get("name", "")))
    if followed is not None:
        followed.pod = None if change == "DELETED" else document


def _explain(api: Api, pods: list[FollowedPod]) -> None:
    """Read the explanations of pods that are on their way, and once more of those that arrived."""
    wanted = [pod for pod in pods if pod.verdict is not Verdict.READY or _is_stale(pod.explanation)]
    for pod in wanted[:EXPLAINED_AT_ONCE]:
        path = EXPLAIN_PATH.format(namespace=pod.namespace, name=pod.name)
        try:
            pod.explanation = api.get(path)
        except Refused as refusal:
            if refusal.code != 404:
                raise refusal.during(f"explain {pod.title}") from refusal
            # the node has not seen the pod yet


def _is_stale(explanation: Document | None) -> bool:
    volumes = (explanation or {}).get("volumes") or ()
    return explanation is None or any(volume.get("state") != "Ready" for volume in volumes)


def _is_settled(pod: FollowedPod, now_s: float) -> bool:
    verdict = pod.verdict
    if verdict is not Verdict.BLOCKED:
        pod.blocked_since_s = None
        return verdict in (Verdict.READY, Verdict.ENDED)
    if pod.blocked_since_s is None:
        pod.blocked_since_s = now_s
    return now_s - pod.blocked_since_s >= SETTLED_S


def _explain_failure(pods: list[FollowedPod], timeout_s: float) -> CommandError:
    sentences: list[str] = []
    hints: list[str] = []
    for pod in pods:
        blockages = list(find_blockages(pod.pod, pod.explanation))
        if pod.pod is None or pod.pod["metadata"].get("deletionTimestamp"):
            sentences.append(f"{pod.title} was deleted meanwhile")
        elif pod.verdict is Verdict.ENDED:
            message = (pod.pod.get("status") or {}).get("message") or "its containers failed"
            sentences.append(f"{pod.title} failed: {clean(message)}")
        elif blockages:
            told = "; ".join(f"{one.subject}: {one.error}" for one in blockages)
            sentences.append(f"{pod.title} is not ready: {clean(told)}")
            hints += [clean(one.remedy) for one in blockages if one.remedy]
        else:
            sentences.append(f"{pod.title} is not ready after {timeout_s:.0f} s")
    first = pods[0]
    hints = list(dict.fromkeys(hints)) or [
        f"volagent explain pod/{first.name} -n {first.namespace}"
    ]
    return CommandError("; ".join(sentences), hint="; ".join(hints))
