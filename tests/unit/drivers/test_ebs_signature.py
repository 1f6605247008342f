"""The signature of requests to EC2, on vectors of AWS's own test suite for version 4."""

from datetime import UTC, datetime

import pytest

from volagent.drivers.ebs.signature import Keys, Scope, sign

KEYS = Keys("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
NOW = datetime(2015, 8, 30, 12, 36, tzinfo=UTC)
FORM = {"content-type": "application/x-www-form-urlencoded"}


def signed(headers, body, keys=KEYS):
    return sign(
        keys, Scope("us-east-1", "service"), NOW, host="example.amazonaws.com", path="/",
        headers=headers, body=body,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("headers", "body", "signature"),
    [
        ({}, b"", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
        (FORM, b"Param1=value1",
         "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a"),
    ],
)  # fmt: skip
def test_published_vector_is_signed_as_published(headers, body, signature):
    assert signed(headers, body)["authorization"].endswith(f"Signature={signature}")


def test_session_token_is_sent_and_signed():
    headers = signed({}, b"", Keys("A", "B", "C"))
    assert headers["x-amz-security-token"] == "C"
    assert "x-amz-security-token" in headers["authorization"]


def test_secret_is_not_shown():
    assert KEYS.secret not in repr(KEYS)
