"""Podman over its REST socket (`systemctl enable --now podman.socket`).

Every call is one request on a unix socket, with a bound in time; a socket that does not answer is
`RuntimeUnavailable`, a refusal that has no better name is `ContainerFailed` with podman's own text.
Nothing is polled: `follow` reads podman's event stream.

aiohttp's client is imported with the first call, so that a daemon without podman never loads it.
For the event loop's thread.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from volagent.aio.backoff import BackOff
from volagent.objects.meta import PodUid
from volagent.observe.logs import get_logger
from volagent.runtime.contract import (
    LABEL_POD_UID,
    ContainerFailed,
    ContainerRejected,
    ContainerSpec,
    ContainerState,
    ImageMissing,
    PodRef,
    RuntimeUnavailable,
    Stage,
)
from volagent.runtime.podman_wire import (
    choose_user,
    container_name,
    make_body,
    needs_image_user,
    read_container,
    read_event,
)

if TYPE_CHECKING:
    import aiohttp

API = "http://podman/v4.0.0/libpod"
CALL_TIMEOUT_S = 30.0
WORK_TIMEOUT_S = 120.0
"""For calls that start processes or copy layers."""
PULL_SILENCE_TIMEOUT_S = 300.0
"""How long a pull may show no progress."""
KILLED_EXIT_CODE = 137
RECONNECT = BackOff(first_s=0.25, max_s=30.0)
EVENT_LINE_BYTES = 1 << 20

_log = get_logger("runtime")


class PodmanRuntime:
    """The podman service behind one socket."""

    name = "podman"
    recursive_read_only = False
    """Podman refuses the option `rro` (seen on 4.3: `unknown mount option "rro"`)."""

    def __init__(self, socket_path: str, *, network: str = "") -> None:
        self._socket_path = socket_path
        self._network = network
        self._session: aiohttp.ClientSession | None = None
        self._out_of_memory: dict[str, bool] = {}
        """By the ids of killed containers."""

    async def close(self) -> None:
        """Close the connections; idempotent."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def version(self) -> str:
        """`4.3.1`."""
        _, answer = await self._call("GET", "version")
        return str(answer.get("Version", "unknown"))

    async def list_containers(self, pod: PodUid | None = None) -> Sequence[ContainerState]:
        """Our containers, told by their labels."""
        label = LABEL_POD_UID if pod is None else f"{LABEL_POD_UID}={pod}"
        filters = msgspec.json.encode({"label": [label]}).decode()
        status, answer = await self._call(
            "GET", "containers/json", {"all": "true", "filters": filters}
        )
        if status != 200:
            raise RuntimeUnavailable(f"podman does not list containers: {_text(answer)}")
        states = [read_container(entry) for entry in answer or ()]
        return [await self._with_cause(state) for state in states if state is not None]

    async def has_image(self, image: str) -> bool:
        """Whether an image is in the local store."""
        status, _ = await self._call("GET", f"images/{quote(image, safe='')}/exists")
        return status == 204

    async def pull_image(self, image: str) -> None:
        """Fetch an image; podman reports progress, and failure too, as lines of JSON."""
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=None, sock_read=PULL_SILENCE_TIMEOUT_S)
        failure = ""
        try:
            async with self._open().post(
                f"{API}/images/pull", params={"reference": image}, timeout=timeout
            ) as response:
                async for line in response.content:
                    report = _decode(line)
                    if response.status != 200:
                        failure = _text(report)
                    elif isinstance(report, dict) and report.get("error"):
                        failure = str(report["error"])
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unavailable(error) from error
        if failure:
            raise ImageMissing(f'Failed to pull image "{image}": {failure}')

    async def create_container(self, pod: PodRef, spec: ContainerSpec, attempt: int) -> str:
        """Make a container; what is left of a try that never started is replaced."""
        image_user = await self._image_user(spec.image) if needs_image_user(spec) else ""
        body = make_body(pod, spec, attempt, self._network, choose_user(spec, image_user))
        status, answer = await self._call(
            "POST", "containers/create", body=body, timeout_s=WORK_TIMEOUT_S
        )
        if status >= 400 and "already in use" in _text(answer):
            await self._clear_name(container_name(pod, spec.name, attempt), pod.uid)
            status, answer = await self._call(
                "POST", "containers/create", body=body, timeout_s=WORK_TIMEOUT_S
            )
        if status in (200, 201):
            return str(answer["Id"])
        text = _text(answer)
        if status == 404 or "image not known" in text:
            raise ImageMissing(text)
        raise ContainerRejected(text) if status == 400 else ContainerFailed(text)

    async def start_container(self, container_id: str) -> None:
        """Start it; 304 says that it runs already."""
        status, answer = await self._call(
            "POST", f"containers/{container_id}/start", timeout_s=WORK_TIMEOUT_S
        )
        if status not in (204, 304):
            raise ContainerFailed(_text(answer))

    async def stop_container(self, container_id: str, *, kill: bool) -> None:
        """Send the signal and return. (`/stop` would hold the request for the whole grace.)"""
        signal = "KILL"
        if not kill:
            status, answer = await self._call("GET", f"containers/{container_id}/json")
            if status == 404:
                return
            signal = str((answer.get("Config") or {}).get("StopSignal") or "TERM")
        status, answer = await self._call(
            "POST", f"containers/{container_id}/kill", {"signal": signal}
        )
        # 409, in older versions 500 with this text: it has ended meanwhile.
        if status in (204, 404, 409) or "can only kill running containers" in _text(answer):
            return
        raise ContainerFailed(_text(answer))

    async def remove_container(self, container_id: str) -> None:
        """Remove it and its anonymous volumes."""
        status, answer = await self._call(
            "DELETE", f"containers/{container_id}", {"v": "true"}, timeout_s=WORK_TIMEOUT_S
        )
        if status not in (200, 204, 404):
            raise ContainerFailed(_text(answer))
        self._out_of_memory.pop(container_id, None)

    async def follow(self, on_change: Callable[[PodUid | None], None]) -> None:
        """Read the event stream for ever."""
        import aiohttp

        filters = {"type": ["container"], "event": ["died", "remove"]}
        params = {"stream": "true", "filters": msgspec.json.encode(filters).decode()}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CALL_TIMEOUT_S)
        failures = 0
        while True:
            try:
                async with self._open().get(
                    f"{API}/events", params=params, timeout=timeout, read_bufsize=EVENT_LINE_BYTES
                ) as response:
                    response.raise_for_status()
                    if failures:
                        _log.info("podman answers again", socket=self._socket_path)
                    failures = 0
                    on_change(None)
                    async for line in response.content:
                        pod = read_event(_decode(line))
                        if pod is not None:
                            on_change(pod)
                why = "the event stream ended"
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                why = str(self._unavailable(error))
            failures += 1
            if failures == 1:
                _log.warning("podman's events are lost", error=why)
            await asyncio.sleep(RECONNECT.delay_s(failures, 0.0))

    async def _with_cause(self, state: ContainerState) -> ContainerState:
        """The same, with whether it was killed for its memory: the list does not tell that."""
        if state.stage is not Stage.EXITED or state.exit_code != KILLED_EXIT_CODE:
            return state
        known = self._out_of_memory.get(state.container_id)
        if known is None:
            _, answer = await self._call("GET", f"containers/{state.container_id}/json")
            known = bool((answer.get("State") or {}).get("OOMKilled"))
            self._out_of_memory[state.container_id] = known
        return replace(state, out_of_memory=known)

    async def _image_user(self, image: str) -> str:
        status, answer = await self._call("GET", f"images/{quote(image, safe='')}/json")
        if status != 200:
            raise ImageMissing(_text(answer))
        return str((answer.get("Config") or {}).get("User") or "")

    async def _clear_name(self, name: str, uid: PodUid) -> None:
        """Remove the container of that name if it is ours and never ran."""
        for state in await self.list_containers(uid):
            own = container_name(state.pod, state.name, state.attempt)
            if own == name and state.stage is Stage.CREATED:
                await self.remove_container(state.container_id)
                return
        raise ContainerFailed(f"a container named {name} exists already")

    async def _call(
        self,
        method: str,
        path: str,
        params: dict[str, str] | None = None,
        *,
        body: Any = None,
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> tuple[int, Any]:
        """One request; its status and decoded answer. Raises `RuntimeUnavailable`."""
        import aiohttp

        try:
            async with self._open().request(
                method,
                f"{API}/{path}",
                params=params,
                data=msgspec.json.encode(body) if body is not None else None,
                headers={"Content-Type": "application/json"} if body is not None else None,
                timeout=aiohttp.ClientTimeout(total=timeout_s),
            ) as response:
                return response.status, _decode(await response.read())
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unavailable(error) from error

    def _open(self) -> "aiohttp.ClientSession":
        if self._session is None:
            import aiohttp

            self._session = aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(self._socket_path)
            )
        return self._session

    def _unavailable(self, error: Exception) -> RuntimeUnavailable:
        why = "no answer in time" if isinstance(error, TimeoutError) else str(error)
        return RuntimeUnavailable(f"podman at {self._socket_path}: {why or type(error).__name__}")


def _decode(payload: bytes) -> Any:
    """The JSON of an answer; what is none is kept as text."""
    if not payload.strip():
        return {}
    try:
        return msgspec.json.decode(payload)
    except msgspec.DecodeError:
        return {"message": payload.decode(errors="replace").strip()}


def _text(answer: Any) -> str:
    """Podman's own words for a failure."""
    if isinstance(answer, dict):
        return str(answer.get("message") or answer.get("cause") or "podman gave no reason")
    return str(answer)
