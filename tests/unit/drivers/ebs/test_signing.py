"""The vectors that AWS published for Signature Version 4 (aws-sig-v4-test-suite, 2015-08-30)."""

from datetime import UTC, datetime

import pytest

from volagent.drivers.ebs.signing import Credentials, Request, sign

MOMENT = datetime(2015, 8, 30, 12, 36, tzinfo=UTC)
HOST = {"Host": "example.amazonaws.com"}
FORM = {**HOST, "Content-Type": "application/x-www-form-urlencoded"}
PUBLISHED = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
TOKEN = (
    "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPf"
    "IeoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7W"
    "Z0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8F"
    "DrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA=="
)


def signature(request, credentials=PUBLISHED, service="service"):
    added = sign(request, credentials, region="us-east-1", service=service, moment=MOMENT)
    return added["Authorization"].rpartition("Signature=")[2]


@pytest.mark.parametrize(
    ("name", "request_", "expected"),
    [
        ("get-vanilla", Request(method="GET", headers=HOST),
         "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
        ("post-vanilla", Request(method="POST", headers=HOST),
         "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
        ("get-utf8", Request(method="GET", path="/\u1234", headers=HOST),
         "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85"),
        ("get-vanilla-query-order-key-case",
         Request(method="GET", query=[("Param2", "value2"), ("Param1", "value1")], headers=HOST),
         "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"),
        ("post-x-www-form-urlencoded",
         Request(method="POST", headers=FORM, body=b"Param1=value1"),
         "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a"),
        ("post-header-key-case", Request(method="POST", headers={"HOST": HOST["Host"]}),
         "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
        ("get-header-value-trim",
         Request(
             method="GET",
             headers={**HOST, "My-Header1": " value1", "My-Header2": ' "a   b   c"'},
         ),
         "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736"),
    ],
)  # fmt: skip
def test_signature_is_the_published_one(name, request_, expected):
    assert signature(request_) == expected, name


def test_documented_query_to_iam_has_its_documented_signature():
    request = Request(
        method="GET",
        query=[("Action", "ListUsers"), ("Version", "2010-05-08")],
        headers={
            "Host": "iam.amazonaws.com",
            "Content-Type": "application/x-www-form-urlencoded; charset=utf-8",
        },
    )
    expected = "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
    assert signature(request, service="iam") == expected


def test_token_of_temporary_credentials_is_signed():
    given = Credentials(PUBLISHED.access_key, PUBLISHED.secret_key, TOKEN)
    expected = "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead"
    assert signature(Request(method="POST", headers=HOST), given) == expected
    added = sign(
        Request(method="POST", headers=HOST), given,
        region="us-east-1", service="service", moment=MOMENT,
    )  # fmt: skip
    assert added["X-Amz-Security-Token"] == TOKEN
    assert "SignedHeaders=host;x-amz-date;x-amz-security-token," in added["Authorization"]


def test_secret_shows_nowhere():
    given = Credentials("AKID", "very-secret", "token-secret")
    assert "secret" not in f"{given} {given!r}"
