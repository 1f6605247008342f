"""What kubectl sends in protobuf is read as if it were JSON; anything else is refused."""

import pytest

from volagent.api.protobuf import decode_protobuf
from volagent.client.contract import BadRequest


def field(number, value):
    return bytes([number << 3 | 2, len(value)]) + value


def envelope(kind, raw):
    about = field(1, b"authorization.k8s.io/v1") + field(2, kind.encode())
    return b"k8s\x00" + field(1, about) + field(2, raw) + field(4, b"")


def test_access_review_is_read():
    asked = field(2, b"create") + field(5, b"pods") + field(1, b"web")
    review = decode_protobuf(envelope("SelfSubjectAccessReview", field(2, field(1, asked))))
    assert review == {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {"verb": "create", "resource": "pods", "namespace": "web"}},
    }


def test_lists_and_numbers_are_read_and_unknown_fields_are_skipped():
    spec = field(1, b"a") + field(1, b"b") + bytes([4 << 3, 0x90, 0x1C]) + field(9, b"x")
    review = decode_protobuf(envelope("TokenRequest", field(1, b"") + field(2, spec)))
    assert review["spec"] == {"audiences": ["a", "b"], "expirationSeconds": 3600}


@pytest.mark.parametrize(
    "body",
    [b"{}", b"k8s\x00\xff", envelope("Pod", b""), envelope("TokenReview", b"\x12\x50x")],
)
def test_what_cannot_be_read_is_a_bad_request(body):
    with pytest.raises(BadRequest):
        decode_protobuf(body)
