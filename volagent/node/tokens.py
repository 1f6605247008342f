"""Service account tokens for projected volumes: fetched ahead, renewed before they expire.

A token is kept in memory only, per pod and wish, and renewed when four fifths of its life are over
(the kubelet's rule). Whoever needs one that is not here yet is told when it is.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from volagent.aio.clock import Clock, parse_time
from volagent.client.contract import ApiError, Client
from volagent.drivers.payload import TokenNeed
from volagent.objects.meta import PodUid
from volagent.objects.pod import Pod
from volagent.observe.logs import get_logger

RENEW_AT_SHARE = 0.8
RETRY_S = 5.0
DEFAULT_EXPIRATION_S = 3600

_log = get_logger("node")
_Key = tuple[PodUid, TokenNeed]


class TokenCache:
    """The tokens of this node's pods."""

    def __init__(
        self,
        client: Client,
        clock: Clock,
        start: Callable[[str, Coroutine[Any, Any, None]], object],
        on_token: Callable[[PodUid], None],
    ) -> None:
        self._client = client
        self._clock = clock
        self._start = start
        self._on_token = on_token
        self._tokens: dict[_Key, bytes] = {}
        self._asked: set[_Key] = set()
        self._timers: dict[_Key, asyncio.TimerHandle] = {}

    def get(self, pod: Pod, need: TokenNeed) -> bytes | None:
        """The token, or None while it is being fetched (`on_token` will be called)."""
        key = (PodUid(pod.metadata.uid), need)
        token = self._tokens.get(key)
        if token is None and key not in self._asked:
            self._ask(key, pod)
        return token

    def forget(self, uid: PodUid) -> None:
        """A pod is gone: its tokens are no longer renewed."""
        for key in [key for key in self._tokens if key[0] == uid]:
            del self._tokens[key]
        for key in [key for key in self._timers if key[0] == uid]:
            self._timers.pop(key).cancel()
        self._asked = {key for key in self._asked if key[0] != uid}

    def _ask(self, key: _Key, pod: Pod) -> None:
        self._asked.add(key)
        self._start("token", self._fetch(key, pod))

    async def _fetch(self, key: _Key, pod: Pod) -> None:
        uid, need = key
        metadata = pod.metadata
        account = pod.spec.service_account_name or "default"
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": [need.audience] if need.audience else [],
                "expirationSeconds": need.expiration_seconds or DEFAULT_EXPIRATION_S,
                "boundObjectRef": {
                    "kind": "Pod", "apiVersion": "v1", "name": metadata.name, "uid": uid,
                },
            },
        }  # fmt: skip
        try:
            answer = await self._client.issue_token(account, metadata.namespace, request)
        except ApiError as error:
            _log.warning("token not issued", pod=uid, account=account, error=error.message)
            self._again(key, pod, RETRY_S)
            return
        if key not in self._asked:
            return  # the pod went meanwhile
        status = answer["status"]
        self._tokens[key] = str(status["token"]).encode()
        life_s = (parse_time(status["expirationTimestamp"]) - self._clock.wall()).total_seconds()
        self._again(key, pod, max(life_s * RENEW_AT_SHARE, RETRY_S))
        self._on_token(uid)

    def _again(self, key: _Key, pod: Pod, after_s: float) -> None:
        loop = asyncio.get_running_loop()
        self._timers[key] = loop.call_later(after_s, self._ask, key, pod)
