"""Events: what happened to an object, in Kubernetes' words, for `kubectl describe` and `explain`.

Recording never waits and never fails its caller: events queue up (bounded, the oldest is dropped)
and one task posts them. The same sentence about the same object is one Event whose `count`
grows, updated at most once per `REPEAT_AFTER_S`.
"""

import asyncio
from collections import OrderedDict, deque
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b

from volagent.aio.clock import Clock, format_time
from volagent.client.contract import EVENTS, ApiError, Client, Conflict, NotFound
from volagent.objects.meta import Document, ObjectMeta
from volagent.observe.logs import get_logger

PENDING_EVENTS_LIMIT = 1000
REMEMBERED_EVENTS_LIMIT = 4096
POST_AFTER_S = 0.05
"""Events can wait: their writes would delay those of what they tell about."""
REPEAT_AFTER_S = 10.0
MESSAGE_LIMIT_BYTES = 1024

_log = get_logger("events")


@dataclass(frozen=True, slots=True)
class Subject:
    """The object an event is about."""

    kind: str
    namespace: str
    name: str
    uid: str
    api_version: str = "v1"
    resource_version: str = ""


def subject_of(kind: str, metadata: ObjectMeta, api_version: str = "v1") -> Subject:
    """The subject for an object's metadata."""
    return Subject(
        kind, metadata.namespace, metadata.name, metadata.uid, api_version,
        metadata.resource_version,
    )  # fmt: skip


@dataclass(slots=True)
class _Known:
    name: str
    count: int
    first: datetime
    posted_at_s: float


@dataclass(frozen=True, slots=True)
class _Pending:
    subject: Subject
    type: str
    reason: str
    message: str
    at: datetime


class EventRecorder:
    """Posts events through a client, from one component on one host."""

    def __init__(self, client: Client, clock: Clock, *, component: str, host: str) -> None:
        self._client = client
        self._clock = clock
        self._component = component
        self._host = host
        self._pending: deque[_Pending] = deque(maxlen=PENDING_EVENTS_LIMIT)
        self._known: OrderedDict[tuple[str, str, str], _Known] = OrderedDict()
        self._wake = asyncio.Event()

    def normal(self, subject: Subject, reason: str, message: str) -> None:
        """Record that something went as it should."""
        self._record(subject, "Normal", reason, message)

    def warning(self, subject: Subject, reason: str, message: str) -> None:
        """Record that something went wrong."""
        self._record(subject, "Warning", reason, message)

    async def run(self) -> None:
        """Post what is recorded, for ever."""
        while True:
            await self._wake.wait()
            await asyncio.sleep(POST_AFTER_S)
            self._wake.clear()
            await self.flush()

    async def flush(self) -> None:
        """Post everything recorded so far."""
        while self._pending:
            pending = self._pending.popleft()
            try:
                await self._post(pending)
            except ApiError as error:
                _log.warning("event not posted", reason=pending.reason, error=error.message)

    def _record(self, subject: Subject, kind: str, reason: str, message: str) -> None:
        text = message.encode()[:MESSAGE_LIMIT_BYTES].decode(errors="ignore")
        self._pending.append(_Pending(subject, kind, reason, text, self._clock.wall()))
        self._wake.set()

    async def _post(self, pending: _Pending) -> None:
        key = (pending.subject.uid or pending.subject.name, pending.reason, pending.message)
        known = self._known.get(key)
        now_s = self._clock.monotonic()
        if known is not None:
            self._known.move_to_end(key)
            known.count += 1
            if now_s - known.posted_at_s < REPEAT_AFTER_S:
                return
            known.posted_at_s = now_s
            try:
                await self._repeat(pending, known)
                return
            except (NotFound, Conflict):
                known.count = 1
        known = _Known(_event_name(pending), 1, pending.at, now_s)
        self._known[key] = known
        if len(self._known) > REMEMBERED_EVENTS_LIMIT:
            self._known.popitem(last=False)
        await self._client.create(EVENTS, self._document(pending, known), _namespace(pending))

    async def _repeat(self, pending: _Pending, known: _Known) -> None:
        change = {"count": known.count, "lastTimestamp": format_time(pending.at)}
        await self._client.patch(EVENTS, known.name, change, _namespace(pending))

    def _document(self, pending: _Pending, known: _Known) -> Document:
        subject = pending.subject
        involved = {
            "kind": subject.kind, "namespace": subject.namespace, "name": subject.name,
            "uid": subject.uid, "apiVersion": subject.api_version,
            "resourceVersion": subject.resource_version,
        }  # fmt: skip
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": known.name, "namespace": _namespace(pending)},
            "involvedObject": {field: value for field, value in involved.items() if value},
            "reason": pending.reason,
            "message": pending.message,
            "type": pending.type,
            "source": {"component": self._component, "host": self._host},
            "reportingComponent": self._component,
            "reportingInstance": self._host,
            "firstTimestamp": format_time(known.first),
            "lastTimestamp": format_time(pending.at),
            "count": known.count,
        }


def _namespace(pending: _Pending) -> str:
    return pending.subject.namespace or "default"


def _event_name(pending: _Pending) -> str:
    seed = f"{pending.at.timestamp()}/{pending.reason}/{pending.message}/{pending.subject.uid}"
    return f"{pending.subject.name[:200]}.{blake2b(seed.encode(), digest_size=8).hexdigest()}"
