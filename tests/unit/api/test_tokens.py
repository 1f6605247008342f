"""Service account tokens: signing and checking."""

import base64
import json
from datetime import UTC, datetime, timedelta

import pytest

from volagent.api.tokens import (
    ISSUER,
    KEY_BYTES,
    Binding,
    Bound,
    TokenIssuer,
    TokenKeyError,
    load_key,
)
from volagent.client.contract import Unauthorized

START = datetime(2026, 1, 1, tzinfo=UTC)
BINDING = Binding("ns", Bound("builder", "sa-uid"), Bound("web", "pod-uid"))


class FixedClock:
    def __init__(self):
        self.now = START

    def monotonic(self):
        return self.now.timestamp()

    def wall(self):
        return self.now


def make_issuer(key=b"k" * KEY_BYTES):
    return TokenIssuer(key, FixedClock())


def parts_of(token):
    return [
        json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        for part in token.split(".")[:2]
    ]


def test_token_has_the_claims_of_kubernetes():
    token, expires = make_issuer().issue(BINDING, [], 3600)

    header, claims = parts_of(token)
    assert header == {"alg": "HS256", "typ": "JWT"}
    now = int(START.timestamp())
    assert claims.pop("jti")
    assert claims == {
        "iss": ISSUER, "aud": [ISSUER], "sub": "system:serviceaccount:ns:builder",
        "iat": now, "nbf": now, "exp": now + 3600,
        "kubernetes.io": {
            "namespace": "ns",
            "serviceaccount": {"name": "builder", "uid": "sa-uid"},
            "pod": {"name": "web", "uid": "pod-uid"},
        },
    }  # fmt: skip
    assert expires == START + timedelta(hours=1)


def test_token_is_recognised_until_it_expires():
    issuer = make_issuer()
    token, expires = issuer.issue(BINDING, [], 600)

    assert issuer.verify(token).binding == BINDING
    issuer.clock.now = expires - timedelta(seconds=1)
    assert issuer.verify(token)
    issuer.clock.now = expires
    with pytest.raises(Unauthorized, match="expired"):
        issuer.verify(token)


def test_token_is_good_for_its_audience_only():
    issuer = make_issuer()
    token, _ = issuer.issue(BINDING, ["vault"], 600)

    assert issuer.verify(token, "vault")
    with pytest.raises(Unauthorized, match="audience"):
        issuer.verify(token)


def armour(value):
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def tampered(token):
    header, payload, signature = token.split(".")
    _, claims = parts_of(token)
    yield f"{header}.{armour({**claims, 'sub': 'system:admin'})}.{signature}"
    yield f"{armour({'alg': 'none'})}.{payload}."
    yield f"{armour({'alg': 'none'})}.{payload}.{signature}"
    yield f"{header}.{payload}.{signature[:-2]}"
    yield f"{header}.{payload}"
    yield f"{payload}.{signature}"
    yield ""
    yield "…"
    yield token + "x" * 10_000


def test_tampered_tokens_are_refused():
    issuer = make_issuer()
    token, _ = issuer.issue(BINDING, [], 600)

    for forged in tampered(token):
        with pytest.raises(Unauthorized):
            issuer.verify(forged)


def test_token_of_another_key_is_refused():
    token, _ = make_issuer(b"other key").issue(BINDING, [], 600)

    with pytest.raises(Unauthorized):
        make_issuer().verify(token)


def test_issuer_does_not_show_its_key():
    assert "kkk" not in repr(make_issuer())


def test_key_is_made_once_and_for_its_owner_only(tmp_path):
    key = load_key(tmp_path)

    assert len(key) == KEY_BYTES
    assert load_key(tmp_path) == key
    (file,) = tmp_path.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600


def test_key_is_made_although_an_earlier_attempt_was_cut_off(tmp_path):
    (tmp_path / "token.new").write_bytes(b"half")

    assert len(load_key(tmp_path)) == KEY_BYTES


def test_damaged_key_is_refused_with_a_remedy(tmp_path):
    load_key(tmp_path)
    (tmp_path / "token.key").write_bytes(b"short")

    with pytest.raises(TokenKeyError, match="remove it"):
        load_key(tmp_path)
